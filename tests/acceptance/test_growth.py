"""The replica's disk grows while the run waits; the target follows when a person says so."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from failback.contracts.words import Destination, Phase, StepName
from failback.hypervisor.vsphere.sites import VsphereSites
from failback.settings import load_settings
from tests.acceptance.killing import Killer, Moment, noted
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance

MANUAL = {"mode": "manual", "resync_interval": "PT1H"}
GROWN = 2 * MIB + 131072


def grow(scene: Scene) -> None:
    """Grow the replica's first disk, and write where it was not before."""
    settings = load_settings(scene.stack.settings, {})
    connections = [site.connection(name) for name, site in settings.sites.items()]
    with closing(VsphereSites(connections)) as sites:
        site = sites.site(REPLICA[0])
        vm = site.find(REPLICA[1])
        key = site.read([vm])[0].disks[0].key
        site.grow_disk(vm, key, GROWN, lambda: None)
    with scene.files(REPLICA)[0].open("r+b") as disk:
        disk.seek(2 * MIB + 4096)
        disk.write(b"new" * 1000)


def grown(stage: Stage) -> tuple[Scene, bytes]:
    """A run that stands in NEEDS_OPERATOR because its replica has grown, and the bytes that the
    target's first disk had before."""
    scene = stage(world(2 * MIB, MIB), worker={"heartbeat_timeout_s": 2.0})
    old = scene.files(SOURCE)[0].read_bytes()
    scene.stack.worker()
    assert scene.start(switch=MANUAL).accepted
    scene.until(Phase.READY_TO_SWITCH)
    until("the read snapshot is gone", lambda: not scene.vm(REPLICA)["snapshots"])
    grow(scene)
    assert ask(scene, "switch-over")["accepted"]
    status = scene.until(Phase.NEEDS_OPERATOR)
    assert status.operator is not None and status.operator.code == "ReplicaGrown"
    assert f"had {2 * MIB} bytes when the run began and has {GROWN} now" in status.operator.message
    # Nothing of the service has changed: the replica runs.
    assert scene.vm(REPLICA)["power"] == "poweredOn"
    return scene, old


def ask(scene: Scene, *words: str) -> dict[str, Any]:
    done = scene.stack.cli(words[0], scene.key, *words[1:], "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def expect_growth(scene: Scene) -> None:
    """From here on the target's first disk is larger, also after an undo."""
    (key, file, _), *rest = scene.before[SOURCE[1]]["disks"]
    scene.before[SOURCE[1]]["disks"] = [(key, file, GROWN), *rest]
    (key, file, _), *rest = scene.before[REPLICA[1]]["disks"]
    scene.before[REPLICA[1]]["disks"] = [(key, file, GROWN), *rest]


def larger(scene: Scene, old: bytes) -> None:
    """The target's first disk has its old content, and nothing behind it."""
    expect_growth(scene)
    content = scene.files(SOURCE)[0].read_bytes()
    assert content[: len(old)] == old
    assert len(content) == GROWN and not any(content[len(old) :])
    scene.digests = scene.target_digests()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(moment, marks=[] if moment is Moment.APPLIED else pytest.mark.soak)
        for moment in Moment
    ],
    ids=lambda moment: moment.name.lower(),
)
def test_the_target_follows_a_replica_that_has_grown(
    stage: Stage, moment: Moment, request: pytest.FixtureRequest
) -> None:
    scene, _ = grown(stage)

    killer = Killer(scene, Destination.ORIGINAL, [StepName.REBASE_TARGET], noted(request))
    killer.expect(StepName.REBASE_TARGET)
    assert ask(scene, "retry", "--rebase-target")["accepted"]
    killer.kill_at([StepName.REBASE_TARGET], moment)
    scene.until(Phase.AWAITING_DECISION, timeout_s=60)

    expect_growth(scene)
    scene.committed(scene.commit())
    # One that died before it could record its revert does it again: the content is the same.
    assert scene.calls(SOURCE, "RevertToSnapshot_Task") in (1, 2)


def test_an_undo_afterwards_gives_the_old_content_back_in_a_larger_disk(stage: Stage) -> None:
    scene, old = grown(stage)
    assert ask(scene, "retry", "--rebase-target")["accepted"]
    scene.until(Phase.AWAITING_DECISION, timeout_s=60)

    status = scene.undo()

    larger(scene, old)
    scene.undone(status)


def test_an_undo_in_the_middle_of_it_still_restores_the_target(stage: Stage) -> None:
    scene, _ = grown(stage)
    # Our old snapshot is gone when the growth of the disk fails.
    rule = scene.lab.fault("fault", method="ReconfigVM_Task", fault="NoDiskSpace", count=0)
    assert ask(scene, "retry", "--rebase-target")["accepted"]
    status = scene.until(Phase.NEEDS_OPERATOR)
    assert status.operator is not None and status.operator.step is StepName.REBASE_TARGET
    assert scene.vm(SOURCE)["snapshots"] == []
    scene.lab.delete(f"/faults/{rule}")

    status = scene.undo()

    # It had not grown.
    (key, file, _), *rest = scene.before[REPLICA[1]]["disks"]
    scene.before[REPLICA[1]]["disks"] = [(key, file, GROWN), *rest]
    scene.undone(status)
