"""The commands of every life are those that were taken, or a patch accounts for the change."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from failback.contracts.words import Destination, StepName
from tests.replay import fingerprints
from tests.replay.contents import HISTORIES, TOO_LARGE, read, recordings, told
from tests.replay.fingerprints import WORKFLOWS, Fingerprints, patches_in
from tests.replay.lives import (
    AUTO_UNDO,
    COMMIT,
    DESTINATIONS,
    FAILED,
    SWITCH,
    UNDO,
    Life,
    all_lives,
)
from tests.workflow.stand_ins import ALL
from workflows.engine import Engine
from workflows.life import Life as WorkflowLife
from workflows.steps import LISTS, Step

Steps = tuple[Step, ...]
Lived = dict[str, list[str]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lived() -> Lived:
    """The commands of all lives."""
    return {name: await life.commands() for name, life in (await all_lives()).items()}


async def test_no_life_changed_its_commands(lived: Lived) -> None:
    before = fingerprints.load(fingerprints.FILE)
    now = await fingerprints.now(before.patches, lived)

    assert now.unaccounted_since(before) == [], (
        "guard the change with workflow.patched, record a history of it, and run "
        "`python -m tests.replay.fingerprints`"
    )
    assert now == before, "run `python -m tests.replay.fingerprints`"


async def test_lives_are_the_same_every_time() -> None:
    life = Life(DESTINATIONS["manual"], {**SWITCH, **COMMIT}, pause_at=9)
    assert await life.commands() == await life.commands()


async def test_a_life_shows_what_its_name_says(lived: Lived) -> None:
    for name, life in (await all_lives()).items():
        assert set(life.shows) <= set(lived[name]), name
        assert not lived[name][0].startswith(FAILED), name


def test_every_operation_and_patch_is_lived(lived: Lived) -> None:
    given = {command for commands in lived.values() for command in commands}
    all_told = [told(read(files)) for files in recordings().values()]
    recorded = {word for words in all_told if words[0] != "started Failback" for word in words} | {
        word for words in all_told for word in words if word.startswith("marker ")
    }
    patches = {name for file in WORKFLOWS.glob("*.py") for name in patches_in(file.read_text())}
    # What the workflow itself asks for, before or beside its life, is recorded.
    assert {f"marker {patch}" for patch in patches - TOO_LARGE} <= given | recorded
    for operation in ALL:
        # The small workflows are no lives: their histories, which are never recorded over, count.
        assert f"activity {operation.name}" in given or f"scheduled {operation.name}" in recorded


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


Change = Callable[[Steps, StepName], Steps]
EVERYWHERE = [
    (change, place, StepName.VERIFY) for change in (without, twice, swapped) for place in LISTS
]
ELSEWHERE = [
    (without, Destination.RECOVERED, StepName.REPLACE_SOURCE),
    (swapped, Destination.RECOVERED, StepName.MARK_FAILBACK),
    (without, Destination.RECOVERED, StepName.POWER_OFF_SOURCE),
    (without, Destination.NEW, StepName.POWER_OFF_SOURCE),
]
PATCH = "steps-2"


@pytest.fixture
def patched_source(tmp_path: Path) -> list[Path]:
    """Code in which the patch is found."""
    file = tmp_path / "code.py"
    file.write_text(f"workflow.patched({PATCH!r})\n")
    return [file]


@pytest.mark.parametrize(("change", "place", "name"), EVERYWHERE + ELSEWHERE)
async def test_a_change_of_the_steps_is_caught(
    change: Change, place: Destination, name: StepName, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = {"life": Life(DESTINATIONS[place], COMMIT)}
    before = await fingerprints.take(lives, sources=[])
    monkeypatch.setitem(LISTS, place, change(LISTS[place], name))

    after = await fingerprints.take(lives, sources=[])

    assert after.unaccounted_since(before) == ["life gives other commands"]


@pytest.mark.parametrize(("change", "place", "name"), ELSEWHERE)
@pytest.mark.parametrize("guarded", [True, False])
async def test_a_patch_accounts_only_for_what_it_guards(
    change: Change,
    place: Destination,
    name: StepName,
    guarded: bool,
    patched_source: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives = {"life": Life(DESTINATIONS[place], COMMIT)}
    before = await fingerprints.take(lives, sources=[])
    walk = Engine.forward

    async def forward(self: Engine, steps: Sequence[Step]) -> None:
        if name in {step.name for step in steps}:
            new = self.runtime.patched(PATCH)
            if new or not guarded:
                steps = change(tuple(steps), name)
        await walk(self, steps)

    monkeypatch.setattr(Engine, "forward", forward)
    after = await fingerprints.take(lives, sources=patched_source)

    assert after.lives != before.lives and after.patches == (PATCH,)
    wrong = [] if guarded else [f"life gives other commands also without {PATCH}"]
    assert after.unaccounted_since(before) == wrong


async def test_a_patch_that_guards_nothing_excuses_no_probe(
    patched_source: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = {"life": Life({}, COMMIT), "auto": Life(AUTO_UNDO)}
    before = await fingerprints.take(lives, sources=[])
    commit = WorkflowLife._commit

    async def asking(self: WorkflowLife) -> object:
        self.runtime.patched(PATCH)
        await self.engine.reachable(LISTS[Destination.ORIGINAL][0], of_vms=False)
        return await commit(self)

    monkeypatch.setattr(WorkflowLife, "_commit", asking)
    after = await fingerprints.take(lives, sources=patched_source)

    assert after.unaccounted_since(before) == [f"life gives other commands also without {PATCH}"]


async def test_the_last_probe_before_an_automatic_undo_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives = {"auto-undo": Life(AUTO_UNDO)}
    before = await fingerprints.take(lives)

    async def no_trouble(*args: object) -> str:
        return ""

    monkeypatch.setattr(Engine, "trouble", no_trouble)
    assert (await fingerprints.take(lives)).unaccounted_since(before)


OLD = Fingerprints(("a",), {"x": "1", "y": "2"}, {"a": {"x": "0"}}, {"commit": "f"})


@pytest.mark.parametrize(
    ("now", "wrong"),
    [
        (OLD, []),
        # Another life, patch or history is no change.
        (replace(OLD, lives={**OLD.lives, "z": "3"}, histories={"commit": "f", "more": "e"}), []),
        (
            # The new patch accounts for y, and x lives as before in every version.
            Fingerprints(
                ("a", "b"),
                {"x": "1", "y": "9"},
                {"a": {"x": "0", "y": "2"}, "b": {"y": "2"}},
                OLD.histories,
            ),
            [],
        ),
        (
            # It accounts for y only in the version before a.
            Fingerprints(
                ("a", "b"),
                {"x": "1", "y": "9"},
                {"a": {"x": "0", "y": "2"}, "b": {"y": "8"}},
                OLD.histories,
            ),
            ["y gives other commands also without b"],
        ),
        (replace(OLD, lives={"x": "9", "y": "2"}), ["x gives other commands"]),
        (
            replace(OLD, before={"a": {"x": "9"}}),
            ["x gives other commands to a run from before a"],
        ),
        (replace(OLD, lives={"x": "1"}), ["y is not lived any more"]),
        (replace(OLD, histories={"commit": "e"}), ["history commit was recorded over, or is gone"]),
        (
            Fingerprints((), OLD.lives, {}, OLD.histories),
            ["patch a is gone", "x gives other commands to a run from before a"],
        ),
    ],
)
def test_what_is_unaccounted_for(now: Fingerprints, wrong: list[str]) -> None:
    assert now.unaccounted_since(OLD) == wrong


def test_a_change_is_refused_and_the_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def all_of_them() -> dict[str, Life]:
        return {"life": Life(DESTINATIONS["recovered"], COMMIT)}

    monkeypatch.setattr(fingerprints, "FILE", tmp_path / "fingerprints.json")
    monkeypatch.setattr(fingerprints, "all_lives", all_of_them)
    assert fingerprints.main() == 0
    taken = fingerprints.FILE.read_text()
    changed = without(LISTS[Destination.RECOVERED], StepName.REPLACE_SOURCE)
    monkeypatch.setitem(LISTS, Destination.RECOVERED, changed)

    assert fingerprints.main() == 1

    assert "life gives other commands" in capsys.readouterr().out
    assert fingerprints.FILE.read_text() == taken


def test_patches_are_found_in_the_code() -> None:
    source = 'if workflow.patched("a") or self.runtime.patched("b"):\n    deprecate("c")\n'
    assert fingerprints.patches_in(source) == {"a", "b"}
