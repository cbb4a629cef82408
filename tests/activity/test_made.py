"""Destination `new`: the VM that is made, what it gets of the replica and when, and its removal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import (
    CheckDrift,
    CopyConfiguration,
    CreateTarget,
    CreateTargetResult,
    DeleteTarget,
    RegisterTarget,
    TargetGuard,
)
from failback.contracts.plan import RunPlan
from failback.contracts.start import StartRequest
from failback.contracts.vm import DiskPair, Nic
from failback.contracts.words import PowerState, StepName
from failback.errors import SiteUnreachable
from failback.hypervisor.testing_vm import FakeVm
from tests.activity.world import MIB, World

REQUEST = StartRequest.model_validate(
    {"replica": "web01", "destination": "new", "new_vm": {"name": "web01-home"}}
)
CARDS = (
    Nic(key=4000, kind="vmxnet3", network="VM Network"),
    Nic(key=4001, kind="vmxnet3", network="Backup", connected=False),
)


@pytest.fixture
def there(world: World) -> World:
    """A world whose replica has a card that is not connected."""
    world.production.inventory.setdefault("network", set()).update({"VM Network", "Backup"})
    world.dr.vm(world.replica).nics = list(CARDS)
    return world


def plan_of(world: World) -> RunPlan:
    (disk,) = world.dr.vm(world.replica).view().disks
    pair = DiskPair(
        address=disk.address,
        replica_key=disk.key,
        target_key=0,
        capacity_bytes=MIB,
        target_capacity_bytes=MIB,
    )
    return RunPlan(
        replica=world.replica,
        target=world.target.model_copy(update={"moref": "", "name": "web01-home"}),
        pairs=(pair,),
        replica_power=PowerState.ON,
        target_power=PowerState.OFF,
        replica_tracking=True,
        target_tracking=False,
        final_name="web01-home",
    )


def make(world: World) -> CreateTargetResult:
    argument = CreateTarget(
        **world.head(StepName.CREATE_TARGET),
        replica=world.replica,
        request=REQUEST,
        plan=plan_of(world),
    )
    made: CreateTargetResult = world.run("create_target", argument)
    return made


def vm_of(world: World, made: CreateTargetResult) -> FakeVm:
    return world.production.vm(made.target)


def register(world: World, made: CreateTargetResult, **more: Any) -> str:
    argument = RegisterTarget(
        **world.head(StepName.REGISTER_TARGET),
        target=made.target,
        request=REQUEST,
        final_name="web01-home",
        unconnected=made.unconnected,
        **more,
    )
    return str(world.run("register_target", argument).evidence)


def copy(world: World, made: CreateTargetResult) -> str:
    argument = CopyConfiguration(
        **world.head(StepName.COPY_CONFIGURATION),
        replica=world.replica,
        target=made.target,
        request=REQUEST,
    )
    return str(world.run("copy_configuration", argument).evidence)


def look(world: World, made: CreateTargetResult) -> str:
    plan = plan_of(world).model_copy(update={"target": made.target, "pairs": made.pairs})
    guard = TargetGuard(
        target=made.target,
        snapshot=None,
        power_mark=made.power_mark,
        files=tuple(disk.file for disk in made.disks),
    )
    argument = CheckDrift(
        **world.head(StepName.CHECK_DRIFT), plan=plan, guard=guard, made=made.target
    )
    try:
        return str(world.run("check_drift", argument).evidence)
    except ApplicationError as error:
        return f"{error.type}: {error.message}"


def delete(world: World, made: CreateTargetResult | None) -> str:
    argument = DeleteTarget(
        **world.head(StepName.UNDO_CREATE_TARGET),
        site="production",
        target=made.target if made else None,
        replica=world.replica,
        request=REQUEST,
        plan=plan_of(world),
    )
    return str(world.run("delete_target", argument).evidence)


@pytest.mark.parametrize("applied", [True, False])
def test_it_is_made_once_although_the_reply_is_lost(there: World, applied: bool) -> None:
    before = len(there.production.vms)
    there.production.fail("create_vm", SiteUnreachable("The wire was cut."), applied=applied)
    with pytest.raises(ApplicationError):
        make(there)

    made = make(there)

    assert len(there.production.vms) == before + 1
    assert vm_of(there, made).identity.name == "web01-home (failback in progress)"
    assert [card.connected for card in vm_of(there, made).nics] == [False, False]
    assert made == make(there)


def test_only_cards_that_are_connected_at_the_replica_reach_the_network(there: World) -> None:
    made = make(there)

    assert "1 cards connected" in register(there, made)
    assert register(there, made) == register(there, made)
    assert [card.connected for card in vm_of(there, made).nics] == [True, False]
    assert vm_of(there, made).identity.name == "web01-home"

    assert "2 cards disconnected" in register(there, made, back=True)
    assert [card.connected for card in vm_of(there, made).nics] == [False, False]
    assert "in progress" in vm_of(there, made).identity.name


def test_what_the_replica_has_when_it_is_off_is_what_it_gets(there: World) -> None:
    made = make(there)
    replica = there.dr.vm(there.replica)
    replica.cpus, replica.memory_mb, replica.nvram = 4, 4096, b"booted from another disk"
    assert look(there, made) == "both VMs are as planned"

    assert copy(there, made) == "4 CPUs, 4096 MB are new; NVRAM of 24 bytes is copied"
    assert copy(there, made) == "4 CPUs, 4096 MB as before; NVRAM of 24 bytes is copied"

    mine = vm_of(there, made)
    assert (mine.cpus, mine.memory_mb, mine.nvram) == (4, 4096, replica.nvram)


def add_card(vm: FakeVm) -> None:
    vm.nics.append(Nic(key=4002, kind="e1000", network="VM Network"))


def take_card(vm: FakeVm) -> None:
    del vm.nics[1]


def other_firmware(vm: FakeVm) -> None:
    assert vm.configuration is not None
    vm.configuration = vm.configuration.model_copy(update={"firmware": "efi"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add_card, "1 network cards e1000 at the replica, 0 at it"),
        (take_card, "1 network cards vmxnet3 at the replica, 2 at it"),
        (other_firmware, "firmware is efi at the replica and bios at the VM that was made"),
    ],
)
def test_other_hardware_is_noticed_while_the_replica_serves(
    there: World, change: Callable[[FakeVm], None], told: str
) -> None:
    there.dr.vm(there.replica).configuration = there.dr.configuration(there.replica)
    made = make(there)
    change(there.dr.vm(there.replica))

    said = look(there, made)

    assert said.startswith("VmChanged: REPLICA_DRIFTED")
    assert told in said


@pytest.mark.parametrize("heard", [True, False])
def test_it_is_deleted_also_when_nobody_heard_of_its_creation(there: World, heard: bool) -> None:
    before = set(there.production.vms)
    made = make(there)

    assert "is deleted" in delete(there, made if heard else None)
    assert set(there.production.vms) == before
    assert "no VM was made" in delete(there, None)


def test_it_is_not_deleted_with_somebody_elses_snapshot(there: World) -> None:
    made = make(there)
    there.production.create_snapshot(made.target, "before the upgrade", "", lambda: None)

    with pytest.raises(ApplicationError) as refused:
        delete(there, made)

    assert refused.value.type == "TargetNotOurs"
    assert made.target.moref in there.production.vms
