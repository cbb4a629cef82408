"""Limits of a run while its disks are copied: bandwidth, hours, free room."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities import limits as module
from activities.limits import Conditions, RunThrottles
from activities.registry import mover
from activities.room import Reserve, RoomWatch
from failback.contracts.operations import SetLimits, TransferProgress, TransportChanges
from failback.contracts.placement import DatastoreView
from failback.contracts.policies import Limits, TransferWindow
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Phase, StepName
from failback.disks.throttle import Throttle
from failback.errors import NoRoomSoon, SiteUnreachable
from failback.hypervisor.testing import FakeSite
from tests.activity.test_transfer import files, plan
from tests.activity.world import MIB, RUN, World

NIGHT = TransferWindow(begin="22:00", end="06:00")
DAY = TransferWindow(begin="08:00", end="18:30")
GIB = 1 << 30


def set_limits(world: World, limits: Limits, **info: Any) -> Any:
    argument = SetLimits(run=RUN, step=StepName.ADJUST, limits=limits)
    return world.run("set_limits", argument, **info)


def closed_now() -> TransferWindow:
    """An hour that begins in an hour."""
    begin = datetime.now(UTC) + timedelta(hours=1)
    return TransferWindow(begin=f"{begin:%H:%M}", end=f"{begin + timedelta(hours=1):%H:%M}")


@pytest.mark.parametrize(
    ("window", "clock", "minutes"),
    [
        (NIGHT, "23:30", 0),
        (NIGHT, "05:59", 0),
        (NIGHT, "06:00", 16 * 60),
        (NIGHT, "21:59", 1),
        (NIGHT, "22:00", 0),
        (DAY, "18:29", 0),
        (DAY, "18:30", 13 * 60 + 30),
        (DAY, "00:00", 8 * 60),
        (TransferWindow(begin="07:00", end="07:00"), "12:00", 0),
    ],
)
def test_a_window_spans_midnight_and_ends_where_it_says(
    window: TransferWindow, clock: str, minutes: int
) -> None:
    at = datetime.fromisoformat(f"2026-03-01T{clock}:00+00:00")

    assert window.opens_in(at) == timedelta(minutes=minutes)


def test_a_window_is_in_utc_wherever_the_worker_is() -> None:
    at = datetime.fromisoformat("2026-03-01T23:30:00+05:00")

    assert NIGHT.opens_in(at) == timedelta(hours=3, minutes=30)


def test_limits_are_written_and_the_newest_scheduling_wins(world: World) -> None:
    first = set_limits(world, Limits(bandwidth_bytes_per_s=5), activity_id="2000002")
    set_limits(world, Limits(bandwidth_bytes_per_s=6, window=NIGHT), activity_id="2000003")

    with pytest.raises(ApplicationError) as caught:
        set_limits(world, Limits(bandwidth_bytes_per_s=7), activity_id="2000002", attempt=2)

    assert first.evidence == "limits: 5 bytes/s, at any time"
    assert caught.value.type == "LeaseLost"
    assert world.catalog.run_limits("run-1") == Limits(bandwidth_bytes_per_s=6, window=NIGHT)


def test_setting_limits_does_not_overtake_the_step_that_runs(world: World) -> None:
    epoch = world.catalog.take_lease("replica/web01", "a step")

    set_limits(world, Limits(bandwidth_bytes_per_s=5))

    world.catalog.check_lease("replica/web01", epoch)


@pytest.mark.parametrize("phase", [Phase.SYNCING, Phase.READY_TO_SWITCH])
def test_outside_its_hours_a_transfer_gives_its_slot_back_and_changes_nothing(
    world: World, phase: Phase
) -> None:
    argument = plan(world).model_copy(update={"phase": phase})
    set_limits(world, Limits(window=closed_now()))
    source, target = files(world)
    before = target.read_bytes()
    environment, beats = world.environment(), list[Any]()
    environment.on_heartbeat = lambda *details: beats.extend(details)

    with pytest.raises(ApplicationError) as caught:
        environment.run(world.activities["transport_changes"], argument)

    error = caught.value
    assert (error.type, error.non_retryable) == ("WindowClosed", False)
    assert error.category is ApplicationErrorCategory.BENIGN
    assert error.next_retry_delay == module.ASK_AGAIN
    assert "UTC" in error.message
    assert isinstance(beats[-1], TransferProgress)
    assert beats[-1].doing == "window"
    assert target.read_bytes() == before

    set_limits(world, Limits())
    world.run("transport_changes", argument)
    assert source.read_bytes() == target.read_bytes()


def test_the_switch_does_not_wait_for_a_window(world: World) -> None:
    argument = plan(world).model_copy(update={"phase": Phase.SWITCHING})
    set_limits(world, Limits(window=closed_now()))

    assert world.run("transport_changes", argument).different_bytes > 0


def test_the_limit_of_a_run_holds_and_a_change_of_it_within_two_seconds(world: World) -> None:
    argument = plan(world)
    # At this rate the disk would take more than half an hour.
    set_limits(world, Limits(bandwidth_bytes_per_s=1024))
    done: list[Any] = []
    copying = threading.Thread(target=lambda: done.append(world.run("transport_changes", argument)))
    copying.start()
    copying.join(1.0)
    assert copying.is_alive()

    set_limits(world, Limits())
    copying.join(60)

    source, target = files(world)
    assert done and source.read_bytes() == target.read_bytes()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def conditions(world: World, own: Throttle, worker: Throttle | None, clock: Clock) -> Conditions:
    call = plan(world)
    return Conditions(world.catalog, call, own, worker, None, None, clock)  # type: ignore[arg-type]


def test_limits_are_looked_at_every_two_seconds(world: World) -> None:
    clock = Clock()
    own = Throttle(None, clock=clock)
    made = conditions(world, own, None, clock)
    made.check()
    set_limits(world, Limits(bandwidth_bytes_per_s=77))

    clock.now += 1.9
    made.check()
    early = own.limit_bytes_s
    clock.now += 0.2
    made.check()

    assert (early, own.limit_bytes_s) == (None, 77)


def test_both_limits_hold_and_neither_is_charged_when_the_other_refuses(world: World) -> None:
    clock = Clock()
    worker, own = Throttle(1000, clock=clock), Throttle(10, clock=clock)
    pace = conditions(world, own, worker, clock).throttle

    assert pace.try_take(100) == 0
    assert pace.try_take(100) > 9
    assert worker.try_take(100) == 0


def test_disks_of_one_run_share_a_throttle_and_runs_do_not() -> None:
    throttles = RunThrottles()

    with throttles.of("a") as one, throttles.of("a") as two, throttles.of("b") as other:
        assert one is two
        assert one is not other
    with throttles.of("a") as later:
        assert later is not one


def store(name: str, free: int, capacity: int = 1000 * GIB) -> DatastoreView:
    return DatastoreView(moref=name, name=name, capacity_bytes=capacity, free_bytes=free)


def test_the_reserve_is_the_larger_of_both_and_an_unknown_size_is_no_alarm() -> None:
    reserve = Reserve()

    assert reserve.of(store("a", 0)) == 50 * GIB
    assert reserve.of(store("a", 0, 100 * GIB)) == 10 * GIB
    assert reserve.short([store("a", 51 * GIB), store("b", 0, 0)]) is None
    assert reserve.short([store("a", 51 * GIB), store("b", 49 * GIB)]) == store("b", 49 * GIB)


def on_stores(site: FakeSite, vm: VmIdentity, *stores: DatastoreView) -> None:
    """The VM's disk lies on the first of these datastores."""
    found = site.vm(vm)
    found.disks[0].datastore = stores[0].moref
    found.changes["datastores"] = stores


