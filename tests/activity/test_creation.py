"""The VM that a run made, when its site or its host is away in an undo."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import DeleteTarget, RegisterTarget
from failback.contracts.plan import RunPlan
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState, StepName
from tests.activity.world import MIB, World

REQUEST = StartRequest.model_validate({"replica": "web01", "destination": "new"})


@pytest.fixture
def made(world: World) -> VmIdentity:
    """Registered: it bears its final name, its cards are connected, and it runs."""
    vm = world.production.add_vm("home", [bytearray(MIB)], PowerState.ON)
    world.production.vm(vm).mark = "run-1"
    return vm


def away(world: World, vm: VmIdentity, how: str) -> None:
    if how == "site":
        world.production.down = True
    else:
        world.production.vm(vm).changes["connection_state"] = "disconnected"


def back(world: World, vm: VmIdentity) -> None:
    world.production.down = False
    world.production.vm(vm).changes.clear()


def register(world: World, vm: VmIdentity, *names: str, undo: bool = True) -> RegisterTarget:
    return RegisterTarget(
        **world.head(StepName.UNDO_REGISTER_TARGET),
        target=vm,
        request=REQUEST,
        final_name="home",
        back=undo,
        attest_off=names,
    )


@pytest.mark.parametrize("how", ["site", "host"])
def test_a_name_does_not_keep_service_away_from_dr_if_somebody_answers(
    world: World, made: VmIdentity, how: str
) -> None:
    away(world, made, how)

    with pytest.raises(ApplicationError, match=f"attest_off with '{made.ref}'"):
        world.run("register_target", register(world, made))
    for _ in range(2):
        done = world.run("register_target", register(world, made, "home"))
        assert "declared it to be off" in done.evidence

    back(world, made)
    done = world.run("register_target", register(world, made, "home"))
    assert "disconnected" in done.evidence


def test_on_the_way_forward_nobody_can_answer_for_it(world: World, made: VmIdentity) -> None:
    away(world, made, "site")

    with pytest.raises(ApplicationError):
        world.run("register_target", register(world, made, "home", undo=False))


def test_one_that_ran_although_somebody_answered_for_it_is_told_when_it_is_deleted(
    world: World, made: VmIdentity
) -> None:
    view = world.production.vm(made).view()
    plan = RunPlan(
        replica=world.replica,
        target=made,
        pairs=(),
        replica_power=PowerState.ON,
        target_power=PowerState.OFF,
        replica_tracking=False,
        target_tracking=False,
    )
    argument = DeleteTarget(
        **world.head(StepName.UNDO_CREATE_TARGET),
        site="production",
        target=made,
        replica=world.replica,
        request=REQUEST,
        plan=plan,
        files=tuple(disk.file for disk in view.disks),
        accept_not_restored=True,
    )
    away(world, made, "host")
    left = world.run("delete_target", argument)
    assert "is left where it is" in left.evidence
    back(world, made)

    done = world.run("delete_target", argument)

    assert done.alarm.startswith("SPLIT_BRAIN")
    assert world.production.vm(made).power is PowerState.OFF
