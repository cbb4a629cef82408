"""Replays seeds: `SEED=17 python -m tests.simulation` prints the trace of one, `SEEDS=1-30` one
line for each. With `JUMPS=1` the process's clock leaps at every look: no schedule may depend on it.
"""

from __future__ import annotations

import itertools
import logging
import os
import time

real, leaps = time.monotonic, itertools.count()
if os.environ.get("JUMPS"):
    # Before the product is imported: it takes its clocks as defaults.
    time.monotonic = lambda: real() + next(leaps)

from tests.simulation.run import Failed, simulate  # noqa: E402 - see above

logging.disable(logging.CRITICAL)
first, _, last = os.environ.get("SEEDS", os.environ.get("SEED", "1")).partition("-")
failed = []
for seed in range(int(first), int(last or first) + 1):
    try:
        made = simulate(seed)
    except Failed as error:
        failed.append(seed)
        print(error)
        continue
    if not last:
        print("\n".join(made.crew.trace))
    print(f"seed {seed}: {made.request.destination} {made.outcome} {made.crew.digest()}")
if failed:
    raise SystemExit(f"failed: {failed}")
