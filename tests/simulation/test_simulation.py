"""Hundreds of schedules of crashes, lost replies, zombies and requests, each from a seed.

A failure names its seed; `SEED=17 python -m tests.simulation` lives it again, step by step.
`SEEDS=20000` in the environment makes it that many (`make soak`).
"""

from __future__ import annotations

import os

import pytest

from failback.contracts.words import Outcome, StepName
from tests.simulation.run import Bugs, Wrong, simulate

SEEDS = int(os.environ.get("SEEDS", "500"))
CHUNK = 25


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_whatever_happens_the_end_is_right(first: int) -> None:
    wrong, ends = [], set()
    for seed in range(first, first + CHUNK):
        try:
            ends.add(simulate(seed).outcome)
        except Wrong as error:
            wrong.append(f"seed {seed}: {error}")
    assert not wrong, "\n".join(wrong)
    assert ends >= {Outcome.COMMITTED, Outcome.UNDONE}


@pytest.mark.parametrize("seed", [3, 14, 15])
def test_the_same_seed_is_the_same_schedule(seed: int) -> None:
    first, second = simulate(seed), simulate(seed)

    assert len(first.crew.trace) > 15
    assert first.crew.trace == second.crew.trace
    assert first.outcome == second.outcome


@pytest.mark.parametrize(
    "bugs",
    [
        Bugs(flush_lies=True),
        Bugs(no_fence=True),
        Bugs(skipped=StepName.UNDO_PROTECT_TARGET),
        Bugs(skipped=StepName.UNDO_FREEZE_REPLICA),
        Bugs(no_marks=True),
    ],
    ids=["journal-before-flush", "no-fence", "target-not-restored", "snapshot-left", "no-marks"],
)
def test_a_deliberate_bug_is_noticed(bugs: Bugs) -> None:
    """The simulation bites: with a bug some schedule among the first ones ends wrong."""
    for seed in range(1, 400):
        try:
            simulate(seed, bugs)
        except Wrong:
            return
    pytest.fail("400 schedules did not notice it")
