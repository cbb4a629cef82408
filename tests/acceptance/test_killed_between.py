"""A worker dies between "operation issued" and "result recorded": nothing is done twice or never.

The lab carries the operation out and keeps the answer back; then the worker is killed.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance

QUICK = {"heartbeat_timeout_s": 2.0}
"""These tests mostly wait until the server gives the killed worker up."""


@dataclass(frozen=True)
class Moment:
    """An operation whose answer is kept back: the next of its kind on a VM that no earlier moment
    of the list takes."""

    name: str
    method: str
    place: tuple[str, str]

    def hold(self, scene: Scene) -> int:
        """Add the fault; returns its id."""
        tasks = {"wait_task": True} if self.method.endswith("_Task") else {}
        rule = {"method": self.method, "site": self.place[0], "object": self.place[1]}
        return scene.lab.fault("hold-after", **rule, **tasks)


SNAPSHOT, REVERT, REMOVE = "CreateSnapshot_Task", "RevertToSnapshot_Task", "RemoveSnapshot_Task"

FORWARD = {
    "with-tools": (
        Moment("target snapshot", SNAPSHOT, SOURCE),
        Moment("guest shutdown", "ShutdownGuest", REPLICA),
        Moment("target power-on", "PowerOnVM_Task", SOURCE),
    ),
    "without-tools": (
        Moment("read snapshot", SNAPSHOT, REPLICA),
        Moment("hard power-off", "PowerOffVM_Task", REPLICA),
        Moment("protective snapshot", SNAPSHOT, REPLICA),
    ),
}
UNDO = {
    "reverts": (
        Moment("revert of the replica", REVERT, REPLICA),
        Moment("revert of the target", REVERT, SOURCE),
    ),
    "removals": (
        Moment("removal at the replica", REMOVE, REPLICA),
        Moment("removal at the target", REMOVE, SOURCE),
    ),
}


def kill_when_held(scene: Scene, moment: Moment, fault: int) -> None:
    """Kill the worker when the operation is done and nobody has heard of it; start another."""

    def held() -> bool:
        return bool(scene.lab.get(f"/faults/{fault}")["holding"])

    until(f"the answer of {moment.name} is held back", held)
    scene.stack.workers[-1].kill()
    scene.lab.post(f"/faults/{fault}/release")
    scene.stack.worker(ready=False)


def snapshots_made(scene: Scene) -> tuple[int, int]:
    """How many snapshots were asked for at production and at DR."""
    return scene.calls(SOURCE, SNAPSHOT), scene.calls(REPLICA, SNAPSHOT)


@pytest.mark.parametrize("moments", FORWARD.values(), ids=FORWARD)
def test_workers_killed_before_they_recorded_a_result_leave_no_trace_in_a_commit(
    stage: Stage, moments: tuple[Moment, ...]
) -> None:
    tools = moments is FORWARD["with-tools"]
    scene = stage(world(MIB, replica={"tools": tools}), worker=QUICK)
    faults = [moment.hold(scene) for moment in moments]
    scene.stack.worker()
    assert scene.start().accepted

    for moment, fault in zip(moments, faults, strict=True):
        kill_when_held(scene, moment, fault)

    status = scene.until(Phase.AWAITING_DECISION)
    assert snapshots_made(scene) == (1, 2)
    off = scene.events(REPLICA, "power-off")
    assert [one["detail"] for one in off] == ["guest" if tools else "hard"]
    assert len(scene.events(SOURCE, "power-on")) == 1
    assert status.operator is None and status.requests == ()
    scene.committed(scene.commit())


@pytest.mark.parametrize("moments", UNDO.values(), ids=UNDO)
def test_workers_killed_before_they_recorded_a_result_leave_no_trace_in_an_undo(
    stage: Stage, moments: tuple[Moment, ...]
) -> None:
    scene = stage(world(MIB), worker=QUICK)
    scene.stack.worker()
    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    faults = [moment.hold(scene) for moment in moments]
    assert scene.ask_undo().accepted

    for moment, fault in zip(moments, faults, strict=True):
        kill_when_held(scene, moment, fault)

    scene.undone(scene.ended())
    assert snapshots_made(scene) == (1, 2)
    # Forward the read snapshot, back the protective one; a removal is never sent twice.
    assert (scene.calls(SOURCE, REMOVE), scene.calls(REPLICA, REMOVE)) == (1, 2)
    assert len(scene.events(REPLICA, "power-on")) == 2
