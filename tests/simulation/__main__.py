"""Replays one seed and prints its trace: `SEED=17 python -m tests.simulation`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.simulation.run import Simulation, Wrong

seed = int(os.environ.get("SEED", "1"))
with tempfile.TemporaryDirectory() as folder:
    made = Simulation(seed, Path(folder))
    try:
        made.live()
    except Wrong as wrong:
        print("\n".join(made.crew.trace))
        raise SystemExit(f"seed {seed}: {wrong}") from wrong
    print("\n".join(made.crew.trace))
    print(f"seed {seed}: {made.request.destination} {made.outcome} {made.crew.digest()}")
