"""The watch while a decision is awaited: power, probes, and what our snapshots cost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.edge import bind
from activities.room import Reserve
from activities.watch import OLD, WatchActivities
from failback.contracts.operations import WatchDecision, WatchProgress, WatchResult
from failback.contracts.placement import DatastoreView
from failback.contracts.policies import WorkloadProbe
from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState, StepName
from failback.errors import SiteUnreachable
from failback.hooks.calls import Calls, HookCommand
from failback.hypervisor.testing import FakeSite
from tests.activity.world import World
from tests.unit.hooks.test_web import Receiver, receiver
from workflows import operations as op

GIB = 1 << 30


class Nap:
    """The watch's sleep: short, and after so many of them the test ends it with a breach."""

    def __init__(self, world: World, rounds: int) -> None:
        self.world, self.left, self.done = world, rounds, threading.Event()

    def __call__(self, _: float) -> None:
        self.left -= 1
        if self.left <= 0:
            self.world.dr.vm(self.world.replica).power = PowerState.ON
        self.done.wait(0.01)


@pytest.fixture
def watched(world: World) -> World:
    """After the switch: the replica off, the target on."""
    world.dr.vm(world.replica).turn(PowerState.OFF)
    world.production.vm(world.target).turn(PowerState.ON)
    return world


def watch(
    world: World,
    *probes: WorkloadProbe,
    rounds: int = 6000,
    calls: Calls | None = None,
    later: timedelta = timedelta(0),
    beats: list[Any] | None = None,
    count_from: datetime | None = None,
    attest_off: tuple[str, ...] = (),
    **info: Any,
) -> WatchResult:
    activities = WatchActivities(
        world.sites,
        world.catalog,
        calls or Calls(),
        Reserve(GIB, 5.0),
        Nap(world, rounds),
        lambda: datetime.now(UTC) + later,
    )
    bound = bind(
        op.WATCH_DECISION, activities.watch_decision, world.catalog, recorded=False, leased=False
    )
    argument = WatchDecision(
        **world.head(StepName.AWAIT_DECISION),
        must_be_off=(world.replica,),
        target=world.target,
        interval=timedelta(seconds=0.05),
        probes=probes,
        probes_count_from=count_from,
        attest_off=attest_off,
    )
    info.setdefault("scheduled_time", datetime.now(UTC))
    environment = world.environment(**info)
    if beats is not None:
        environment.on_heartbeat = lambda *details: beats.extend(details)
    result: WatchResult = environment.run(bound, argument)
    return result


def probe(kind: str, **more: Any) -> WorkloadProbe:
    given = {"kind": kind, "interval": timedelta(seconds=0.05), "timeout": timedelta(seconds=5)}
    return WorkloadProbe.model_validate(given | more)


@pytest.fixture
def listening() -> Iterator[tuple[socket.socket, str]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


def test_a_copy_that_runs_is_told_at_once(watched: World) -> None:
    result = watch(watched, rounds=3)

    assert result.code == "SPLIT_BRAIN"
    assert "web01-replica" in result.alarm
    assert [alarm.code for alarm in watched.catalog.alarms("run-1")] == ["SPLIT_BRAIN"]


def test_a_site_that_does_not_answer_is_no_breach(watched: World) -> None:
    watched.dr.fail("read", SiteUnreachable("The wire was cut."), times=2)

    assert watch(watched, rounds=30).code == "SPLIT_BRAIN"
    assert watched.dr.calls.count("read") > 2


@pytest.mark.parametrize("power", [PowerState.OFF, PowerState.ON])
def test_a_copy_of_which_nobody_knows_whether_it_runs_is_told(
    watched: World, power: PowerState
) -> None:
    vm = watched.dr.vm(watched.replica)
    vm.power, vm.changes["connection_state"] = power, "disconnected"

    result = watch(watched)

    assert result.code == "SPLIT_BRAIN"
    assert "web01-replica (dr:vm-101) is disconnected" in result.alarm


def test_a_copy_that_somebody_answers_for_hides_nothing_else(watched: World) -> None:
    watched.dr.vm(watched.replica).changes["connection_state"] = "disconnected"
    watched.production.vm(watched.target).tools = False

    result = watch(watched, probe("tools"), attest_off=("web01-replica",))

    assert result.code == "PROBE_FAILED"


def test_tools_that_ran_when_their_host_was_last_heard_of_hold_nothing(watched: World) -> None:
    watched.production.vm(watched.target).changes["connection_state"] = "disconnected"

    result = watch(watched, probe("tools"))

    assert result.code == "PROBE_FAILED"
    assert "is disconnected" in result.alarm


def test_probes_that_hold_end_nothing(watched: World, listening: tuple[socket.socket, str]) -> None:
    _, address = listening
    calls = Calls({"check": HookCommand(("/bin/sh", "-c", 'test "$FAILBACK_WHEN" = probe'))})

    with receiver() as port:
        result = watch(
            watched,
            probe("tcp", address=address),
            probe("http", address=f"http://127.0.0.1:{port}/302"),
            probe("tools"),
            probe("command", command="check"),
            calls=calls,
            rounds=60,
        )
        asked = len(Receiver.got)

    assert result.code == "SPLIT_BRAIN"
    assert asked > 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (probe("tcp", address="127.0.0.1:1"), "Probe tcp 127.0.0.1:1 failed: no connection"),
        (probe("tcp", address="nonsense"), "Probe tcp nonsense failed: no connection"),
        (probe("http", address="file:///etc/hosts"), "neither http:// nor https://"),
        (probe("http", address="http://127.0.0.1:1/"), "there was no answer"),
        (probe("tools"), "the guest tools of web01"),
        (probe("command", command="check"), "exit status 4"),
        (probe("command", command="none"), "no hook none"),
        (
            probe("command", command="hangs", timeout=timedelta(seconds=0.2)),
            "did not end within 0.2 s",
        ),
    ],
)
def test_a_probe_that_fails_ends_the_watch(watched: World, asked: WorkloadProbe, said: str) -> None:
    watched.production.vm(watched.target).tools = False
    calls = Calls(
        {
            "check": HookCommand(("/bin/sh", "-c", "echo the shop is closed; exit 4")),
            "hangs": HookCommand(("/bin/sleep", "600")),
        }
    )

    result = watch(watched, asked, calls=calls)

    assert result.code == "PROBE_FAILED"
    assert said in result.alarm
    assert [alarm.message for alarm in watched.catalog.alarms("run-1")] == [result.alarm]


