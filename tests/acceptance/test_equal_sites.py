"""Two vCenters that cannot be told apart by what they say of themselves."""

from __future__ import annotations

import pytest

from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, REPLICA, SOURCE, world
from tests.acceptance.stage import Stage

pytestmark = pytest.mark.acceptance


def test_equal_instance_uuids_and_equal_morefs_do_not_confuse_a_run(stage: Stage) -> None:
    scene = stage(world(MIB, MIB), "--equal-uuids")
    sites = scene.stack.lab.manifest["sites"]
    assert sites["production"]["instance_uuid"] == sites["dr"]["instance_uuid"]
    assert scene.vm(SOURCE)["moref"] == scene.vm(REPLICA)["moref"]
    scene.stack.worker()
    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.committed(scene.commit())
