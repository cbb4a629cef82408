"""A VM that its site shows without knowing: its host is away, and it may run all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import (
    CheckDrift,
    CloseRun,
    PowerOff,
    PowerOn,
    Preflight,
    PreflightResult,
    Probe,
    RestoreReplica,
    RestoreTarget,
    SetReplicaState,
    SnapshotReplica,
    TargetGuard,
)
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import (
    Outcome,
    PowerOffWay,
    PowerState,
    ReplicaState,
    StepName,
)
from tests.activity.test_inventory import guard, preflight
from tests.activity.world import MIB, World, random_bytes, write_disk

STATES = ("disconnected", "inaccessible", "orphaned", "invalid")


@pytest.fixture(params=STATES)
def lost(world: World, request: pytest.FixtureRequest) -> VmIdentity:
    """The old source VM: off when its host was last heard of."""
    vm = world.production.add_vm("old", [bytearray(512)], PowerState.OFF)
    lose(world, vm, request.param)
    world.dr.vm(world.replica).turn(PowerState.OFF)
    return vm


def lose(world: World, vm: VmIdentity, state: str = "disconnected") -> None:
    world.sites.site(vm.site).vm(vm).changes["connection_state"] = state


def off(world: World, vm: VmIdentity, *names: str) -> PowerOff:
    return PowerOff(**world.head(StepName.POWER_OFF_SOURCE), vm=vm, attest_off=names)


def on(world: World, vm: VmIdentity, *names: str) -> PowerOn:
    head = world.head(StepName.POWER_ON_TARGET)
    return PowerOn(**head, vm=world.target, must_be_off=(vm,), attest_off=names)


def commit(world: World, vm: VmIdentity, *names: str, field: str = "must_be_off") -> CloseRun:
    mark = SetReplicaState(
        **world.head(StepName.MARK_FAILBACK),
        to=ReplicaState.FAILBACK,
        allowed_from=(ReplicaState.FAILOVER, ReplicaState.FAILBACK),
    )
    world.run("set_replica_state", mark)
    return CloseRun.model_validate(
        {
            **world.head(StepName.COMMIT),
            "outcome": Outcome.COMMITTED,
            "replica": world.replica,
            "attest_off": names,
            field: (vm,),
        }
    )


def power_known(world: World, vm: VmIdentity, *names: str) -> CloseRun:
    return commit(world, vm, *names, field="power_known")


@pytest.mark.parametrize(
    ("name", "argument"),
    [("power_off", off), ("power_on", on), ("close_run", commit), ("close_run", power_known)],
)
def test_it_counts_as_off_only_when_somebody_answers_for_it(
    world: World, lost: VmIdentity, name: str, argument: Callable[..., Any]
) -> None:
    with pytest.raises(ApplicationError, match=f"attest_off with '{lost.ref}'") as caught:
        world.run(name, argument(world, lost))
    assert caught.value.type == "VmDisconnected"
    # A host comes back by itself, and the run goes on then.
    assert caught.value.details[0]["unreachable"]

    result = world.run(name, argument(world, lost, "old"))
    assert name != "power_off" or result.way is PowerOffWay.ATTESTED


def test_an_attestation_does_not_outweigh_a_host_that_is_back(
    world: World, lost: VmIdentity
) -> None:
    vm = world.production.vm(lost)
    vm.changes.clear()
    vm.turn(PowerState.ON)

    for name, argument in (("power_on", on), ("close_run", commit)):
        with pytest.raises(ApplicationError) as caught:
            world.run(name, argument(world, lost, "old"))
        assert caught.value.type == "SplitBrain"


@pytest.mark.parametrize("field", ["must_be_off", "power_known"])
def test_a_probe_does_not_take_it_for_known(world: World, lost: VmIdentity, field: str) -> None:
    fields = {**world.head(StepName.AWAIT_DECISION), "sites": ("production",), field: (lost,)}
    argument = Probe.model_validate(fields)

    assert world.run("probe", argument).reachable is False
    world.production.vm(lost).changes.clear()
    assert world.run("probe", argument).reachable is True


def test_a_replica_is_not_said_to_run_because_it_ran_once(world: World) -> None:
    lose(world, world.replica)
    argument = PowerOn(**world.head(StepName.UNDO_POWER_OFF_REPLICA), vm=world.replica)

    with pytest.raises(ApplicationError) as caught:
        world.run("power_on", argument)
    assert caught.value.type == "VmDisconnected"


def test_nothing_rests_on_a_target_or_replica_of_which_nobody_knows(world: World) -> None:
    world.dr.vm(world.replica).turn(PowerState.OFF)
    head = world.head(StepName.PROTECT_REPLICA)
    protective = SnapshotReplica(**head, replica=world.replica, purpose="protective")
    kept = world.run("snapshot_replica", protective)
    undo = RestoreReplica(
        **world.head(StepName.UNDO_PROTECT_REPLICA),
        replica=world.replica,
        snapshot=kept.snapshot,
        power_mark=kept.power_mark,
    )
    held: TargetGuard = guard(world)
    plan = preflight(visible(world)).plan
    assert plan is not None
    drift = CheckDrift(
        **world.head(StepName.CHECK_DRIFT), plan=plan, guard=held.model_copy(update=files(world))
    )
    back = RestoreTarget(
        **world.head(StepName.UNDO_PROTECT_TARGET), target=world.target, protected=False
    )
    lose(world, world.target)
    lose(world, world.replica)

    for name, argument in (
        ("snapshot_replica", protective),
        ("restore_replica", undo),
        ("check_drift", drift),
        ("restore_target", back),
    ):
        with pytest.raises(ApplicationError) as caught:
            world.run(name, argument)
        assert caught.value.type == "VmDisconnected", name
    assert world.catalog.alarms("run-1") == ()


def files(world: World) -> dict[str, tuple[str, ...]]:
    return {"files": tuple(disk.file for disk in world.production.vm(world.target).disks)}


def visible(world: World) -> World:
    """Disks that the mover can see."""
    for site in (world.production, world.dr):
        for vm in site.vms.values():
            for disk in vm.disks:
                name = f"{vm.identity.name}-{disk.key}"
                disk.file = write_disk(world.root / site.name, name, random_bytes(1, MIB))
    return world


def recovered(world: World, **more: object) -> PreflightResult:
    """Preflight of a run that another VM takes the source VM's place in."""
    world.production.add_vm("restored", [bytearray(MIB)], PowerState.OFF)
    visible(world)
    request = {"replica": "web01", "destination": "recovered", "recovered": "production:restored"}
    argument = Preflight(
        **world.head(StepName.PREFLIGHT), request=StartRequest.model_validate(request | more)
    )
    result: PreflightResult = world.run("preflight", argument, attempt=3)
    return result


