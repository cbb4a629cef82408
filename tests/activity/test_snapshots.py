"""Snapshots: protected once, restored exactly, never taken from somebody else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import (
    ProtectTarget,
    RemoveSnapshot,
    RestoreReplica,
    RestoreTarget,
    SnapshotReplica,
)
from failback.contracts.vm import DiskPair
from failback.contracts.words import PowerState, StepName
from failback.errors import SiteUnreachable
from tests.activity.world import MIB, World

NAME = "failback/run-1/target"


def protect(world: World, **more: Any) -> ProtectTarget:
    disk = world.production.vm(world.target).view().disks[0]
    pair = DiskPair(
        address=disk.address,
        replica_key=disk.key,
        target_key=disk.key,
        capacity_bytes=more.pop("capacity", MIB),
        target_capacity_bytes=MIB,
    )
    mark = world.production.power_mark(world.target)
    argument = {"target": world.target, "pairs": (pair,), "power_mark": mark, **more}
    return ProtectTarget.model_validate({**world.head(), **argument})


def freeze(world: World, purpose: str = "read-1", **more: Any) -> SnapshotReplica:
    head = world.head(StepName.FREEZE_REPLICA)
    return SnapshotReplica(**head, replica=world.replica, purpose=purpose, **more)


def names(world: World, which: str = "target") -> list[str]:
    site, vm = (world.production, world.target) if which == "target" else (world.dr, world.replica)
    return [snapshot.name for snapshot in site.vm(vm).view().snapshots]


def test_protecting_twice_makes_one_snapshot_and_names_the_leaf(world: World) -> None:
    first = world.run("protect_target", protect(world))
    second = world.run("protect_target", protect(world))

    assert first.snapshot == second.snapshot
    assert names(world) == [NAME]
    assert first.disks == world.production.vm(world.target).view().disks
    assert world.production.vm(world.target).attributes["failback.state"] == "incomplete run-1"


@pytest.mark.parametrize("applied", [True, False])
def test_a_lost_reply_of_the_snapshot_makes_one_snapshot(world: World, applied: bool) -> None:
    world.production.fail("create_snapshot", SiteUnreachable("Cut."), applied=applied)

    with pytest.raises(ApplicationError) as caught:
        world.run("protect_target", protect(world), activity_id="1000009")
    world.run("protect_target", protect(world), activity_id="1000009", attempt=2)

    assert not caught.value.non_retryable
    assert names(world) == [NAME]


def test_tracking_is_off_while_we_write(world: World) -> None:
    world.production.vm(world.target).tracking = True

    world.run("protect_target", protect(world))

    assert world.production.vm(world.target).tracking is False


def test_a_running_target_is_not_protected(world: World) -> None:
    world.production.vm(world.target).power = PowerState.ON

    with pytest.raises(ApplicationError) as caught:
        world.run("protect_target", protect(world))

    assert caught.value.type == "VmChanged"
    assert names(world) == []


def test_a_smaller_target_disk_grows_before_the_snapshot(world: World) -> None:
    result = world.run("protect_target", protect(world, capacity=2 * MIB))

    assert result.disks[0].capacity_bytes == 2 * MIB


def test_freezing_twice_is_one_snapshot_with_change_ids(world: World) -> None:
    first = world.run("snapshot_replica", freeze(world, enable_tracking=True))
    second = world.run("snapshot_replica", freeze(world, enable_tracking=True))

    assert first.snapshot == second.snapshot
    assert first.tracking
    assert all(disk.change_id for disk in first.disks)


def ran(world: World, text: bytes, which: str = "replica") -> None:
    """Somebody powers a VM on, writes, and shuts it down."""
    site, identity = (
        (world.dr, world.replica) if which == "replica" else (world.production, world.target)
    )
    vm = site.vm(identity)
    vm.turn(PowerState.ON)
    vm.disks[0].data[: len(text)] = text
    vm.turn(PowerState.OFF)


def cut_after_the_snapshot(world: World, name: str, argument: Any) -> None:
    """An attempt whose snapshot is made and that dies before anybody hears of it."""
    site = world.dr if name == "snapshot_replica" else world.production
    site.fail("create_snapshot", SiteUnreachable("Cut."), applied=True)
    with pytest.raises(ApplicationError):
        world.run(name, argument, activity_id="1000030")


def test_the_protective_snapshot_of_a_replica_that_stayed_off_is_made_once(world: World) -> None:
    world.dr.vm(world.replica).turn(PowerState.OFF)
    argument = freeze(world, "protective", power_mark=world.dr.power_mark(world.replica))

    first = world.run("snapshot_replica", argument)
    second = world.run("snapshot_replica", argument)

    assert first == second
    assert first.power_mark == argument.power_mark


def test_a_replica_that_ran_before_its_protection_was_heard_of_is_protected_anew(
    world: World,
) -> None:
    """Undo would revert to the first snapshot, and pass 2 read it, both without what was written
    since: nobody would have it any more."""
    vm = world.dr.vm(world.replica)
    world.dr.set_change_tracking(world.replica, True, lambda: None)
    read = world.run("snapshot_replica", freeze(world)).disks[0]
    vm.turn(PowerState.OFF)
    argument = freeze(world, "protective", power_mark=world.dr.power_mark(world.replica))
    cut_after_the_snapshot(world, "snapshot_replica", argument)
    ran(world, b"mine")

    result = world.run("snapshot_replica", argument, activity_id="1000030", attempt=2)

    areas = world.dr.changed_areas(
        world.replica, result.snapshot, result.disks[0], read.change_id or "", lambda: None
    )
    assert (0, 64 * 1024) in list(areas)
    assert names(world, "replica") == ["failback/run-1/read-1", "failback/run-1/protective"]
    undo = restore_replica(world, result.snapshot, result.power_mark)
    world.run("restore_replica", undo, activity_id="1000031")
    assert bytes(vm.disks[0].data[:4]) == b"mine"


def test_a_replica_that_is_powered_on_while_it_is_protected_counts_as_used(world: World) -> None:
    vm = world.dr.vm(world.replica)
    vm.turn(PowerState.OFF)
    argument = freeze(world, "protective", power_mark=world.dr.power_mark(world.replica))
    world.dr.meanwhile("create_snapshot", lambda: ran(world, b"mine"))

    result = world.run("snapshot_replica", argument)

    with pytest.raises(ApplicationError) as caught:
        world.run("restore_replica", restore_replica(world, result.snapshot, result.power_mark))
    assert caught.value.type == "ReplicaUsed"
    assert bytes(vm.disks[0].data[:4]) == b"mine"


def test_a_target_that_ran_before_its_protection_was_heard_of_is_protected_anew(
    world: World,
) -> None:
    argument = protect(world)
    cut_after_the_snapshot(world, "protect_target", argument)
    ran(world, b"mine", "target")

    result = world.run("protect_target", argument, activity_id="1000030", attempt=2)

    assert names(world) == [NAME]
    world.production.vm(world.target).disks[0].data[:4] = b"ours"
    undo = restore_target(world, result.snapshot)
    world.run("restore_target", undo, activity_id="1000031")
    assert bytes(world.production.vm(world.target).disks[0].data[:4]) == b"mine"


def test_a_reset_workflow_does_not_take_the_old_content_of_a_written_target_away(
    world: World,
) -> None:
    argument = protect(world)
    first = world.run("protect_target", argument)
    began = datetime.now(UTC)
    world.catalog.step_intent("run-1", "transport_changes", "scsi0:0", mark="", at=began)
    ran(world, b"else", "target")

    again = world.run("protect_target", argument)

    assert again.snapshot == first.snapshot


def test_a_target_that_is_powered_on_while_it_is_protected_is_noticed(world: World) -> None:
    argument = protect(world)
    world.production.meanwhile("create_snapshot", lambda: ran(world, b"mine", "target"))

    result = world.run("protect_target", argument)

    assert result.power_mark == argument.power_mark != world.production.power_mark(world.target)


def test_the_protective_snapshot_is_refused_while_the_replica_runs(world: World) -> None:
    with pytest.raises(ApplicationError) as caught:
        world.run("snapshot_replica", freeze(world, "protective"))

    assert caught.value.type == "VmChanged"


def test_removing_the_read_snapshot_twice_leaves_others_alone(world: World) -> None:
    site = world.dr
    site.create_snapshot(world.replica, "somebody's", "", lambda: None)
    world.run("snapshot_replica", freeze(world))
    argument = RemoveSnapshot(
        **world.head(StepName.UNFREEZE_REPLICA), vm=world.replica, purpose="read-1"
    )

    first = world.run("remove_snapshot", argument)
    second = world.run("remove_snapshot", argument)

    assert names(world, "replica") == ["somebody's"]
    assert first.evidence.endswith("removed")
    assert second.evidence.endswith("was gone")


def test_a_snapshot_of_our_name_without_our_mark_is_not_removed(world: World) -> None:
    world.dr.create_snapshot(world.replica, "failback/run-1/read-1", "not ours", lambda: None)
    argument = RemoveSnapshot(
        **world.head(StepName.UNFREEZE_REPLICA), vm=world.replica, purpose="read-1"
    )

    with pytest.raises(ApplicationError) as caught:
        world.run("remove_snapshot", argument)

    assert caught.value.type == "VmChanged"
    assert names(world, "replica") == ["failback/run-1/read-1"]


def restore_target(world: World, snapshot: str | None, **more: Any) -> RestoreTarget:
    head = world.head(StepName.UNDO_PROTECT_TARGET)
    return RestoreTarget(**head, target=world.target, snapshot=snapshot, **more)


def test_undo_gives_the_target_its_bytes_back_and_repeats_harmlessly(world: World) -> None:
    vm = world.production.vm(world.target)
    vm.disks[0].data[:4] = b"old!"
    vm.tracking = True
    protected = world.run("protect_target", protect(world))
    vm.disks[0].data[:4] = b"new!"
    argument = restore_target(world, protected.snapshot, tracking_was=True)

    first = world.run("restore_target", argument)
    second = world.run("restore_target", argument)

    assert bytes(vm.disks[0].data[:4]) == b"old!"
    assert names(world) == []
    assert vm.tracking is True
    assert not vm.attributes.get("failback.state")
    assert "reverted to" in first.evidence
    assert second.evidence == "reverted earlier"


def test_a_target_that_runs_late_in_an_undo_is_stopped_with_an_alarm_that_stays(
    world: World,
) -> None:
    protected = world.run("protect_target", protect(world))
    world.production.vm(world.target).turn(PowerState.ON)
    argument = restore_target(world, protected.snapshot)

    first = world.run("restore_target", argument)
    second = world.run("restore_target", argument)

    assert world.production.vm(world.target).power is PowerState.OFF
    assert first.alarm.startswith("SPLIT_BRAIN") and second.alarm == first.alarm


def test_a_target_that_was_never_written_to_may_run(world: World) -> None:
    world.production.vm(world.target).turn(PowerState.ON)

    done = world.run("restore_target", restore_target(world, None))

    assert world.production.vm(world.target).power is PowerState.ON
    assert done.alarm == ""


@pytest.mark.parametrize("call", ["revert_to_snapshot", "remove_snapshot", "set_change_tracking"])
@pytest.mark.parametrize("applied", [True, False])
def test_a_restore_cut_off_anywhere_ends_in_the_same_state(
    world: World, call: str, applied: bool
) -> None:
    vm = world.production.vm(world.target)
    vm.disks[0].data[:4] = b"old!"
    protected = world.run("protect_target", protect(world))
    vm.disks[0].data[:4] = b"new!"
    argument = restore_target(world, protected.snapshot)
    world.production.fail(call, SiteUnreachable("Cut."), applied=applied)

    with pytest.raises(ApplicationError):
        world.run("restore_target", argument, activity_id="1000008")
    world.run("restore_target", argument, activity_id="1000008", attempt=2)

    assert bytes(vm.disks[0].data[:4]) == b"old!"
    assert names(world) == []


def test_a_recorded_snapshot_that_is_gone_is_not_taken_for_restored(world: World) -> None:
    protected = world.run("protect_target", protect(world))
    world.production.remove_snapshot(world.target, NAME, "run-1", lambda: None)

    with pytest.raises(ApplicationError) as caught:
        world.run("restore_target", restore_target(world, protected.snapshot))
    accepted = world.run(
        "restore_target", restore_target(world, protected.snapshot, accept_not_restored=True)
    )

    assert caught.value.type == "TargetNotRestorable"
    assert "accept_target_not_restored" in caught.value.message
    assert "accepted by the operator" in accepted.evidence


def test_a_step_that_never_reported_is_found_by_its_mark(world: World) -> None:
    vm = world.production.vm(world.target)
    vm.disks[0].data[:4] = b"old!"
    world.run("protect_target", protect(world))
    vm.disks[0].data[:4] = b"new!"

    world.run("restore_target", restore_target(world, None))

    assert bytes(vm.disks[0].data[:4]) == b"old!"
    assert names(world) == []


def restore_replica(world: World, snapshot: str, mark: str | None, content: str = "") -> Any:
    return RestoreReplica(
        **world.head(StepName.UNDO_PROTECT_REPLICA),
        replica=world.replica,
        snapshot=snapshot,
        power_mark=mark,
        content=content,
    )


def protected_replica(world: World) -> tuple[str, str | None]:
    world.dr.vm(world.replica).turn(PowerState.OFF)
    result = world.run("snapshot_replica", freeze(world, "protective"))
    return result.snapshot, result.power_mark


def test_an_unused_replica_is_reverted_and_a_repeat_is_harmless(world: World) -> None:
    argument = restore_replica(world, *protected_replica(world))

    world.run("restore_replica", argument)
    again = world.run("restore_replica", argument)

    assert names(world, "replica") == []
    assert "nothing to revert" in again.evidence


@pytest.mark.parametrize("still_on", [True, False])
def test_a_replica_that_somebody_used_is_never_reverted_unasked(
    world: World, still_on: bool
) -> None:
    snapshot, mark = protected_replica(world)
    vm = world.dr.vm(world.replica)
    vm.turn(PowerState.ON)
    vm.disks[0].data[:4] = b"mine"
    if not still_on:
        vm.turn(PowerState.OFF)

    with pytest.raises(ApplicationError) as caught:
        world.run("restore_replica", restore_replica(world, snapshot, mark))
    assert caught.value.type == "ReplicaUsed"
    assert bytes(vm.disks[0].data[:4]) == b"mine"

    world.run("restore_replica", restore_replica(world, snapshot, mark, "keep"))
    assert bytes(vm.disks[0].data[:4]) == b"mine"
    assert names(world, "replica") == []


def test_revert_on_request_loses_what_was_written_since(world: World) -> None:
    snapshot, mark = protected_replica(world)
    vm = world.dr.vm(world.replica)
    vm.turn(PowerState.ON)
    vm.disks[0].data[:4] = b"mine"

    world.run("restore_replica", restore_replica(world, snapshot, mark, "revert"))

    assert bytes(vm.disks[0].data[:4]) == bytes(4)
    assert vm.power is PowerState.OFF


def test_unreadable_power_events_are_a_doubt(world: World) -> None:
    snapshot, _ = protected_replica(world)

    with pytest.raises(ApplicationError) as caught:
        world.run("restore_replica", restore_replica(world, snapshot, None))

    assert "cannot be read" in caught.value.message
