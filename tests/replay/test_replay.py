"""Every recorded history replays with the code as it is now, without a server, and has the content
that its name says."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from starter.plugin import failback_plugin
from tests.replay import careless
from tests.replay.contents import (
    CONTENT,
    HISTORIES,
    TOO_LARGE,
    lacking,
    path_of,
    read,
    recordings,
    told,
)
from tests.replay.fingerprints import WORKFLOWS, patches_in
from tests.replay.record import EARLIER, PATHS
from tests.workflow.stand_ins import ALL
from workflows.cleanup import CleanupWorkflow
from workflows.failback import FailbackWorkflow
from workflows.inputs import LARGEST
from workflows.preview import PreviewWorkflow
from workflows.reconcile import ReconcileWorkflow

FILES = sorted(HISTORIES.glob("*.json"))
OURS: tuple[type, ...] = (FailbackWorkflow, CleanupWorkflow, ReconcileWorkflow, PreviewWorkflow)


def replayer(*workflows: type) -> Replayer:
    """The replayer with the plugin that clients and workers share."""
    return Replayer(workflows=workflows or OURS, plugins=[failback_plugin()])


def history(stem: str, text: str = "") -> WorkflowHistory:
    text = text or (HISTORIES / f"{stem}.json").read_text()
    return WorkflowHistory.from_json(f"failback/{stem}", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    await replayer().replay_workflow(history(path.stem))


def begun_with(change: Callable[[bytes], bytes]) -> WorkflowHistory:
    """The history of a commit, had it begun with another input."""
    recorded = json.loads((HISTORIES / "commit.json").read_text())
    begun = recorded["events"][0]["workflowExecutionStartedEventAttributes"]
    (payload,) = begun["input"]["payloads"]
    payload["data"] = b64encode(change(b64decode(payload["data"]))).decode()
    return WorkflowHistory.from_json("failback/commit", json.dumps(recorded))


async def test_a_run_that_began_with_more_than_is_taken_now_goes_on() -> None:
    padding = b'{"unknown": "%s", ' % (b"x" * LARGEST)
    await replayer().replay_workflow(begun_with(lambda data: padding + data[1:]))

    # The check bites: with an input that was refused even then it does not.
    with pytest.raises(NondeterminismError):
        await replayer().replay_workflow(begun_with(lambda data: b"{}"))


def test_every_path_is_recorded() -> None:
    assert {path_of(stem) for stem in recordings()} == {*PATHS, *EARLIER} == set(CONTENT)


@pytest.mark.parametrize("stem", list(recordings()))
def test_a_history_tells_what_its_name_says(stem: str) -> None:
    words = told(read(recordings()[stem]))
    assert lacking(words, CONTENT[path_of(stem)]) == "", words


def test_a_history_of_another_content_is_noticed() -> None:
    """The contents bite: the plain commit is no history of any other path."""
    words = told(read(recordings()["commit"]))
    assert [path for path in CONTENT if not lacking(words, CONTENT[path])] == ["commit"]


@pytest.mark.parametrize("stem", sorted(EARLIER))
def test_a_history_from_before_a_patch_has_no_marker_of_it(stem: str) -> None:
    words = told(read(recordings()[stem]))
    assert [word for word in words if word.startswith("marker ")] == []


def test_every_workflow_operation_and_patch_is_recorded() -> None:
    words = {word for files in recordings().values() for word in told(read(files))}
    patches = {name for file in WORKFLOWS.glob("*.py") for name in patches_in(file.read_text())}
    names = [getattr(one, "__temporal_workflow_definition").name for one in OURS]
    assert {f"scheduled {operation.name}" for operation in ALL} <= words
    assert {f"marker {patch}" for patch in patches - TOO_LARGE} <= words
    assert {f"started {name}" for name in names} <= words


async def test_a_changed_history_is_noticed() -> None:
    """The check bites: another activity in the place of a recorded one does not replay."""
    whole = (HISTORIES / "commit.json").read_text()
    text = whole.replace('"protect_target"', '"power_off"', 1)
    assert text != whole

    with pytest.raises(NondeterminismError):
        await replayer().replay_workflow(history("commit", text))


@pytest.mark.parametrize(
    ("changed", "stem"),
    [
        (careless.Cleanup, "cleanup"),
        (careless.CleanupAfter, "cleanup"),
        (careless.Reconcile, "reconcile"),
        (careless.Reconcile, "reconcile-undo"),
        (careless.ReconcileTwice, "reconcile-cleanup"),
        (careless.LookingBefore, "preview"),
    ],
)
async def test_a_careless_change_of_the_small_workflows_is_noticed(
    changed: type, stem: str
) -> None:
    with pytest.raises(NondeterminismError):
        await replayer(changed).replay_workflow(history(stem))
