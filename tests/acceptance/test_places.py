"""Another VM takes the place of the old source VM: one that was recovered, or one that is made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.requests import Request
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Outcome, Phase, ReplicaState
from failback.errors import VmNotFound
from failback.hypervisor.ports import Site
from failback.hypervisor.vsphere.sites import VsphereSites
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage

pytestmark = pytest.mark.acceptance

RESTORED = ("production", "web01-restored")
NEW = ("production", "web01-home")
TEMPORARY = ("production", "web01-home (failback in progress)")


def with_restored() -> dict[str, Any]:
    """The old source still runs; beside it a VM restored from an older backup."""
    made = world(2 * MIB, MIB, target={"power": "on"})
    disks = [{"size_bytes": size, "seed": 40 + n} for n, size in enumerate((2 * MIB, MIB))]
    made["sites"][0]["vms"].append({"name": RESTORED[1], "power": "off", "disks": disks})
    return made


def same_content(scene: Scene, target: tuple[str, str]) -> None:
    """The target got exactly what the replica had when it went off."""
    off, on = scene.events(REPLICA, "power-off")[-1], scene.events(target, "power-on")[-1]
    assert off["seq"] < on["seq"]
    assert [disk["sha256"] for disk in on["disks"]] == [disk["sha256"] for disk in off["disks"]]


def digests(scene: Scene, place: tuple[str, str]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in scene.files(place)]


@contextmanager
def production(scene: Scene) -> Iterator[Site]:
    with closing(VsphereSites([scene.stack.lab.connection("production")])) as sites:
        yield sites.site("production")


def there(scene: Scene, place: tuple[str, str]) -> bool:
    """Whether production has a VM of this name."""
    with production(scene) as site:
        try:
            site.find(place[1])
        except VmNotFound:
            return False
    return True


def job_of(scene: Scene) -> None:
    """The old source is in a replication job."""
    with scene.catalog() as catalog:
        catalog.add_job("nightly", [catalog.get_replica(scene.key).source])


def members(scene: Scene) -> tuple[list[str], list[str]]:
    with scene.catalog() as catalog:
        job = catalog.get_job("nightly")
    return [vm.name for vm in job.includes], [vm.name for vm in job.excludes]


def source(scene: Scene) -> VmIdentity:
    return scene.detail().replica.source


def test_a_recovered_vm_takes_the_old_source_vms_place(stage: Stage) -> None:
    scene = stage(with_restored())
    scene.stack.worker()
    job_of(scene)
    answer = scene.start(destination="recovered", recovered=":".join(RESTORED))
    assert answer.accepted, answer.findings
    assert [f.code for f in answer.findings if f.code == "OLD_SOURCE_RUNS"]
    scene.until(Phase.AWAITING_DECISION)
    same_content(scene, RESTORED)
    assert scene.vm(SOURCE)["power"] == "poweredOff"
    assert source(scene).name == RESTORED[1]

    status = scene.commit()

    assert status.outcome is Outcome.COMMITTED
    assert source(scene).name == RESTORED[1]
    assert members(scene) == ([RESTORED[1]], [SOURCE[1]])
    assert scene.vm(RESTORED)["snapshots"] == []
    assert scene.detail().replica.state is ReplicaState.READY
    assert scene.claims() == ()
    # The old source was switched off and is otherwise as it was.
    assert scene.target_digests() == scene.digests


def test_undo_gives_the_recovered_vm_its_content_and_the_catalog_its_source_back(
    stage: Stage,
) -> None:
    scene = stage(with_restored())
    scene.stack.worker()
    job_of(scene)
    before = digests(scene, RESTORED)
    assert scene.start(destination="recovered", recovered=":".join(RESTORED)).accepted
    scene.until(Phase.AWAITING_DECISION)
    assert digests(scene, RESTORED) != before

    assert scene.undo().outcome is Outcome.UNDONE

    assert digests(scene, RESTORED) == before
    assert scene.vm(RESTORED)["power"] == "poweredOff"
    assert scene.vm(RESTORED)["snapshots"] == []
    assert source(scene).name == SOURCE[1]
    assert members(scene) == ([SOURCE[1]], [])
    assert scene.vm(REPLICA)["power"] == "poweredOn"
    assert scene.vm(REPLICA)["snapshots"] == []
    # As the preflight said: the old source is left off.
    assert scene.vm(SOURCE)["power"] == "poweredOff"
    assert scene.claims() == ()


def start_new(scene: Scene, **more: Any) -> None:
    answer = scene.start(destination="new", new_vm={"name": NEW[1], **more})
    assert answer.accepted, answer.findings


def test_a_new_vm_is_made_filled_named_and_becomes_the_source(stage: Stage) -> None:
    scene = stage(world(2 * MIB, MIB))
    scene.stack.worker()
    job_of(scene)
    start_new(scene)
    status = scene.until(Phase.AWAITING_DECISION)
    same_content(scene, NEW)
    assert {plan.method for plan in status.differences if plan.pass_no == 1} == {"full"}
    assert not there(scene, TEMPORARY)

    status = scene.commit()

    assert status.outcome is Outcome.COMMITTED
    made = scene.vm(NEW)
    assert made["power"] == "poweredOn" and made["snapshots"] == []
    assert source(scene).name == NEW[1]
    assert members(scene) == ([NEW[1]], [SOURCE[1]])
    assert scene.detail().replica.state is ReplicaState.READY
    assert scene.target_digests() == scene.digests


def test_undo_deletes_the_new_vm_and_nothing_else(stage: Stage) -> None:
    scene = stage(world(2 * MIB, MIB))
    scene.stack.worker()
    start_new(scene)
    scene.until(Phase.AWAITING_DECISION)
    folder = scene.files(NEW)[0].parent

    scene.undone(scene.undo())

    assert not there(scene, NEW)
    assert not there(scene, TEMPORARY)
    assert not folder.exists()


def test_a_new_vm_with_somebody_elses_snapshot_is_not_deleted_unasked(stage: Stage) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()
    start_new(scene)
    scene.until(Phase.AWAITING_DECISION)
    with production(scene) as site:
        site.create_snapshot(site.find(NEW[1]), "before the upgrade", "by hand", lambda: None)

    answer = scene.ask_undo()
    assert answer.accepted
    status = scene.until(Phase.NEEDS_OPERATOR)
    assert status.operator is not None and status.operator.code == "TargetNotOurs"
    assert scene.vm(REPLICA)["power"] == "poweredOn"  # service is back long before

    again = scene.wait(scene.client.undo(scene.key, Request(accept_target_not_restored=True)))
    assert again.accepted
    assert scene.ended().outcome is Outcome.UNDONE
    assert Path(scene.files(TEMPORARY)[0]).exists()
