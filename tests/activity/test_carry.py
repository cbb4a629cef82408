"""What is carried over is added once, whatever is lost, and taken back."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import (
    CarryOverHardware,
    CarryOverResult,
    ProtectTarget,
    RestoreTarget,
)
from failback.contracts.plan import CarriedDisk, Carry
from failback.contracts.vm import DiskAddress, Nic
from failback.contracts.words import PowerState, StepName
from failback.errors import SiteUnreachable
from tests.activity.world import MIB, World

CARD = Nic(key=4007, kind="vmxnet3", network="VM Network")
FOLDER = "[ds-production] web01"
FILE = f"{FOLDER}/failback-run-1-scsi0-5.vmdk"
CARRY = Carry(
    cpus=4,
    memory_mb=4096,
    cpus_before=1,
    memory_mb_before=1024,
    nics=(CARD, CARD),
    nic_keys_before=(4000,),
    disks=(
        CarriedDisk(
            address=DiskAddress(controller="scsi", bus=0, unit=5),
            replica_key=2005,
            capacity_bytes=2 * MIB,
            folder=FOLDER,
        ),
    ),
)


def carry(world: World, **more: object) -> CarryOverResult:
    argument = CarryOverHardware.model_validate(
        {**world.head(StepName.CARRY_OVER), "target": world.target, "carry": CARRY, **more}
    )
    result: CarryOverResult = world.run("carry_over", argument)
    return result


def hardware(world: World) -> tuple[int, int, int]:
    vm = world.production.vm(world.target)
    return vm.cpus, vm.memory_mb, len(vm.nics)


@pytest.mark.parametrize("lost", ["set_hardware", "add_nic", "add_disk", None])
@pytest.mark.parametrize("applied", [True, False])
def test_it_is_added_once_although_replies_are_lost(
    world: World, lost: str | None, applied: bool
) -> None:
    if lost is not None:
        world.production.fail(lost, SiteUnreachable("The wire was cut."), applied=applied)
        with pytest.raises(ApplicationError):
            carry(world)

    assert "2 network cards and 1 disks added" in carry(world).evidence
    found = carry(world)
    assert hardware(world) == (4, 4096, 3)
    (added,) = (disk for disk in found.disks if disk.file == FILE)
    assert (added.capacity_bytes, str(added.address)) == (2 * MIB, "scsi0:5")
    assert [(pair.replica_key, pair.target_key) for pair in found.pairs] == [(2005, added.key)]


def files(world: World) -> int:
    return sum(disk.file == FILE for disk in world.production.vm(world.target).disks)


def test_before_a_revert_only_the_disk_is_removed(world: World) -> None:
    carry(world)
    world.production.vm(world.target).turn(PowerState.ON)

    for removed in (1, 0):
        assert f"{removed} disks removed" in carry(world, back=True, reverted_next=True).evidence
    assert hardware(world) == (4, 4096, 3)
    assert files(world) == 0


@pytest.mark.parametrize("disks", [CARRY.disks, ()])
@pytest.mark.parametrize("applied", [True, False, None])
def test_a_target_that_runs_in_an_undo_is_told_whoever_stops_it(
    world: World, disks: tuple[CarriedDisk, ...], applied: bool | None
) -> None:
    """Before it is reverted: by then it is off, and nobody would know that it ran."""
    head = world.head(StepName.PROTECT_TARGET)
    protected = world.run("protect_target", ProtectTarget(**head, target=world.target, pairs=()))
    back = CarryOverHardware(
        **world.head(StepName.UNDO_CARRY_OVER),
        target=world.target,
        carry=CARRY.model_copy(update={"disks": disks}),
        back=True,
        reverted_next=True,
    )
    restore = RestoreTarget(
        **world.head(StepName.UNDO_PROTECT_TARGET),
        target=world.target,
        snapshot=protected.snapshot,
    )
    world.production.vm(world.target).turn(PowerState.ON)
    if applied is not None:
        world.production.fail("power_off", SiteUnreachable("The wire was cut."), applied=applied)
        stopping = ("carry_over", back) if disks else ("restore_target", restore)
        with pytest.raises(ApplicationError):
            world.run(*stopping)

    told = [world.run("carry_over", back).alarm, world.run("restore_target", restore).alarm]

    (alarm,) = filter(None, told)
    assert alarm.startswith("SPLIT_BRAIN")
    assert {one.message for one in world.catalog.alarms("run-1")} == {alarm}
    assert world.production.vm(world.target).power is PowerState.OFF


def test_without_a_revert_everything_but_cards_is_taken_back(world: World) -> None:
    carry(world)

    for _ in range(2):
        assert "1 CPUs and 1024 MB again" in carry(world, back=True).evidence
    assert hardware(world) == (1, 1024, 3)
    assert files(world) == 0


@pytest.mark.parametrize("back", [True, False])
def test_a_target_that_runs_is_left_alone(world: World, back: bool) -> None:
    world.production.vm(world.target).turn(PowerState.ON)

    with pytest.raises(ApplicationError, match="powered off"):
        carry(world, back=back)
    assert hardware(world) == (1, 1024, 1)
