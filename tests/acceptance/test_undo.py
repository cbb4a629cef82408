"""Undo gives both sides back, whenever it is asked for."""

from __future__ import annotations

import pytest

from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, REPLICA, SOURCE, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance


def test_undo_from_the_decision_gives_both_sides_back_and_a_second_run_commits(
    stage: Stage,
) -> None:
    scene = stage(world(2 * MIB, MIB))
    scene.stack.worker()
    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.same_content()
    # What production writes now is what undo is known to lose.
    scene.lab.post("/sites/production/vms/web01/guest/write", disk=0, offset=4096, text="late")

    scene.undone(scene.undo())

    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.committed(scene.commit())


def test_undo_in_the_middle_of_pass_1_gives_the_target_its_bytes_back_and_a_second_run_commits(
    stage: Stage,
) -> None:
    scene = stage(world(3 * MIB, MIB), transfer={"bandwidth_bytes_per_s": 2 * MIB})
    scene.stack.worker()
    assert scene.start().accepted
    scene.written_segments(3)
    assert scene.target_digests() != scene.digests

    scene.undone(scene.undo())
    assert scene.events(SOURCE, "power-on") == []

    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.committed(scene.commit())


def test_undo_waits_for_the_guest_that_is_shutting_down_and_powers_it_on_again(
    stage: Stage,
) -> None:
    """It would go down after the undo has ended, and nobody would serve."""
    scene = stage(world(MIB))
    scene.stack.worker()
    scene.lab.post("/sites/dr/vms/web01-replica/guest/config", shutdown_delay_ms=4000)
    assert scene.start().accepted
    until("the guest is asked", lambda: scene.calls(REPLICA, "ShutdownGuest") > 0)

    scene.undone(scene.undo())

    assert scene.calls(REPLICA, "PowerOnVM_Task") == 1
