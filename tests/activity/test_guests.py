"""An undo waits for the guest shutdown that was sent: nobody else would power the VM on again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import Done, Settle
from failback.contracts.words import PowerState, StepName
from failback.errors import SiteUnreachable
from tests.activity.test_power import off, on
from tests.activity.world import World

HOUR, NOW = timedelta(hours=1), timedelta(0)


def asked(world: World) -> None:
    """The replica's guest is asked to shut down, and the attempt ends before it is off."""
    world.dr.fail("read", SiteUnreachable("The wire was cut."), nth=2)
    with pytest.raises(ApplicationError):
        world.run("power_off", off(world))
    assert world.dr.calls.count("shut_down_guest") == 1
    assert world.dr.vm(world.replica).power is PowerState.ON


def settle(world: World, timeout: timedelta = HOUR, **more: Any) -> Done:
    argument = Settle(
        **world.head(StepName.SETTLE),
        vms=(world.target, world.replica),
        guest_timeout=timeout,
        **more,
    )
    result: Done = world.run("settle", argument)
    return result


def test_a_guest_that_was_asked_to_shut_down_is_waited_for_and_powered_on_again(
    world: World,
) -> None:
    vm = world.dr.vm(world.replica)
    vm.shutdown_looks = 3
    asked(world)

    first, second = settle(world), settle(world)

    assert "shut down, as it was asked to" in first.evidence
    assert second.evidence == "nothing was under way"
    back = on(world, vm=world.replica, must_be_off=(world.target,))
    assert "is powered on" in world.run("power_on", back).evidence
    assert (vm.power, vm.stopping) == (PowerState.ON, None)


def test_a_guest_that_hangs_is_powered_off_hard_where_it_is_powered_on_next(world: World) -> None:
    world.dr.vm(world.replica).ignores_shutdown = True
    asked(world)

    done = settle(world, NOW, may_force=(world.replica,))

    assert "powered off hard" in done.evidence and not done.alarm
    assert world.dr.vm(world.replica).power is PowerState.OFF


def test_a_guest_that_hangs_and_may_not_be_forced_goes_on_with_an_alarm(world: World) -> None:
    world.dr.vm(world.replica).ignores_shutdown = True
    asked(world)

    done = settle(world, NOW)

    assert "It may still go down" in done.alarm
    assert [alarm.code for alarm in world.catalog.alarms("run-1")] == ["GUEST_MAY_STOP"]
    assert world.dr.vm(world.replica).power is PowerState.ON


def test_a_vm_that_somebody_started_after_its_guest_had_gone_is_left_alone(world: World) -> None:
    world.dr.vm(world.replica).shutdown_looks = 1
    asked(world)
    for power in (PowerState.OFF, PowerState.ON):
        world.dr.vm(world.replica).turn(power)

    done = settle(world, NOW, may_force=(world.replica,))

    assert (done.evidence, done.alarm) == ("nothing was under way", "")
    assert world.dr.vm(world.replica).power is PowerState.ON


def test_a_shutdown_that_came_to_its_end_is_not_waited_for(world: World) -> None:
    booted = world.dr.vm(world.replica).booted_at
    world.run("power_off", off(world))
    vm = world.dr.vm(world.replica)
    vm.turn(PowerState.ON)
    # Whatever the site says of its start.
    vm.booted_at = booted

    assert settle(world, NOW, may_force=(world.replica,)).evidence == "nothing was under way"
    assert vm.power is PowerState.ON
