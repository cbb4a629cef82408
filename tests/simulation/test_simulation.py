"""Hundreds of schedules of crashes, lost replies, zombies and requests, each from a seed.

A failure names its seed; `SEED=17 python -m tests.simulation` lives it again, step by step.
`SEEDS=20000` in the environment makes it that many (`make soak`).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from failback.contracts.words import Outcome
from failback.disks import copier
from tests.simulation.bugs import CASES, Case, HastyCopy
from tests.simulation.crew import Crew, Wrong
from tests.simulation.run import Failed, simulate

SEEDS = int(os.environ.get("SEEDS", "500"))
CHUNK = 25


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Hundreds of runs that fail on purpose fill a log that nobody reads."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_whatever_happens_the_end_is_right(first: int) -> None:
    wrong: list[str] = []
    ends: Counter[Outcome | None] = Counter()
    for seed in range(first, first + CHUNK):
        try:
            ends[simulate(seed).outcome] += 1
        except Failed as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)
    assert {Outcome.COMMITTED, Outcome.UNDONE} <= set(ends)


@pytest.mark.timeout(300)
def test_the_same_seed_is_the_same_schedule_on_a_slow_machine_too() -> None:
    command = [sys.executable, "-m", "tests.simulation"]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "SEEDS": "1-30", "JUMPS": jumps, "PYTHONHASHSEED": hashes},
            stdout=subprocess.PIPE,
            text=True,
        )
        for jumps, hashes in (("", "1"), ("1", "2"))
    ]
    first, second = (process.communicate()[0].splitlines() for process in processes)

    assert len(first) == 30
    assert first == second


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_deliberate_bug_is_noticed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation bites: with a bug some schedule among these ends wrong."""
    if case.name == "journal-before-flush":
        monkeypatch.setattr(copier, "_Copy", HastyCopy)
    for seed in case.seeds:
        try:
            simulate(seed, case.bugs)
        except Failed:
            return
    pytest.fail(f"{len(case.seeds)} schedules did not notice it")


def test_an_attempt_that_never_ends_is_told_with_its_place() -> None:
    crew = Crew(1)
    crew.quiet = True

    def forever() -> None:
        while True:
            crew.sleep(1.0)

    with pytest.raises(Wrong, match="circles, at sleep"):
        crew.attempt("a", forever, lambda: None)


def test_what_is_wrong_in_an_attempt_is_told_whatever_the_attempt_makes_of_it() -> None:
    crew = Crew(1)

    def broken() -> None:
        raise KeyError("a mistake in the simulation itself")

    def swallows() -> None:
        crew.watch = broken
        try:
            crew.point("here")
        except Exception:
            return

    with pytest.raises(KeyError):
        crew.attempt("a", swallows, lambda: None)