@pytest.mark.parametrize("state", [*STATES, "another VM"])
def test_an_old_source_of_which_nobody_knows_is_not_taken_for_gone(
    world: World, state: str
) -> None:
    old = world.production.vm(world.target)
    old.turn(PowerState.ON)
    if state in STATES:
        lose(world, world.target, state)
    else:
        old.identity = old.identity.model_copy(update={"instance_uuid": "another"})

    result = recovered(world)

    assert [finding.code for finding in result.findings] == ["OLD_SOURCE_UNKNOWN"]
    assert state in result.findings[0].message
    assert result.plan is not None
    assert result.plan.old_source_there


def test_an_old_source_that_is_not_in_the_inventory_is_gone(world: World) -> None:
    del world.production.vms[world.target.moref]

    result = recovered(world)

    assert result.findings == ()
    assert result.plan is not None
    assert not result.plan.old_source_there


@pytest.mark.parametrize("power", [PowerState.ON, PowerState.SUSPENDED])
def test_an_old_source_that_must_be_left_alone_is_not_powered_off(
    world: World, power: PowerState
) -> None:
    vm = world.production.add_vm("old", [bytearray(512)], power)
    argument = off(world, vm).model_copy(update={"only_look": True})

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", argument)
    assert caught.value.type == "ConsentMissing"
    assert world.production.vm(vm).power is power

    world.production.vm(vm).turn(PowerState.OFF)
    assert world.run("power_off", argument).way is PowerOffWay.ALREADY_OFF
