"""Runs driven by Temporal's own command line alone: no code of ours on the sender's side."""

from __future__ import annotations

import json
from typing import Any

import pytest

from failback.contracts.words import Outcome, Phase
from tests.acceptance.conftest import Stage
from tests.acceptance.scene import MIB, Scene, world
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance


def start(scene: Scene, body: str) -> None:
    """`temporal workflow start` with JSON input."""
    done = scene.stack.temporal(
        *("workflow", "start", "--type", "Failback", "--task-queue", scene.stack.queue),
        *("--workflow-id", f"failback/{scene.key}", "--input", body),
    )
    assert done.returncode == 0, done.stderr


def signal(scene: Scene, name: str, *inputs: str) -> None:
    """`temporal workflow signal`."""
    more = [part for body in inputs for part in ("--input", body)]
    done = scene.stack.temporal(
        *("workflow", "signal", "--workflow-id", f"failback/{scene.key}", "--name", name, *more)
    )
    assert done.returncode == 0, done.stderr


def query(scene: Scene) -> dict[str, Any]:
    """`temporal workflow query --type status`."""
    done = scene.stack.temporal(
        *("workflow", "query", "--workflow-id", f"failback/{scene.key}", "--type", "status"),
        *("-o", "json"),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    result = answer.get("queryResult", answer)
    status: dict[str, Any] = result[0] if isinstance(result, list) else result
    return status


@pytest.mark.parametrize("decision", ["commit", "undo"])
def test_start_query_and_a_bare_signal_drive_a_run(stage: Stage, decision: str) -> None:
    scene = stage(world(MIB, MIB))
    scene.stack.worker()
    start(scene, json.dumps({"replica": scene.key}))
    begun = scene.stack.temporal(
        *("workflow", "update", "execute", "--workflow-id", f"failback/{scene.key}"),
        *("--name", "begin"),
    )
    assert begun.returncode == 0, begun.stderr
    until("decision", lambda: query(scene)["phase"] == Phase.AWAITING_DECISION.value)

    signal(scene, decision)
    status = scene.ended()

    if decision == "commit":
        cleanup = scene.temporal.get_workflow_handle(f"failback-cleanup/{status.run_id}")
        scene.wait(cleanup.result())
        scene.committed(status)
    else:
        scene.undone(status)


def test_garbage_is_recorded_as_rejected_and_wedges_nothing(stage: Stage) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()
    start(scene, json.dumps({"replica": scene.key, "unknown": {"a": [1]}}))
    scene.until(Phase.AWAITING_DECISION)

    signal(scene, "commit", '"garbage"')
    signal(scene, "commit", '{"by": 7}', '"surplus"')
    signal(scene, "undo", '{"replica_content": "burn"}')
    signal(scene, "pause", "[]")
    signal(scene, "no-such-signal", "{}")
    until("four rejections", lambda: len(query(scene)["requests"]) == 4)

    requests = query(scene)["requests"]
    assert [request["accepted"] for request in requests] == [False] * 4
    assert all("is not understood" in request["message"] for request in requests)
    assert query(scene)["phase"] == Phase.AWAITING_DECISION.value
    signal(scene, "commit", '{"by": "ann", "reason": "checked"}')
    assert scene.ended().outcome is Outcome.COMMITTED


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
