"""A worker dies between "operation issued" and "result recorded": nothing is done twice or never.

The lab carries the operation out and keeps the answer back; then the worker is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from failback.contracts.words import Phase
from tests.acceptance.conftest import Stage
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance

QUICK = {"heartbeat_timeout_s": 2.0}
"""These tests mostly wait until the server gives the killed worker up."""


@dataclass(frozen=True)
class Moment:
    """An operation whose answer is kept back: on which VM, and the how many-th of its kind."""

    name: str
    method: str
    place: tuple[str, str]
    skip: int = 0
    tools: bool = True

    def hold(self, scene: Scene) -> int:
        """Add the fault; returns its id."""
        rule: dict[str, Any] = {"method": self.method, "site": self.place[0], "skip": self.skip}
        tasks = {"wait_task": True} if self.method.endswith("_Task") else {}
        return scene.lab.fault("hold-after", object=self.place[1], **rule, **tasks)


FORWARD = (
    Moment("target-snapshot", "CreateSnapshot_Task", SOURCE),
    Moment("read-snapshot", "CreateSnapshot_Task", REPLICA),
    Moment("guest-shutdown", "ShutdownGuest", REPLICA),
    Moment("hard-power-off", "PowerOffVM_Task", REPLICA, tools=False),
    Moment("protective-snapshot", "CreateSnapshot_Task", REPLICA, skip=1),
    Moment("target-power-on", "PowerOnVM_Task", SOURCE),
)
UNDO = (
    Moment("replica-revert", "RevertToSnapshot_Task", REPLICA),
    Moment("replica-remove", "RemoveSnapshot_Task", REPLICA),
    Moment("target-revert", "RevertToSnapshot_Task", SOURCE),
    Moment("target-remove", "RemoveSnapshot_Task", SOURCE),
)


def kill_when_held(scene: Scene, fault: int) -> None:
    """Kill the worker when the operation is done and nobody has heard of it; start another."""
    held = lambda: scene.lab.get(f"/faults/{fault}")["holding"] > 0  # noqa: E731
    until("the answer is held back", held)
    scene.stack.workers[-1].kill()
    scene.lab.post(f"/faults/{fault}/release")
    scene.stack.worker(ready=False)


def snapshots_made(scene: Scene) -> tuple[int, int]:
    """How many snapshots were asked for at production and at DR."""
    method = "CreateSnapshot_Task"
    return scene.calls(SOURCE, method), scene.calls(REPLICA, method)


@pytest.mark.parametrize("moment", FORWARD, ids=lambda moment: moment.name)
def test_a_worker_killed_before_it_recorded_the_result_leaves_no_trace_in_a_commit(
    stage: Stage, moment: Moment
) -> None:
    scene = stage(world(MIB, replica={"tools": moment.tools}), worker=QUICK)
    fault = moment.hold(scene)
    scene.stack.worker()
    assert scene.start().accepted

    kill_when_held(scene, fault)

    status = scene.until(Phase.AWAITING_DECISION)
    assert snapshots_made(scene) == (1, 2)
    assert len(scene.events(REPLICA, "power-off")) == 1
    assert len(scene.events(SOURCE, "power-on")) == 1
    way = scene.events(REPLICA, "power-off")[0]["detail"]
    assert way == ("guest" if moment.tools else "hard")
    assert status.operator is None
    scene.committed(scene.commit())


@pytest.mark.parametrize("moment", UNDO, ids=lambda moment: moment.name)
def test_a_worker_killed_before_it_recorded_the_result_leaves_no_trace_in_an_undo(
    stage: Stage, moment: Moment
) -> None:
    scene = stage(world(MIB), worker=QUICK)
    scene.stack.worker()
    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    fault = moment.hold(scene)
    assert scene.ask_undo().accepted

    kill_when_held(scene, fault)

    scene.undone(scene.ended())
    assert snapshots_made(scene) == (1, 2)
    assert scene.calls(SOURCE, "RemoveSnapshot_Task") == 1
