"""The target follows a replica that has grown: reverted, grown and protected anew, once."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import ProtectTargetResult, RebaseTarget
from failback.contracts.plan import RunPlan
from failback.contracts.vm import DiskPair
from failback.contracts.words import PowerState, StepName
from failback.errors import SiteUnreachable
from tests.activity.test_snapshots import NAME, names, protect, ran
from tests.activity.world import MIB, World

OLD, OURS = b"old!", b"ours"


def written(world: World, target_bytes: int = MIB) -> ProtectTargetResult:
    """The target is protected and has been written to, and the replica's disk has grown."""
    vm = world.production.vm(world.target)
    vm.disks[0].data[:4] = OLD
    vm.disks[0].data.extend(bytes(target_bytes - MIB))
    protected: ProtectTargetResult = world.run("protect_target", protect(world))
    vm.disks[0].data[:4] = OURS
    world.dr.vm(world.replica).disks[0].data.extend(bytes(MIB))
    return protected


def rebase(world: World, protected: ProtectTargetResult) -> RebaseTarget:
    disk = protected.disks[0]
    pair = DiskPair(
        address=disk.address,
        replica_key=disk.key,
        target_key=disk.key,
        capacity_bytes=MIB,
        target_capacity_bytes=disk.capacity_bytes,
    )
    plan = RunPlan(
        replica=world.replica,
        target=world.target,
        pairs=(pair,),
        replica_power=PowerState.ON,
        target_power=PowerState.OFF,
        replica_tracking=False,
        target_tracking=False,
    )
    return RebaseTarget(
        **world.head(StepName.REBASE_TARGET),
        plan=plan,
        was=protected.snapshot,
        power_mark=protected.power_mark,
    )


def frozen(world: World) -> bytes:
    """What the target protective snapshot would give back."""
    (snapshot,) = world.production.vm(world.target).snapshots
    return snapshot.contents[2000][:4]


def test_the_target_grows_under_a_snapshot_of_its_old_content_once(world: World) -> None:
    argument = rebase(world, written(world))

    first = world.run("rebase_target", argument)
    second = world.run("rebase_target", argument)

    assert first.protected == second.protected
    assert first.protected.disks[0].capacity_bytes == 2 * MIB
    assert (names(world), frozen(world)) == ([NAME], OLD)


def test_the_old_snapshot_stays_where_nothing_had_to_grow_whatever_happened(world: World) -> None:
    """What we wrote is on top of it: without it the old content would be gone."""
    protected = written(world, 2 * MIB)
    ran(world, b"mine", "target")

    result = world.run("rebase_target", rebase(world, protected))

    assert result.protected.snapshot == protected.snapshot
    assert frozen(world) == OLD


def test_a_target_that_ran_before_anybody_heard_of_its_growth_is_protected_anew(
    world: World,
) -> None:
    argument = rebase(world, written(world))
    world.production.fail("create_snapshot", SiteUnreachable("Cut."), applied=True)
    with pytest.raises(ApplicationError):
        world.run("rebase_target", argument, activity_id="1000040")
    ran(world, b"mine", "target")

    world.run("rebase_target", argument, activity_id="1000040", attempt=2)

    assert (names(world), frozen(world)) == ([NAME], b"mine")


def test_a_target_that_is_powered_on_while_it_grows_is_noticed(world: World) -> None:
    argument = rebase(world, written(world))
    world.production.meanwhile("create_snapshot", lambda: ran(world, b"mine", "target"))

    result = world.run("rebase_target", argument)

    assert result.protected.power_mark != world.production.power_mark(world.target)
