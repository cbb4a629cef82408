"""What is carried over is added once, whatever is lost, and taken back."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import CarryOverHardware
from failback.contracts.plan import Carry
from failback.contracts.vm import Nic
from failback.contracts.words import PowerState, StepName
from failback.errors import SiteUnreachable
from tests.activity.world import World

CARD = Nic(key=4007, kind="vmxnet3", network="VM Network")
CARRY = Carry(
    cpus=4,
    memory_mb=4096,
    cpus_before=1,
    memory_mb_before=1024,
    nics=(CARD, CARD),
    nic_keys_before=(4000,),
)


def carry(world: World, **more: object) -> str:
    argument = CarryOverHardware.model_validate(
        {**world.head(StepName.CARRY_OVER), "target": world.target, "carry": CARRY, **more}
    )
    return str(world.run("carry_over", argument).evidence)


def hardware(world: World) -> tuple[int, int, int]:
    vm = world.production.vm(world.target)
    return vm.cpus, vm.memory_mb, len(vm.nics)


@pytest.mark.parametrize("lost", ["set_hardware", "add_nic", None])
@pytest.mark.parametrize("applied", [True, False])
def test_it_is_added_once_although_replies_are_lost(
    world: World, lost: str | None, applied: bool
) -> None:
    if lost is not None:
        world.production.fail(lost, SiteUnreachable("The wire was cut."), applied=applied)
        with pytest.raises(ApplicationError):
            carry(world)

    assert "2 network cards added" in carry(world)
    assert "2 network cards added" in carry(world)
    assert hardware(world) == (4, 4096, 3)


def test_cpus_and_memory_are_set_back_and_cards_wait_for_the_revert(world: World) -> None:
    carry(world)

    assert "revert" in carry(world, back=True, reverted_next=True)
    assert hardware(world) == (4, 4096, 3)
    for _ in range(2):
        assert "1 CPUs and 1024 MB again" in carry(world, back=True)
    assert hardware(world) == (1, 1024, 3)


def test_a_target_that_runs_is_left_alone(world: World) -> None:
    world.production.vm(world.target).turn(PowerState.ON)

    with pytest.raises(ApplicationError, match="powered off"):
        carry(world)
    assert hardware(world) == (1, 1024, 1)
