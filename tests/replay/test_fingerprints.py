"""The commands of every life are those that were taken, or a patch accounts for the change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from failback.contracts.words import Destination, StepName
from tests.replay import fingerprints
from tests.replay.lives import COMMIT, DESTINATIONS, SWITCH, UNDO, Life, all_lives
from workflows.steps import LISTS, Step

Steps = tuple[Step, ...]

HISTORIES = Path(__file__).parent / "histories"


async def test_no_life_changed_its_commands() -> None:
    now, before = fingerprints.take(await all_lives()), fingerprints.load()

    assert now.unpatched_since(before) == [], (
        "guard the change with workflow.patched, record a history of it, and run "
        "`python -m tests.replay.fingerprints`"
    )
    assert now == before, "run `python -m tests.replay.fingerprints`"


async def test_lives_are_the_same_every_time() -> None:
    life = Life(DESTINATIONS["manual"], {**SWITCH, **COMMIT}, pause_at=9)
    assert await life.commands() == await life.commands()


@pytest.mark.parametrize("place", ["original", "recovered", "new"])
@pytest.mark.parametrize("end", ["commit", "undo"])
async def test_a_life_gives_the_commands_that_a_server_recorded(place: str, end: str) -> None:
    """The virtual clock tells no tales: the same activities, in the same order."""
    file = end if place == "original" else f"{place}-{end}"
    recorded = [
        event["activityTaskScheduledEventAttributes"]["activityType"]["name"]
        for event in json.loads((HISTORIES / f"{file}.json").read_text())["events"]
        if event["eventType"].endswith("ACTIVITY_TASK_SCHEDULED")
    ]
    commands = await Life(DESTINATIONS[place], COMMIT if end == "commit" else UNDO).commands()
    assert [one.removeprefix("activity ") for one in commands if "activity " in one] == recorded


def without(steps: Steps, name: StepName) -> Steps:
    return tuple(step for step in steps if step.name is not name)


def twice(steps: Steps, name: StepName) -> Steps:
    return tuple(step for each in steps for step in [each] * (1 + (each.name is name)))


def swapped(steps: Steps, name: StepName) -> Steps:
    at = [step.name for step in steps].index(name)
    return (*steps[:at], steps[at + 1], steps[at], *steps[at + 2 :])


@pytest.mark.parametrize("change", [without, twice, swapped])
@pytest.mark.parametrize("place", list(LISTS))
async def test_a_change_of_the_steps_is_caught_and_a_patch_accounts_for_it(
    change: Callable[[Steps, StepName], Steps], place: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(DESTINATIONS[place], COMMIT)
    before = fingerprints.take({"life": await life.commands()})
    monkeypatch.setitem(LISTS, place, change(LISTS[place], StepName.VERIFY))

    after = fingerprints.take({"life": await life.commands()})

    assert after.unpatched_since(before) == ["life"]
    patched = replace(after, patches=("steps-2",))
    assert patched.unpatched_since(before) == []
    assert patched.changed_since(before) == ["life"]


def test_patches_are_found_in_the_code() -> None:
    source = 'if workflow.patched("a") or self.runtime.patched("b"):\n    deprecate("c")\n'
    assert fingerprints.patches_in(source) == {"a", "b"}