def with_reserve(world: World) -> Callable[[TransportChanges], Any]:
    """The transport of a worker that looks at the room every 50 ms."""
    disks = dataclasses.replace(
        world.rooms.disks, sites=world.sites, reserve=Reserve(GIB, 5.0), room_interval_s=0.05
    )
    world.activities |= {
        f.__name__: f for f in mover(dataclasses.replace(world.rooms, disks=disks))
    }
    return lambda argument: world.run("transport_changes", argument)


@pytest.mark.parametrize("side", ["target", "replica"])
def test_a_datastore_below_the_reserve_asks_a_person_and_a_retry_goes_on(
    world: World, side: str
) -> None:
    argument, transport = plan(world), with_reserve(world)
    set_limits(world, Limits(bandwidth_bytes_per_s=MIB // 8))
    site, vm = (world.production, world.target) if side == "target" else (world.dr, world.replica)
    on_stores(site, vm, store("ds", 40 * GIB), store("iso", 0))

    with pytest.raises(ApplicationError) as caught:
        transport(argument)

    assert caught.value.type == "NoRoomSoon"
    assert caught.value.non_retryable
    assert caught.value.message.startswith("NO_ROOM_SOON: datastore ds has 40.00 GiB free")
    on_stores(site, vm, store("ds", 60 * GIB), store("iso", 0))
    set_limits(world, Limits())
    transport(argument)
    source, target = files(world)
    assert source.read_bytes() == target.read_bytes()


def test_room_that_only_seemed_short_is_looked_at_anew(world: World) -> None:
    argument, transport = plan(world), with_reserve(world)
    on_stores(world.production, world.target, store("ds", GIB))
    world.production.vm(world.target).after_refresh = {"datastores": (store("ds", 99 * GIB),)}
    set_limits(world, Limits(bandwidth_bytes_per_s=4 * MIB))

    transport(argument)

    assert "refresh_datastores" in world.production.calls


def test_a_site_that_does_not_answer_does_not_stop_a_transfer(world: World) -> None:
    argument = plan(world)
    world.production.fail("find", SiteUnreachable("The wire was cut."), times=3)
    on_stores(world.production, world.target, store("ds", 0))

    with RoomWatch(world.sites, Reserve(), argument, 0.01) as watch:
        watch.check()
        with pytest.raises(NoRoomSoon):
            until(watch.check)


def until(check: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        check()
        time.sleep(0.01)
    raise AssertionError("nothing was raised in a minute")
