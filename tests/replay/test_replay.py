"""Every recorded history replays with the code as it is now, without a server."""

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
from tests.replay.record import PATHS
from workflows.cleanup import CleanupWorkflow
from workflows.failback import FailbackWorkflow
from workflows.inputs import LARGEST

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def replayer() -> Replayer:
    """The replayer with the plugin that clients and workers share."""
    return Replayer(workflows=[FailbackWorkflow, CleanupWorkflow], plugins=[failback_plugin()])


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    history = WorkflowHistory.from_json(f"failback/{path.stem}", path.read_text())

    await replayer().replay_workflow(history)


def begun_with(change: Callable[[bytes], bytes]) -> WorkflowHistory:
    """The history of a commit, had it begun with another input."""
    recorded = json.loads(next(path for path in HISTORIES if path.stem == "commit").read_text())
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
    assert {path.stem.partition(".")[0] for path in HISTORIES} == set(PATHS)


def test_a_run_that_was_continued_has_several_histories() -> None:
    found = [path for path in HISTORIES if path.stem.startswith("continued-as-new")]
    assert len(found) > 1
    first = next(path for path in found if path.stem == "continued-as-new")
    assert "WORKFLOW_EXECUTION_CONTINUED_AS_NEW" in first.read_text()


async def test_a_changed_history_is_noticed() -> None:
    """The check bites: another activity in the place of a recorded one does not replay."""
    commit = next(path for path in HISTORIES if path.stem == "commit")
    text = commit.read_text().replace('"protect_target"', '"power_off"', 1)
    assert text != commit.read_text()

    with pytest.raises(NondeterminismError):
        await replayer().replay_workflow(WorkflowHistory.from_json("failback/commit", text))
