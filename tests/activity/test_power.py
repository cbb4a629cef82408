"""Powering off and on: every way, twice, and after a lost reply."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import (
    CarryOverHardware,
    PowerOff,
    PowerOn,
    PowerOnResult,
    RestoreTarget,
    Settle,
    StayedOff,
)
from failback.contracts.plan import Carry
from failback.contracts.words import GuestTimeoutPolicy, PowerOffWay, PowerState, StepName
from failback.errors import SiteUnreachable
from tests.activity.world import World

STEP = StepName.POWER_OFF_REPLICA
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def off(world: World, **more: object) -> PowerOff:
    return PowerOff.model_validate({**world.head(STEP), "vm": world.replica, **more})


def on(world: World, **more: object) -> PowerOn:
    fields = {**world.head(StepName.POWER_ON_TARGET), "vm": world.target}
    return PowerOn.model_validate({**fields, "must_be_off": (world.replica,), **more})


def test_a_guest_with_tools_is_shut_down_and_a_repeat_finds_it_off(world: World) -> None:
    first = world.run("power_off", off(world))
    second = world.run("power_off", off(world))

    assert first.way is PowerOffWay.GUEST_SHUTDOWN
    assert second.way is PowerOffWay.ALREADY_OFF
    assert first.power_mark == second.power_mark is not None
    assert world.dr.calls.count("power_off") == 0


def test_a_guest_without_tools_is_powered_off_hard(world: World) -> None:
    world.dr.vm(world.replica).tools = False

    assert world.run("power_off", off(world)).way is PowerOffWay.HARD


def test_a_guest_that_ignores_the_shutdown_is_forced_after_the_timeout(world: World) -> None:
    world.dr.vm(world.replica).ignores_shutdown = True

    result = world.run("power_off", off(world, guest_timeout=timedelta(seconds=0.2)))

    assert result.way is PowerOffWay.HARD
    assert "did not shut down within" in result.evidence


def test_the_guest_timeout_counts_from_the_first_attempt(world: World) -> None:
    world.dr.vm(world.replica).ignores_shutdown = True
    argument = off(world, guest_timeout=timedelta(hours=1), on_guest_timeout="stop")
    key = (argument.run.run_id, f"{STEP}/guest", f"{world.replica} test-run-1000077")
    first = world.catalog.step_intent(*key, mark="", at=LONG_AGO)
    assert first == LONG_AGO

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", argument, activity_id="1000077", attempt=2)

    assert caught.value.type == "GuestShutdownTimeout"
    assert caught.value.non_retryable
    assert world.dr.vm(world.replica).power is PowerState.ON


@pytest.mark.parametrize("policy", [GuestTimeoutPolicy.STOP, GuestTimeoutPolicy.UNDO])
def test_other_policies_leave_the_guest_running(world: World, policy: GuestTimeoutPolicy) -> None:
    world.dr.vm(world.replica).ignores_shutdown = True
    argument = off(world, guest_timeout=timedelta(seconds=0.1), on_guest_timeout=policy)

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", argument)

    assert caught.value.type == "GuestShutdownTimeout"
    assert world.dr.vm(world.replica).power is PowerState.ON


def test_a_suspended_vm_needs_consent(world: World) -> None:
    world.dr.vm(world.replica).power = PowerState.SUSPENDED

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", off(world))
    result = world.run("power_off", off(world, accept_suspended=True))

    assert caught.value.type == "ConsentMissing"
    assert (result.was, result.way) == (PowerState.SUSPENDED, PowerOffWay.HARD)


@pytest.mark.parametrize("applied", [True, False])
def test_a_lost_reply_of_the_shutdown_is_survived(world: World, applied: bool) -> None:
    world.dr.fail("shut_down_guest", SiteUnreachable("The wire was cut."), applied=applied)

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", off(world), activity_id="1000005")
    result = world.run("power_off", off(world), activity_id="1000005", attempt=2)

    assert caught.value.type == "SiteUnreachable"
    assert not caught.value.non_retryable
    assert world.dr.vm(world.replica).power is PowerState.OFF
    expected = PowerOffWay.ALREADY_OFF if applied else PowerOffWay.GUEST_SHUTDOWN
    assert result.way is expected


def test_nothing_is_powered_on_while_the_other_copy_runs(world: World) -> None:
    with pytest.raises(ApplicationError) as caught:
        world.run("power_on", on(world))

    assert caught.value.type == "SplitBrain"
    assert caught.value.non_retryable
    assert world.production.vm(world.target).power is PowerState.OFF


def test_power_on_twice_is_one_power_on(world: World) -> None:
    world.dr.vm(world.replica).power = PowerState.OFF

    first: PowerOnResult = world.run("power_on", on(world))
    second: PowerOnResult = world.run("power_on", on(world))

    assert "is powered on" in first.evidence
    assert "on already" in second.evidence
    assert world.production.vm(world.target).power_ons == 1


def unused(world: World) -> StayedOff:
    """The replica, off, as it was protected."""
    world.dr.vm(world.replica).turn(PowerState.OFF)
    mark = world.dr.power_mark(world.replica)
    assert mark is not None
    return StayedOff(vm=world.replica, power_mark=mark)


def test_production_does_not_start_without_what_the_replica_wrote_since(world: World) -> None:
    argument = on(world, unused=unused(world))
    for power in (PowerState.ON, PowerState.OFF):
        world.dr.vm(world.replica).turn(power)

    with pytest.raises(ApplicationError) as caught:
        world.run("power_on", argument)

    assert (caught.value.type, caught.value.non_retryable) == ("ReplicaUsed", True)
    assert "replica_content" in caught.value.message
    assert world.production.vm(world.target).power is PowerState.OFF


def test_a_replica_that_stayed_off_does_not_keep_production_from_starting(world: World) -> None:
    world.run("power_on", on(world, unused=unused(world)))

    assert world.production.vm(world.target).power is PowerState.ON


def test_where_production_runs_already_people_are_told_what_the_replica_may_hold(
    world: World,
) -> None:
    argument = on(world, unused=unused(world))
    world.run("power_on", argument)
    for power in (PowerState.ON, PowerState.OFF):
        world.dr.vm(world.replica).turn(power)

    again = world.run("power_on", argument)

    assert "was powered on after its failback protective snapshot" in again.alarm
    assert [alarm.code for alarm in world.catalog.alarms("run-1")] == ["REPLICA_USED"]


def test_a_replica_whose_power_ons_cannot_be_read_any_more_is_a_doubt(world: World) -> None:
    argument = on(world, unused=unused(world))
    world.dr.tells_power_ons = False

    with pytest.raises(ApplicationError, match="cannot be read any more") as caught:
        world.run("power_on", argument)

    assert caught.value.type == "ReplicaUsed"


def test_a_replica_somebody_answers_for_is_not_asked_for_its_power_ons(world: World) -> None:
    argument = on(world, unused=unused(world), attest_off=("web01-replica",))
    world.dr.down = True

    world.run("power_on", argument)

    assert world.production.vm(world.target).power is PowerState.ON


def test_an_unreachable_other_site_stops_the_power_on_until_somebody_attests(world: World) -> None:
    world.dr.down = True

    with pytest.raises(ApplicationError) as caught:
        world.run("power_on", on(world))
    assert caught.value.type == "SiteUnreachable"
    assert "attest_off" in caught.value.message
    assert world.production.vm(world.target).power is PowerState.OFF

    world.run("power_on", on(world, attest_off=("web01-replica",)))
    assert world.production.vm(world.target).power is PowerState.ON


def test_an_attestation_does_not_outweigh_what_can_be_read(world: World) -> None:
    with pytest.raises(ApplicationError) as caught:
        world.run("power_on", on(world, attest_off=("web01-replica",)))

    assert caught.value.type == "SplitBrain"
    assert caught.value.details[0]["evidence"]["runs"] == world.replica.ref


def test_an_attested_target_lets_undo_go_on_without_its_site(world: World) -> None:
    world.production.down = True
    attest = {"attest_off": ("web01",)}

    result = world.run("power_off", off(world, vm=world.target, **attest))
    world.run(
        "settle",
        Settle.model_validate(
            {**world.head(StepName.SETTLE), "vms": (world.target, world.replica), **attest}
        ),
    )

    assert result.way is PowerOffWay.ATTESTED
    assert result.was is PowerState.UNKNOWN


DARK = SiteUnreachable("The host is not connected.", "", fault="HostNotConnected")


@pytest.mark.parametrize(
    ("power", "code"),
    [(PowerState.UNKNOWN, "VmDisconnected"), (PowerState.ON, "SiteUnreachable")],
)
def test_a_vm_whose_host_is_gone_is_answered_for_although_its_vcenter_answers(
    world: World, power: PowerState, code: str
) -> None:
    """What the vCenter remembers of the host may be ON for a while."""
    world.production.vm(world.target).changes = {"power": power}
    world.production.fail("power_off", DARK, times=2)

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", off(world, vm=world.target, hard=True))
    assert caught.value.type == code
    attest = off(world, vm=world.target, hard=True, attest_off=(world.target.ref,))
    result = world.run("power_off", attest)

    assert (result.was, result.way) == (PowerState.UNKNOWN, PowerOffWay.ATTESTED)


def test_a_power_state_that_nobody_can_tell_is_answered_for_by_a_person(world: World) -> None:
    world.dr.vm(world.replica).turn(PowerState.OFF)
    world.dr.vm(world.replica).changes = {"power": PowerState.UNKNOWN}

    with pytest.raises(ApplicationError, match=f"attest_off with '{world.replica.ref}'") as caught:
        world.run("power_on", on(world))
    assert caught.value.type == "VmDisconnected"
    world.run("power_on", on(world, attest_off=(world.replica.ref,)))

    assert world.production.vm(world.target).power is PowerState.ON


@pytest.mark.parametrize("tools", [True, False])
def test_a_vm_that_was_seen_to_run_is_not_taken_for_off_when_its_site_goes_away(
    world: World, tools: bool
) -> None:
    """The declaration is disproved, and the next one has to be a new one."""
    world.dr.vm(world.replica).tools = tools
    call = "shut_down_guest" if tools else "power_off"
    world.dr.fail(call, SiteUnreachable("The wire was cut."))

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", off(world, attest_off=(world.replica.ref,)))

    assert (caught.value.type, caught.value.non_retryable) == ("SplitBrain", True)
    assert caught.value.details[0]["evidence"]["runs"] == world.replica.ref


def test_a_target_whose_power_nobody_can_tell_is_no_second_copy(world: World) -> None:
    world.production.vm(world.target).changes = {"power": PowerState.UNKNOWN}
    restore = RestoreTarget(
        **world.head(StepName.UNDO_PROTECT_TARGET),
        target=world.target,
        snapshot="snapshot-1",
        tracking_was=False,
    )

    with pytest.raises(ApplicationError) as caught:
        world.run("restore_target", restore)

    assert caught.value.type == "VmDisconnected"
    assert world.catalog.alarms("run-1") == ()


def test_an_attempt_that_begins_late_does_not_power_off_the_serving_replica(world: World) -> None:
    world.run("power_off", off(world), activity_id="1000009", attempt=2)
    back = on(world, vm=world.replica, must_be_off=(world.target,))
    world.run("power_on", back, activity_id="1000020")

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", off(world), activity_id="1000009", attempt=1)

    assert caught.value.type == "LeaseLost"
    assert not caught.value.non_retryable
    assert world.dr.vm(world.replica).power is PowerState.ON
    assert all("1000020" not in str(step.last_error) for step in world.catalog.steps("run-1"))


def test_an_attempt_that_begins_after_its_run_has_ended_changes_nothing(world: World) -> None:
    world.catalog.close_refused("run-1")

    with pytest.raises(ApplicationError) as caught:
        world.run("power_off", off(world), workflow_run_id="an older execution")

    assert caught.value.type == "LeaseLost"
    assert world.dr.vm(world.replica).power is PowerState.ON


def test_a_target_that_was_deleted_does_not_keep_the_service_away_from_dr(world: World) -> None:
    """Under another reference it may run, so a person has to answer for it."""
    del world.production.vms[world.target.moref]
    world.dr.vm(world.replica).turn(PowerState.OFF)
    attest = {"attest_off": ("web01",)}
    settle = {**world.head(StepName.SETTLE), "vms": (world.target, world.replica)}
    power_on = {"vm": world.replica, "must_be_off": (world.target,)}
    carry = CarryOverHardware(
        **world.head(StepName.UNDO_CARRY_OVER),
        target=world.target,
        carry=Carry(cpus=2, memory_mb=4, cpus_before=1, memory_mb_before=4),
        back=True,
        reverted_next=False,
    )
    for name, argument in (
        ("settle", Settle.model_validate(settle)),
        ("power_off", off(world, vm=world.target)),
        ("power_on", on(world, **power_on)),
    ):
        with pytest.raises(ApplicationError, match="attest_off") as caught:
            world.run(name, argument)
        assert (caught.value.type, caught.value.non_retryable) == ("VmNotFound", True)

    world.run("settle", Settle.model_validate({**settle, **attest}))
    assert world.run("power_off", off(world, vm=world.target, **attest)).way is PowerOffWay.ATTESTED
    world.run("power_on", on(world, **power_on, **attest))
    world.run("carry_over", carry)

    assert world.dr.vm(world.replica).power is PowerState.ON


def test_a_target_that_was_deleted_is_not_restored_only_if_that_is_accepted(world: World) -> None:
    restore = RestoreTarget(
        **world.head(StepName.UNDO_PROTECT_TARGET),
        target=world.target,
        snapshot="snapshot-1",
        tracking_was=False,
    )
    del world.production.vms[world.target.moref]

    with pytest.raises(ApplicationError, match="accept_target_not_restored"):
        world.run("restore_target", restore)
    accepted = restore.model_copy(update={"accept_not_restored": True})
    assert "accepted" in world.run("restore_target", accepted).evidence