def test_an_http_probe_wants_two_or_three_hundreds(watched: World) -> None:
    with receiver() as port:
        result = watch(watched, probe("http", address=f"http://127.0.0.1:{port}/503"))

    assert result.alarm.endswith("HTTP status 503")


def test_a_workload_that_boots_may_fail_and_is_asked_when_that_ends(watched: World) -> None:
    grace = datetime.now(UTC) + timedelta(seconds=0.5)
    rare = probe("tcp", address="127.0.0.1:1", interval=timedelta(hours=1))

    result = watch(watched, rare, count_from=grace)

    assert result.code == "PROBE_FAILED"
    assert datetime.now(UTC) >= grace


def test_a_probe_that_hangs_does_not_delay_the_watch_of_the_power_states(
    watched: World, listening: tuple[socket.socket, str]
) -> None:
    _, address = listening

    # It is connected and never answered.
    result = watch(
        watched,
        probe("http", address=f"http://{address}/", timeout=timedelta(seconds=60)),
        rounds=10,
    )

    assert result.code == "SPLIT_BRAIN"


def full(site: FakeSite, vm: VmIdentity, free: int) -> None:
    store = DatastoreView(moref="ds-1", name="ds", capacity_bytes=1000 * GIB, free_bytes=free)
    found = site.vm(vm)
    found.disks[0].datastore = "ds-1"
    found.changes["datastores"] = (store,)


def snapshot(world: World, *, run: str = "run-1") -> None:
    found = world.production.vm(world.target)
    found.freeze("snapshot-1", f"failback/{run}/target", run)


def test_a_datastore_that_fills_up_under_our_snapshot_is_told_once(watched: World) -> None:
    snapshot(watched)
    full(watched.production, watched.target, 40 * GIB)

    first = watch(watched)
    second = watch(watched, rounds=20)

    assert first.code == "SNAPSHOT_GROWS"
    assert "datastore ds has 40.00 GiB free" in first.alarm
    assert second.code == "SPLIT_BRAIN"


def test_an_old_snapshot_is_told_once_and_a_young_or_foreign_one_never(watched: World) -> None:
    snapshot(watched, run="run-0")
    assert watch(watched, rounds=10, later=OLD * 2).code == "SPLIT_BRAIN"
    watched.dr.vm(watched.replica).power = PowerState.OFF

    snapshot(watched)
    assert watch(watched, rounds=10).code == "SPLIT_BRAIN"
    watched.dr.vm(watched.replica).power = PowerState.OFF
    first = watch(watched, later=OLD)
    second = watch(watched, later=OLD, rounds=20)

    assert first.code == "SNAPSHOT_OLD"
    assert "72 hours" in first.alarm
    assert second.code == "SPLIT_BRAIN"


def test_an_alarm_that_its_attempt_did_not_live_to_tell_is_told_by_the_next(
    watched: World,
) -> None:
    snapshot(watched)
    scheduled = datetime.now(UTC)

    first = watch(watched, later=OLD, scheduled_time=scheduled)
    again = watch(watched, later=OLD, scheduled_time=scheduled, attempt=2)

    assert again == first


def test_age_size_and_growth_are_in_the_heartbeat(watched: World) -> None:
    snapshot(watched)
    full(watched.production, watched.target, 400 * GIB)
    beats: list[Any] = []

    watch(watched, rounds=40, beats=beats, heartbeat_timeout=timedelta(seconds=0.1))

    seen = beats[-1]
    assert isinstance(seen, WatchProgress)
    (look,) = seen.snapshots
    assert (look.name, look.free_bytes) == ("failback/run-1/target", 400 * GIB)
    assert look.created_at is not None


def test_the_watch_takes_no_lease(watched: World) -> None:
    epoch = watched.catalog.take_lease("replica/web01", "a step")

    watch(watched, rounds=2)

    watched.catalog.check_lease("replica/web01", epoch)
