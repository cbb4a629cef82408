"""Temporal's own command drives a run: no code of ours at the sender."""

from __future__ import annotations

import json
from typing import Any

import pytest

from failback.contracts.words import Outcome, Phase
from tests.acceptance.scene import MIB, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance


def temporal(scene: Scene, *arguments: str) -> Any:
    """Run `temporal workflow ...` at the scene's run and return what it printed as JSON."""
    kind, *rest = arguments
    done = scene.stack.temporal(
        *("workflow", *kind.split(), "--workflow-id", f"failback/{scene.key}", *rest),
        *("--output", "json"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def queried(scene: Scene) -> dict[str, Any]:
    """Answer of query `status`."""
    answer = temporal(scene, "query", "--type", "status")
    status: dict[str, Any] = answer["queryResult"][0]
    return status


def start(scene: Scene, body: str | None = None) -> None:
    temporal(
        scene,
        *("start", "--type", "Failback", "--task-queue", scene.stack.queue),
        *("--input", json.dumps({"replica": scene.key}) if body is None else body),
    )


def test_temporals_own_command_starts_looks_and_commits_and_garbage_is_rejected(
    stage: Stage,
) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()
    start(scene)
    begun = temporal(scene, "update execute", "--name", "begin")
    assert begun["result"]["accepted"] is True, begun
    assert begun["result"]["replica"] == scene.key
    scene.until(Phase.AWAITING_DECISION)
    before = scene.vms()

    temporal(scene, "signal", "--name", "commit", "--input", '"garbage"')
    temporal(scene, "signal", "--name", "commit", "--input", '{"by": 7}', "--input", "2")
    temporal(scene, "signal", "--name", "undo", "--input", '{"replica_content": "burn"}')
    temporal(scene, "signal", "--name", "retry")
    until("four answers", lambda: len(queried(scene)["requests"]) == 4)

    status = queried(scene)
    assert status["phase"] == "AWAITING_DECISION"
    assert [one["accepted"] for one in status["requests"]] == [False] * 4
    for answer in status["requests"][:3]:
        assert "is not understood" in answer["message"], answer
    assert scene.vms() == before

    temporal(scene, "signal", "--name", "commit")
    ended = scene.ended()
    cleanup = scene.temporal.get_workflow_handle(f"failback-cleanup/{ended.run_id}")
    scene.wait(cleanup.result())
    scene.committed(ended)
    assert [one.accepted for one in ended.requests] == [False] * 4 + [True]


def test_temporals_own_command_undoes_with_a_signal_without_input(stage: Stage) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()
    start(scene)
    scene.until(Phase.AWAITING_DECISION)

    temporal(scene, "signal", "--name", "undo")

    ended = scene.ended()
    scene.undone(ended)
    assert queried(scene)["outcome"] == Outcome.UNDONE


@pytest.mark.parametrize("body", ['"garbage"', "{}", '{"replica": "Not A Key"}', "null"])
def test_a_start_that_is_not_understood_ends_refused(stage: Stage, body: str) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()

    start(scene, body)
    status = scene.ended()

    assert status.outcome is Outcome.REFUSED
    assert status.findings[0].code == "INPUT_INVALID"
    assert scene.vms() == scene.before
    assert scene.claims() == ()
