"""Undo gives both sides back, whenever it is asked for."""

from __future__ import annotations

import pytest

from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, SOURCE, world
from tests.acceptance.stage import Stage

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
