"""A workflow that was terminated: what is left is said exactly, and the run is finished."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from failback.contracts.words import Outcome, Phase, ReplicaState
from starter import cli
from starter.shell import Shell
from tests.acceptance.scene import MIB, SOURCE, Scene, world
from tests.acceptance.stage import Stage
from tests.acceptance.test_places import NEW
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance


def reconcile(scene: Scene, *options: str) -> tuple[int, dict[str, Any], str]:
    """`failback reconcile KEY --json`: exit status, answer, and what is said to people."""
    out, said = io.StringIO(), io.StringIO()
    shell = Shell(io.StringIO(), out, said, scene.stack.env(), "ann")
    settings = ("--settings", str(scene.stack.settings))
    status = cli.run(["reconcile", scene.key, "--json", *settings, *options], shell)
    return status, json.loads(out.getvalue() or "{}"), said.getvalue()


def terminate(scene: Scene) -> None:
    scene.wait(scene.handle.terminate("somebody pressed the wrong button"))


def left(answer: dict[str, Any]) -> str:
    return "\n".join(f"{one['object']}: {one['what']}" for one in answer["left"])


def test_a_run_that_was_terminated_while_it_copied_is_undone(stage: Stage) -> None:
    scene = stage(world(3 * MIB, MIB), transfer={"bandwidth_bytes_per_s": 2 * MIB})
    scene.stack.worker()
    assert scene.start().accepted
    scene.written_segments(3)
    refused, _, sentence = reconcile(scene)
    assert refused == 2 and "is open" in sentence
    terminate(scene)

    status, answer, _ = reconcile(scene)

    assert status == 0 and answer["may"] == ["undo"]
    told = left(answer)
    assert f"failback/{answer['run_id']}/target" in told
    assert f"failback/{answer['run_id']}/read-1" in told
    assert "it is claimed" in told and "failback.state" in told
    assert scene.claims() != ()

    finish = ("--finish", "undo", "--attest-off")
    unsigned = reconcile(scene, *finish, "web01")
    unknown = reconcile(scene, *finish, "web02", "--reason", "It burnt.")
    assert unsigned[0] == 2 and "attest_off needs `by` and `reason`" in unsigned[2]
    assert unknown[0] == 2 and "'web02' is no VM of this run; name one of: dr:vm-" in unknown[2]

    status, answer, _ = reconcile(scene, "--finish", "undo")
    assert status == 0 and answer["finishing"] == "undo"
    scene.undone(scene.ended())

    status, answer, _ = reconcile(scene)
    assert (status, answer["left"], answer["may"]) == (0, [], [])


@pytest.mark.parametrize("finish", ["commit", "undo"])
def test_a_run_that_was_terminated_before_the_decision_is_finished(
    stage: Stage, finish: str
) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()
    assert scene.start().accepted
    before = scene.until(Phase.AWAITING_DECISION)
    terminate(scene)

    status, answer, _ = reconcile(scene)
    assert status == 0 and answer["may"] == ["undo", "commit"]

    status, answer, _ = reconcile(scene, "--finish", finish)
    assert status == 0
    ended = scene.ended()
    assert ended.run_id == before.run_id
    if finish == "undo":
        scene.undone(ended)
    else:
        cleanup = scene.temporal.get_workflow_handle(f"failback-cleanup/{ended.run_id}")
        scene.wait(cleanup.result())
        scene.committed(ended)
    status, answer, _ = reconcile(scene)
    assert (status, answer["left"], answer["may"]) == (0, [], [])


@pytest.mark.parametrize("place", ["original", "new"])
def test_a_commit_of_a_run_that_was_terminated_in_its_switch_ends_the_switch_first(
    stage: Stage, place: str
) -> None:
    """Before the power-on, or before the new VM has its name and its network."""
    scene = stage(world(MIB))
    method = "PowerOnVM_Task" if place == "original" else "Rename_Task"
    rule = scene.lab.fault("hold-before", method=method, site="production")
    scene.stack.worker()
    more = {} if place == "original" else {"new_vm": {"name": NEW[1]}}
    assert scene.start(destination=place, **more).accepted
    held(scene, rule)
    terminate(scene)
    _, answer, _ = reconcile(scene)
    assert answer["may"] == ["undo", "commit"]
    assert answer["first"][-1].startswith("Power on the target VM")

    scene.lab.delete(f"/faults/{rule}")
    assert reconcile(scene, "--finish", "commit")[0] == 0
    ended = scene.ended()

    cleanup = scene.temporal.get_workflow_handle(f"failback-cleanup/{ended.run_id}")
    scene.wait(cleanup.result())
    if place == "original":
        scene.committed(ended)
        return
    assert ended.outcome is Outcome.COMMITTED
    assert scene.vm(NEW)["power"] == "poweredOn"
    replica = scene.detail().replica
    assert (replica.state, replica.source.name) == (ReplicaState.READY, NEW[1])


def test_an_undo_that_was_terminated_cannot_become_a_commit(stage: Stage) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()
    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    rule = scene.lab.fault("hold-after", method="PowerOffVM_Task", site="production")
    assert scene.ask_undo().accepted
    held(scene, rule)
    terminate(scene)
    scene.lab.delete(f"/faults/{rule}")

    status, answer, _ = reconcile(scene)
    assert (status, answer["may"], answer["replica_state"]) == (0, ["undo"], "FAILBACK")
    refused, _, sentence = reconcile(scene, "--finish", "commit")
    assert refused == 2 and "An undo of the run has begun" in sentence
    assert scene.vm(SOURCE)["power"] == "poweredOff"

    assert reconcile(scene, "--finish", "undo")[0] == 0
    scene.undone(scene.ended())


def held(scene: Scene, rule: int) -> None:
    until("the call is held", lambda: scene.lab.get(f"/faults/{rule}")["holding"] > 0)


def test_a_new_vm_that_was_left_behind_is_deleted(stage: Stage) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()
    assert scene.start(destination="new", new_vm={"name": "web01-home"}).accepted
    scene.until(Phase.AWAITING_DECISION)
    terminate(scene)

    assert reconcile(scene, "--finish", "cleanup")[0] == 2
    assert reconcile(scene, "--finish", "undo")[0] == 0
    ended = scene.ended()

    assert ended.outcome is Outcome.UNDONE
    scene.undone(ended)


def test_a_replica_without_a_run_has_nothing_left(stage: Stage) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()

    status, answer, _ = reconcile(scene)

    assert (status, answer["run_id"], answer["left"]) == (0, "", [])
