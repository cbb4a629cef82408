"""The vddk path beside the real vSphere driver: hosts and files as the practice site tells them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.places import host_of, moved_to
from failback.contracts.operations import DifferencePlan, RunRef, TargetGuard, TransportChanges
from failback.contracts.vm import Disk, DiskOpening, VmIdentity
from failback.contracts.words import Method, StepName
from failback.disks.flat import resolve_flat
from failback.disks.kinds import DatastoreAccess
from failback.errors import DiskMoved, VmChanged
from failback.hypervisor.vsphere.sites import VsphereSites
from tests.helpers.disks import MIB, eventually, no_check
from tests.helpers.lab import LabHandle, start_lab
from tests.vddk.fake import FakeHost

WORLD = {
    "sites": [
        {
            "name": "one",
            "vms": [
                {"name": name, "power": power, "disks": [{"size_bytes": MIB, "seed": seed}]}
                for seed, (name, power) in enumerate([("target", "off"), ("replica", "on")], 1)
            ],
        }
    ]
}
MOVED = DiskMoved("The disk was not found.", "")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHandle]:
    with start_lab(WORLD, tmp_path_factory.mktemp("lab")) as handle:
        yield handle


@pytest.fixture
def sites(lab: LabHandle) -> Iterator[VsphereSites]:
    with VsphereSites([lab.connection("one")]) as sites:
        yield sites


def opening(vm: VmIdentity, disk: Disk, snapshot: str | None = None) -> DiskOpening:
    """As it was planned: the disk was elsewhere then."""
    return DiskOpening(
        site=vm.site,
        vm_moref=vm.moref,
        snapshot=snapshot,
        disk_key=disk.key,
        file="[old] folder/disk.vmdk",
        capacity_bytes=disk.capacity_bytes,
    )


def call(
    source: DiskOpening, target: DiskOpening, vm: VmIdentity, disk: Disk, *files: str
) -> TransportChanges:
    return TransportChanges(
        run=RunRef(run_id="run-1", replica="replica"),
        step=StepName.TRANSPORT_CHANGES,
        plan=DifferencePlan(
            plan_id="p",
            pass_no=1,
            address=str(disk.address),
            method=Method.COMPARE,
            reason="test",
            areas_bytes=MIB,
        ),
        source=source,
        target=target,
        guard=TargetGuard(target=vm, snapshot=None, power_mark=None, files=files),
    )


def test_a_moved_disk_is_found_by_the_driver_and_opened(
    lab: LabHandle, sites: VsphereSites, host: FakeHost
) -> None:
    site = sites.site("one")
    replica, target = site.find("replica"), site.find("target")
    snapshot = site.create_snapshot(replica, "failback run-1", "mark", no_check)
    [frozen] = site.snapshot_disks(replica, snapshot)
    [leaf] = site.read([target])[0].disks
    made = call(opening(replica, frozen, snapshot), opening(target, leaf), target, leaf, leaf.file)

    assert host_of(sites, made.source)
    assert moved_to(sites, made, made.source, MOVED) == frozen.file
    assert moved_to(sites, made, made.target, MOVED) == leaf.file

    roots = {
        name: Path(place) for name, place in lab.manifest["sites"]["one"]["datastores"].items()
    }
    flat = resolve_flat(roots, frozen.file, chain_members_complete=True)
    host.serve(frozen.file, flat, snapshot=snapshot)
    access = DatastoreAccess(kind="vddk", vddk=host.site)
    with access.open(
        frozen.file,
        vm=replica.moref,
        snapshot=snapshot,
        writable=False,
        fence=None,
        check=no_check,
        name="disk",
        lease_s=30,
    ) as (disk, _):
        into = bytearray(MIB)
        disk.submit_read(1, 0, memoryview(into))
        assert [answer.errno for answer in eventually(lambda: disk.poll(1))] == [0]
    assert into == flat.read_bytes()


def test_what_is_not_the_same_disk_is_refused(sites: VsphereSites) -> None:
    site = sites.site("one")
    target = site.find("target")
    [leaf] = site.read([target])[0].disks
    here = opening(target, leaf)
    made = call(here, here, target, leaf, leaf.file)

    for other in (
        {"disk_key": leaf.key + 1},
        {"capacity_bytes": leaf.capacity_bytes + 512},
    ):
        changed = here.model_copy(update=other)
        with pytest.raises(VmChanged, match="no longer there"):
            moved_to(sites, made.model_copy(update={"target": changed}), changed, MOVED)
    elsewhere = made.plan.model_copy(update={"address": "scsi1:0"})
    with pytest.raises(VmChanged, match="no longer there"):
        moved_to(sites, made.model_copy(update={"plan": elsewhere}), here, MOVED)
    same = here.model_copy(update={"file": leaf.file})
    with pytest.raises(DiskMoved):
        moved_to(sites, made.model_copy(update={"target": same}), same, MOVED)
    with pytest.raises(VmChanged, match="TARGET_DRIFTED"):
        moved_to(sites, call(here, here, target, leaf), here, MOVED)
