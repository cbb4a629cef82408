"""Moving and verifying bytes through real exporters, behind the real edge."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError

from activities.disks import Pair, disk_id
from activities.edge import Attempt, bind, disk_lease
from activities.transfer import TransferActivities
from activities.verify import VerifyActivities
from failback.catalog.ledger import SqlLedgerStore
from failback.contracts.operations import (
    CalculateDifference,
    DifferencePlan,
    Differences,
    DiskSides,
    Settle,
    TargetGuard,
    TransferProgress,
    TransportChanges,
    TransportResult,
    Verify,
    VerifyResult,
)
from failback.contracts.vm import DiskAddress, DiskOpening, DiskPair
from failback.contracts.words import Method, Phase, PowerState, StepName
from failback.disks.digest import VerifyOutcome
from failback.disks.ledger import LedgerIdentity, SegmentRecord
from failback.disks.plan import Extent, TransferPlan
from failback.errors import DiskUnavailable, StateConflict
from tests.activity.world import MIB, World, random_bytes, write_disk
from workflows import operations as op

SIZE = 2 * MIB + 512
SEGMENT = 256 * 1024


def files(world: World) -> tuple[Path, Path]:
    """Flat files of the replica's and the target's disk."""
    return (
        world.root / "dr" / "vm" / "disk0-flat.vmdk",
        world.root / "production" / "vm" / "disk0-flat.vmdk",
    )


def plan(world: World, areas: tuple[Extent, ...] | None = None) -> TransportChanges:
    """Both disks on real files, and a plan in the ledger."""
    old = random_bytes(1, SIZE)
    new = bytearray(old)
    new[300_000:300_100] = random_bytes(2, 100)
    new[MIB : MIB + 65536] = bytes(65536)
    sides = []
    for site, vm, data in (
        ("dr", world.replica, bytes(new)),
        ("production", world.target, old),
    ):
        file = write_disk(world.root / site, "disk0", data)
        sides.append(
            DiskOpening(site=site, vm_moref=vm.moref, disk_key=2000, file=file, capacity_bytes=SIZE)
        )
    made = DifferencePlan(
        plan_id="run-1/scsi0:0/1",
        pass_no=1,
        address="scsi0:0",
        method=Method.COMPARE,
        reason="test",
        areas_bytes=SIZE,
    )
    world.rooms.ledger.save(
        made.plan_id,
        disk_id("run-1", sides[1]),
        LedgerIdentity("source", "target"),
        TransferPlan(SIZE, SEGMENT, areas),
    )
    return TransportChanges(
        **world.head(StepName.TRANSPORT_CHANGES),
        plan=made,
        source=sides[0],
        target=sides[1],
        guard=guard_of(world),
    )


def guard_of(world: World) -> TargetGuard:
    """The target as it is now."""
    view = world.production.vm(world.target).view()
    return TargetGuard(
        target=world.target,
        snapshot=view.current_snapshot,
        power_mark=world.production.power_mark(world.target),
        files=tuple(disk.file for disk in view.disks),
    )


def verification(made: TransportChanges) -> Verify:
    """Verify what this transport wrote."""
    return Verify.model_validate({**dict(made), "step": StepName.VERIFY})


def test_transporting_twice_gives_equal_disks_and_writes_once(world: World) -> None:
    argument = plan(world)

    first = world.run("transport_changes", argument)
    second = world.run("transport_changes", argument)

    source, target = files(world)
    assert source.read_bytes() == target.read_bytes()
    assert (first.different_bytes, first.written_bytes, first.zeroed_bytes) == (
        131072,
        65536,
        65536,
    )
    assert second.resumed_bytes == SIZE
    assert second.written_bytes == first.written_bytes


@pytest.mark.parametrize("checked", [True, False])
def test_a_pair_of_two_disks_is_refused_before_a_byte_is_written(
    world: World, checked: bool
) -> None:
    argument = plan(world)
    source, target = files(world)
    for path, guid in ((source, b"a" * 16), (target, b"b" * 16)):
        with path.open("r+b") as file:
            file.seek(512)
            file.write(b"EFI PART".ljust(56, b"\0") + guid + bytes(20))
    before = target.read_bytes()
    made = argument.plan.model_copy(update={"check_label": checked})
    argument = argument.model_copy(update={"plan": made})

    if not checked:
        world.run("transport_changes", argument)
        assert source.read_bytes() == target.read_bytes()
        return
    for _ in range(2):
        with pytest.raises(ApplicationError, match=r"GPT .* two copies") as refused:
            world.run("transport_changes", argument)
        assert (refused.value.type, refused.value.non_retryable) == ("DiskMismatch", True)
    assert target.read_bytes() == before


def test_a_cancel_in_the_middle_is_resumed(world: World) -> None:
    argument = plan(world)
    environment = world.environment()
    environment.on_heartbeat = lambda *_: environment.cancel()

    with pytest.raises(CancelledError):
        environment.run(world.activities["transport_changes"], argument)
    world.run("transport_changes", argument)

    source, target = files(world)
    assert source.read_bytes() == target.read_bytes()


def test_live_numbers_count_what_earlier_attempts_finished(world: World) -> None:
    argument = plan(world)
    world.run("transport_changes", argument)
    rooms, seen = world.rooms, []
    transfer = TransferActivities(world.sites, rooms.disks, rooms.ledger, rooms.options)

    def watched(call: TransportChanges, attempt: Attempt) -> TransportResult:
        result = transfer.transport_changes(call, attempt)
        seen.append(attempt.details)
        return result

    world.environment().run(bind(op.TRANSPORT_CHANGES, watched, world.catalog), argument)

    assert isinstance(seen[0], TransferProgress)
    assert (seen[0].examined_bytes, seen[0].resumed_bytes) == (SIZE, SIZE)


def test_an_attempt_whose_disk_lease_was_taken_cannot_write(world: World) -> None:
    made = plan(world)
    _, target = files(world)
    before = target.read_bytes()
    taken: list[int] = []
    original = world.catalog.check_lease

    def check(name: str, epoch: int) -> None:
        if name == disk_lease(made.target) and not taken:
            taken.append(world.catalog.take_lease(name, "settle"))
        original(name, epoch)

    world.catalog.check_lease = check  # type: ignore[method-assign]

    with pytest.raises(ApplicationError) as caught:
        world.run("transport_changes", made)

    assert caught.value.type == "LeaseLost"
    assert target.read_bytes() == before


def test_settle_takes_the_disk_away_from_every_earlier_attempt(world: World) -> None:
    made = plan(world)
    name = disk_lease(made.target)
    epoch = world.catalog.take_lease(name, "a mover that is frozen before it opens anything")

    world.run(
        "settle",
        Settle(
            **world.head(StepName.SETTLE),
            vms=(world.target, world.replica),
            written_disks=(made.target,),
        ),
    )

    with pytest.raises(Exception, match="went over"):
        world.catalog.check_lease(name, epoch)


def test_verify_compares_written_extents_on_both_sides(world: World) -> None:
    made = plan(world)
    world.run("transport_changes", made)

    result = world.run("verify", verification(made))

    assert result.checked_bytes == SIZE
    assert not result.repaired
    assert len(result.digest) == 64


def test_a_difference_found_by_verify_is_repaired_and_alarmed(world: World) -> None:
    made = plan(world)
    world.run("transport_changes", made)
    source, target = files(world)
    with target.open("r+b") as file:
        file.seek(300_050)
        file.write(b"flipped")

    result = world.run("verify", verification(made))

    assert result.repaired
    assert "differed at byte" in result.alarm
    assert source.read_bytes() == target.read_bytes()
    assert [alarm.code for alarm in world.catalog.alarms("run-1")] == ["VERIFY_MISMATCH"]


def verifying(world: World, kind: type[VerifyActivities]) -> Any:
    """The activity `verify` of another class."""
    rooms = world.rooms
    made = kind(
        rooms.sites,
        rooms.disks,
        rooms.ledger,
        rooms.catalog,
        rooms.options,
        rooms.segment_bytes,
        rooms.verify_fraction,
        random.Random(1),
    )
    return bind(op.VERIFY, made.verify, world.catalog)


def test_a_verification_that_was_overtaken_raises_no_alarm(world: World) -> None:
    made = plan(world)
    _, target = files(world)
    with target.open("r+b") as file:
        file.seek(300_050)
        file.write(b"flipped")

    class Slow(VerifyActivities):
        def _digest(self, argument: Verify, pair: Pair, *, whole_disk: bool) -> VerifyOutcome:
            found = super()._digest(argument, pair, whole_disk=whole_disk)
            world.catalog.take_lease(disk_lease(argument.target), "a newer attempt")
            return found

    with pytest.raises(ApplicationError) as caught:
        world.environment().run(verifying(world, Slow), verification(made))

    assert caught.value.type == "LeaseLost"
    assert not world.catalog.alarms("run-1")


def test_a_repair_that_was_cut_off_is_made_again_although_both_sides_read_the_same(
    world: World,
) -> None:
    made = plan(world)
    world.run("transport_changes", made)
    source, target = files(world)
    with target.open("r+b") as file:
        file.seek(300_050)
        file.write(b"flipped")

    class CutOff(VerifyActivities):
        def _repair(self, argument: Verify, attempt: Attempt) -> None:
            target.write_bytes(source.read_bytes())  # and nobody has flushed it
            raise DiskUnavailable("The worker died.")

    with pytest.raises(ApplicationError):
        world.environment().run(verifying(world, CutOff), verification(made))
    result = world.run("verify", verification(made))

    assert result.repaired
    assert "differed at byte" in result.alarm
    ledger = world.rooms.ledger
    assert isinstance(ledger, SqlLedgerStore)
    assert ledger.is_complete(f"{made.plan.plan_id}/repair")
    assert [alarm.times for alarm in world.catalog.alarms("run-1")] == [1]


def difference(world: World, base: str | None, pass_no: int = 2) -> CalculateDifference:
    made = plan(world)
    snapshot = world.dr.create_snapshot(world.replica, f"s{pass_no}", "", lambda: None)
    disk = world.dr.snapshot_disks(world.replica, snapshot)[0]
    sides = DiskSides(
        pair=DiskPair(
            address=DiskAddress(controller="scsi", bus=0, unit=0),
            replica_key=disk.key,
            target_key=2000,
            capacity_bytes=MIB,
            target_capacity_bytes=MIB,
        ),
        source=DiskOpening(
            site="dr",
            vm_moref=world.replica.moref,
            snapshot=snapshot,
            disk_key=disk.key,
            file=disk.file,
            capacity_bytes=MIB,
        ),
        target=made.target,
        base_change_id=base,
    )
    return CalculateDifference(
        **world.head(StepName.CALCULATE_DIFFERENCE_2),
        pass_no=pass_no,
        replica=world.replica,
        guard=made.guard,
        disks=(sides,),
    )


def calculated(world: World, argument: CalculateDifference) -> DifferencePlan:
    """The plan of the only disk."""
    result: Differences = world.run("calculate_difference", argument)
    assert len(result.plans) == 1
    return result.plans[0]


def test_only_pass_1_looks_at_names_and_only_where_nobody_vouches(world: World) -> None:
    first = difference(world, None, pass_no=1)
    (sides,) = first.disks
    vouched = sides.model_copy(update={"pair": sides.pair.model_copy(update={"accepted": True})})

    assert calculated(world, first).check_label
    assert not calculated(world, first.model_copy(update={"disks": (vouched,)})).check_label
    assert not calculated(world, difference(world, None, pass_no=2)).check_label


def test_pass_1_compares_everything(world: World) -> None:
    result = calculated(world, difference(world, None, 1))

    assert (result.method, result.areas_bytes) == (Method.COMPARE, MIB)


def test_holes_are_skipped_only_on_a_new_disk_that_nobody_else_wrote(world: World) -> None:
    argument = difference(world, None, 1).model_copy(update={"blank_target": True})
    assert calculated(world, argument).method is Method.FULL

    vm = world.production.vm(world.target)
    vm.turn(PowerState.ON)
    vm.turn(PowerState.OFF)

    result = calculated(world, argument)
    assert result.method is Method.COMPARE
    assert "powered on meanwhile" in result.reason


@pytest.mark.parametrize(
    ("phase", "left"), [(Phase.READY_TO_SWITCH, [2, 6]), (Phase.SWITCHING, [2, 3, 4, 5, 6])]
)
def test_cycles_that_are_over_are_folded_while_the_replica_serves(
    world: World, phase: Phase, left: list[int]
) -> None:
    """Verify reads what all passes wrote, and that is downtime."""
    for number in range(2, 7):
        argument = difference(world, None, pass_no=number)
        made = calculated(world, argument.model_copy(update={"phase": phase}))
        held = world.rooms.ledger.open(made.plan_id, "mover")
        held.commit([SegmentRecord(0, 1, 1, 1, 0, (Extent(4096 * number, 4096),))])
        held.complete()
    disk = disk_id("run-1", argument.disks[0].target)

    assert list(world.rooms.ledger.written(disk)) == [Extent(2 * 4096, 5 * 4096)]
    known = [f"run-1/scsi0:0/{number}" for number in range(2, 7)]
    assert [one for one in known if saved(world, one)] == [f"run-1/scsi0:0/{n}" for n in left]


def saved(world: World, plan_id: str) -> bool:
    try:
        world.rooms.ledger.open(plan_id, "look")
    except StateConflict:
        return False
    return True


def test_pass_2_is_tracked_where_tracking_is_trusted(world: World) -> None:
    world.dr.set_change_tracking(world.replica, True, lambda: None)
    first = world.dr.create_snapshot(world.replica, "first", "", lambda: None)
    base = world.dr.snapshot_disks(world.replica, first)[0].change_id
    world.dr.vm(world.replica).disks[0].data[65536 * 3] ^= 1

    result = calculated(world, difference(world, base))

    assert (result.method, result.areas_bytes) == (Method.TRACKED, 65536)


@pytest.mark.parametrize("base", [None, "52 ff/1"])
def test_pass_2_compares_where_tracking_is_off_or_was_reset(world: World, base: str | None) -> None:
    result = calculated(world, difference(world, base))

    assert result.method is Method.COMPARE
    assert "tracking" in result.reason


def test_calculating_twice_keeps_what_is_finished(world: World) -> None:
    argument = difference(world, None, 1)
    first = calculated(world, argument)
    opened = world.rooms.ledger.open(first.plan_id, "me")

    second = calculated(world, argument)

    assert first == second
    opened.complete()


@pytest.mark.parametrize("still_on", [True, False])
def test_a_target_that_ran_between_two_attempts_is_not_believed(
    world: World, still_on: bool
) -> None:
    made = plan(world)
    world.run("transport_changes", made)
    vm = world.production.vm(world.target)
    vm.turn(PowerState.ON)
    if not still_on:
        vm.turn(PowerState.OFF)

    with pytest.raises(ApplicationError) as again:
        world.run("transport_changes", made)
    with pytest.raises(ApplicationError) as verified:
        world.run("verify", verification(made))

    assert (again.value.type, verified.value.type) == ("VmChanged", "VmChanged")
    assert "TARGET_DRIFTED" in again.value.message


def test_a_target_whose_power_ons_nobody_can_read_is_written_and_verified_as_a_whole(
    world: World,
) -> None:
    """What the ledger calls written may have been undone by somebody who ran the target."""
    world.production.tells_power_ons = False
    made = plan(world)
    world.run("transport_changes", made)
    source, target = files(world)
    with target.open("r+b") as file:
        file.seek(SIZE - 1)
        file.write(bytes([source.read_bytes()[-1] ^ 1]))

    again = world.run("transport_changes", made)
    verified: VerifyResult = world.run("verify", verification(made))

    assert again.resumed_bytes == SIZE
    assert (verified.checked_bytes, verified.repaired) == (SIZE, True)
    assert source.read_bytes() == target.read_bytes()


@pytest.mark.parametrize("since", ["start", "plan"])
def test_where_nobody_can_read_power_ons_a_pass_compares_the_whole_disk(
    world: World, since: str
) -> None:
    world.dr.set_change_tracking(world.replica, True, lambda: None)
    first = world.dr.create_snapshot(world.replica, "first", "", lambda: None)
    base = world.dr.snapshot_disks(world.replica, first)[0].change_id
    world.production.tells_power_ons = since == "plan"
    argument = difference(world, base)
    world.production.tells_power_ons = False

    result = calculated(world, argument)

    assert result.method is Method.COMPARE
    assert "nobody can say" in result.reason and "behind our back" not in result.reason


def test_a_new_disk_that_somebody_ran_on_is_not_taken_for_empty(world: World) -> None:
    argument = difference(world, None, pass_no=1).model_copy(update={"blank_target": True})
    assert calculated(world, argument).method is Method.FULL
    for power in (PowerState.ON, PowerState.OFF):
        world.production.vm(world.target).turn(power)

    assert calculated(world, argument).method is Method.COMPARE


def test_a_target_that_ran_before_the_plan_is_compared_as_a_whole(world: World) -> None:
    world.dr.set_change_tracking(world.replica, True, lambda: None)
    first = world.dr.create_snapshot(world.replica, "first", "", lambda: None)
    base = world.dr.snapshot_disks(world.replica, first)[0].change_id
    argument = difference(world, base)
    vm = world.production.vm(world.target)
    vm.turn(PowerState.ON)
    vm.turn(PowerState.OFF)

    result: Differences = world.run("calculate_difference", argument)

    assert result.plans[0].method is Method.COMPARE
    assert "behind our back" in result.plans[0].reason
    assert result.guard.power_mark != argument.guard.power_mark


def test_a_mover_that_was_scheduled_before_settle_cannot_begin_after_it(world: World) -> None:
    made = plan(world)
    _, target = files(world)
    before = target.read_bytes()
    settle = Settle(
        **world.head(StepName.SETTLE),
        vms=(world.target, world.replica),
        written_disks=(made.target,),
    )
    world.run("settle", settle, activity_id="1000020")

    with pytest.raises(ApplicationError) as caught:
        world.run("transport_changes", made, activity_id="1000009", attempt=3)

    assert caught.value.type == "LeaseLost"
    assert target.read_bytes() == before
