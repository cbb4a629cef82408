"""The same again and again, for as long as one likes: `make soak` (SOAK_MINUTES, SEED, KILLS).

Every test prints its seed. The same seed gives the same contents, victims and goals; the instants
of the kills are the machine's.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.kills import Tally, kill_many
from tests.faults.scene import KILLED, METHODS, Scene
from tests.faults.test_power_cut import POWER, VOLATILE

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

NewScene = Callable[..., Scene]
MINUTES = float(os.environ.get("SOAK_MINUTES") or 8)
"""For all tests of this file together."""
KILLS = int(os.environ.get("KILLS") or 25)
"""At least so many for each method, however long it takes."""
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
TESTS = len(KILLED) + len(METHODS)


def rounds(new: Callable[[int], Scene], once: Callable[[Scene, int], Tally]) -> Tally:
    """Scenes one after another, each with a seed of its own and a few kills, until it is enough."""
    began, total, seed = time.monotonic(), Tally(), SEED
    while total.kills < KILLS or time.monotonic() - began < MINUTES * 60 / TESTS:
        print(f"seed {seed}", flush=True)
        one = new(seed)
        tally = once(one, 5)
        one.close()
        assert tally.wrong == [], f"seed {seed}"
        total.kills += tally.kills
        total.resumed += tally.resumed
        total.seen = Counter(total.seen + tally.seen)
        seed += 1
        shutil.rmtree(one.root)
    print(f"{total.kills} kills, {total.resumed} resumed; {dict(sorted(total.seen.items()))}")
    assert total.resumed
    return total


@pytest.mark.parametrize("method", KILLED)
def test_kills(scene: NewScene, method: str) -> None:
    rounds(lambda seed: scene(seed, method), kill_many)


@pytest.mark.parametrize("method", METHODS)
def test_power_cuts(scene: NewScene, method: str) -> None:
    rounds(
        lambda seed: scene(seed, method),
        lambda one, kills: kill_many(one, kills, victims=POWER, to_target=VOLATILE),
    )
