"""Steps of a run over the vddk path: disks that moved after the plan, and hosts that are shared."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.places import meanwhile
from activities.registry import mover
from failback.contracts.operations import TransportChanges, TransportResult, VerifyResult
from failback.disks.hosts import HostBudgets
from failback.disks.kinds import DatastoreAccess
from failback.errors import SiteUnreachable, Stopped
from tests.activity.test_transfer import SIZE, files, guard_of, plan, verification
from tests.activity.world import World, make
from tests.vddk.conftest import MakeHost
from tests.vddk.fake import FakeHost

MOVED = "[ds-other] vm_1/vm.vmdk"


@dataclass
class Vddk:
    """A world whose disks are reached through the library."""

    world: World
    production: FakeHost
    dr: FakeHost
    argument: TransportChanges
    hosts: HostBudgets

    def run(self, name: str = "transport_changes") -> TransportResult | VerifyResult:
        access = {
            "production": DatastoreAccess(kind="vddk", vddk=self.production.site),
            "dr": DatastoreAccess(kind="vddk", vddk=self.dr.site),
        }
        disks = replace(
            self.world.rooms.disks, access=access, sites=self.world.sites, hosts=self.hosts
        )
        bound = {one.__name__: one for one in mover(replace(self.world.rooms, disks=disks))}
        argument: Any = self.argument
        if name == "verify":
            argument = verification(self.argument)
        result: TransportResult | VerifyResult = self.world.environment().run(bound[name], argument)
        return result

    @property
    def snapshot(self) -> str:
        assert self.argument.source.snapshot is not None
        return self.argument.source.snapshot

    def move_source(self, **changes: object) -> None:
        """The frozen disk is elsewhere from now on, as the double and the library see it."""
        [frozen] = self.world.dr.vm(self.world.replica).snapshots
        frozen.disks = tuple(
            disk.model_copy(update={"file": MOVED, **changes}) for disk in frozen.disks
        )
        self.dr.forget_disks()
        self.dr.serve(MOVED, files(self.world)[0], snapshot=self.snapshot)

    def equal(self) -> bool:
        source, target = files(self.world)
        return source.read_bytes() == target.read_bytes()


@pytest.fixture
def vddk(tmp_path: Path, make_host: MakeHost) -> Iterator[Vddk]:
    world = make(tmp_path)
    production, dr = make_host("production-host"), make_host("dr-host")
    for site, vm in ((world.production, world.target), (world.dr, world.replica)):
        site.vm(vm).disks[0].data = bytearray(SIZE)
    made = plan(world)
    source, target = files(world)
    snapshot = world.dr.create_snapshot(world.replica, "failback run-1", "mark", lambda: None)
    [disk] = world.dr.snapshot_disks(world.replica, snapshot)
    leaf = world.production.vm(world.target).disks[0].file
    dr.serve(disk.file, source, snapshot=snapshot)
    production.serve(leaf, target)
    argument = made.model_copy(
        update={
            "source": made.source.model_copy(update={"file": disk.file, "snapshot": snapshot}),
            "target": made.target.model_copy(update={"file": leaf}),
            "guard": guard_of(world),
        }
    )
    yield Vddk(world, production, dr, argument, HostBudgets())
    world.catalog.close()


def test_a_pass_and_its_verification(vddk: Vddk) -> None:
    moved = vddk.run()
    verified = vddk.run("verify")

    assert isinstance(moved, TransportResult)
    assert isinstance(verified, VerifyResult)
    assert vddk.equal()
    assert moved.written_bytes == 65536
    assert not verified.repaired
    for host in (vddk.production, vddk.dr):
        assert host.count("violation|unexpected") == 0
    assert vddk.dr.count(f"connect .*snapshot={vddk.snapshot} .*read-only=1") == 2
    budget = vddk.hosts.of(vddk.dr.site.server, "dr-host", vddk.dr.site.limits)
    assert budget.disks == budget.used_bytes == 0
    assert "production-host" in {host for _, host in vddk.hosts._budgets}


def test_a_disk_that_moved_after_the_plan_is_opened_where_it_is(vddk: Vddk) -> None:
    vddk.move_source()

    vddk.run()

    assert vddk.equal()
    assert vddk.dr.count("open ") == 2, "the planned name, then the new one"
    vddk.run("verify")


@pytest.mark.parametrize(
    "changes", [{"capacity_bytes": SIZE + 512}, {"key": 2001}], ids=["size", "key"]
)
def test_another_disk_under_the_name_is_refused(vddk: Vddk, changes: dict[str, object]) -> None:
    vddk.move_source(**changes)

    with pytest.raises(ApplicationError) as caught:
        vddk.run()

    assert caught.value.type == "VmChanged"
    assert "no longer there" in str(caught.value)
    assert vddk.dr.count("opened") == 0


def test_a_disk_that_the_site_says_is_there_and_is_not(vddk: Vddk) -> None:
    vddk.dr.forget_disks()

    with pytest.raises(ApplicationError) as caught:
        vddk.run()

    assert caught.value.type == "DiskMoved"
    assert not caught.value.non_retryable
    assert vddk.dr.count("open ") == 1, "once for each attempt"


def test_a_target_that_moved_is_not_written(vddk: Vddk) -> None:
    target = files(vddk.world)[1]
    before = target.read_bytes()
    disk = vddk.world.production.vm(vddk.world.target).disks[0]
    seen: list[str] = []

    # The guard looked before the disk moved: the library is the first to know.
    vddk.production.forget_disks()
    vddk.production.serve(MOVED, target)
    read = vddk.world.production.read

    def reading(vms: Any) -> Any:
        views = read(vms)
        seen.append("read")
        disk.file = MOVED
        return views

    vddk.world.production.read = reading  # type: ignore[method-assign]
    with pytest.raises(ApplicationError) as caught:
        vddk.run()

    assert caught.value.type == "VmChanged"
    assert "TARGET_DRIFTED" in str(caught.value)
    assert target.read_bytes() == before
    assert vddk.production.count("opened") == 0


def test_a_site_that_does_not_tell_the_host_stops_nothing(vddk: Vddk) -> None:
    vddk.world.dr.fail("read", SiteUnreachable("The wire was cut.", "Wait."), times=9)

    vddk.run()

    assert vddk.equal()
    assert (vddk.dr.site.server, "") in vddk.hosts._budgets


def test_what_waits_for_a_site_keeps_the_other_disk_open() -> None:
    asked: list[int] = []
    never = threading.Event()

    def slow() -> str:
        while len(asked) < 3:
            never.wait(0.01)
        return "done"

    assert meanwhile(slow, lambda: asked.append(1)) == "done"
    assert len(asked) == 3

    def late() -> None:
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        meanwhile(late, lambda: None)

    def stop() -> None:
        raise Stopped("asked to", "")

    gate = threading.Event()
    with pytest.raises(Stopped):
        meanwhile(gate.wait, stop)
    gate.set()
