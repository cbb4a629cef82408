"""Every recorded history replays with the code as it is now, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from starter.plugin import failback_plugin
from tests.replay.record import PATHS
from workflows.cleanup import CleanupWorkflow
from workflows.failback import FailbackWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def replayer() -> Replayer:
    """The replayer with the plugin that clients and workers share."""
    return Replayer(workflows=[FailbackWorkflow, CleanupWorkflow], plugins=[failback_plugin()])


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    history = WorkflowHistory.from_json(f"failback/{path.stem}", path.read_text())

    await replayer().replay_workflow(history)


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
