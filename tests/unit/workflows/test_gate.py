"""The wait between the passes: when it ends, what it does meanwhile, and what people see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from failback.contracts import operations as ops
from failback.contracts.words import Outcome, Phase, RequestKind, StepName
from tests.unit.workflows.fake_runtime import MIB
from tests.unit.workflows.virtual_runtime import World, world
from workflows.engine import GoOnLater, OperationError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def commit_when_asked(made: World, after: timedelta) -> None:
    made.runtime.after(after, lambda: made.ask(RequestKind.COMMIT))


def passes(made: World) -> list[int]:
    """Numbers of the passes that were calculated, in order."""
    return [a.pass_no for name, a in made.runtime.issued if name == "calculate_difference"]


async def test_a_manual_switch_waits_and_cycles_until_somebody_says_so() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"})
    phases: list[Any] = []
    made.runtime.after(35 * MINUTE, lambda: phases.append(made.run.phase))
    made.runtime.after(36 * MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER))
    commit_when_asked(made, HOUR)

    assert await made.live() is Outcome.COMMITTED

    assert phases == [Phase.READY_TO_SWITCH]
    assert passes(made) == [1, 2, 3, 4, 5]
    states = [a.to for name, a in made.runtime.issued if name == "set_replica_state"]
    assert states == ["READY_TO_SWITCH", "FAILBACK"]
    frozen = [a.purpose for name, a in made.runtime.issued if name == "snapshot_replica"]
    assert frozen == ["read-1", "read-2", "read-3", "read-4", "protective"]
    removed = [a.purpose for name, a in made.runtime.issued if name == "remove_snapshot"]
    assert removed == ["read-1", "read-2", "read-3", "read-4"]


async def test_every_pass_begins_at_the_change_ids_of_the_complete_cycle_before() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"})
    made.runtime.after(15 * MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER))
    commit_when_asked(made, HOUR)

    await made.live()

    bases = [
        [disk.base_change_id for disk in a.disks]
        for name, a in made.runtime.issued
        if name == "calculate_difference"
    ]
    assert bases == [[None] * 2, ["52 de/read-1"] * 2, ["52 de/read-2"] * 2]
    read = [
        a.disks[0].source.snapshot
        for name, a in made.runtime.issued
        if name == "calculate_difference"
    ]
    assert read == ["snapshot-read-1", "snapshot-read-2", "snapshot-protective"]


async def test_a_scheduled_switch_begins_at_its_time() -> None:
    at = BEGIN + 2 * HOUR
    made = world(switch={"mode": "scheduled", "at": at.isoformat(), "resync_interval": "PT30M"})
    commit_when_asked(made, 3 * HOUR)

    await made.live()

    off = next(r for r in made.run.steps if r.name is StepName.POWER_OFF_REPLICA)
    assert off.started_at == at
    # The last cycle ends just before the switch, so that little is left for the downtime.
    assert timedelta(0) < at - made.run.facts.cycles[-1].frozen_at < MINUTE


async def test_a_switch_is_rescheduled_and_a_past_time_is_refused() -> None:
    made = world(switch="manual")
    at = BEGIN + 5 * HOUR
    answers = []
    made.runtime.after(
        HOUR,
        lambda: answers.append(
            made.ask(RequestKind.RESCHEDULE, switch={"mode": "scheduled", "at": BEGIN})
        ),
    )
    made.runtime.after(
        HOUR, lambda: made.ask(RequestKind.RESCHEDULE, switch={"mode": "scheduled", "at": at})
    )
    commit_when_asked(made, 6 * HOUR)

    await made.live()

    assert not answers[0].accepted and "past" in answers[0].message
    off = next(r for r in made.run.steps if r.name is StepName.POWER_OFF_REPLICA)
    assert off.started_at == at


async def test_over_the_budget_it_cycles_and_tries_again() -> None:
    made = world(switch={"downtime_budget": "PT70S", "resync_interval": "PT10M"})
    made.runtime.takes["snapshot_replica"] = timedelta(seconds=30)
    made.runtime.after(
        25 * MINUTE,
        lambda: made.runtime.takes.__setitem__("snapshot_replica", timedelta(seconds=1)),
    )
    holds: list[str] = []
    made.runtime.after(
        5 * MINUTE, lambda: holds.append(made.run.gate.holds if made.run.gate else "")
    )
    commit_when_asked(made, HOUR)

    assert await made.live() is Outcome.COMMITTED

    assert "over the budget of 70 s" in holds[0]
    off = next(r for r in made.run.steps if r.name is StepName.POWER_OFF_REPLICA)
    assert off.started_at is not None
    assert 25 * MINUTE < off.started_at - BEGIN < 35 * MINUTE


async def test_ignore_budget_switches_anyway() -> None:
    made = world(switch={"mode": "manual", "downtime_budget": "PT1S"})
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER))
    seen: list[Phase] = []
    made.runtime.after(5 * MINUTE, lambda: seen.append(made.run.phase))
    made.runtime.after(6 * MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER, ignore_budget=True))
    commit_when_asked(made, HOUR)

    await made.live()

    assert seen == [Phase.READY_TO_SWITCH]
    off = next(r for r in made.run.steps if r.name is StepName.POWER_OFF_REPLICA)
    assert off.started_at == BEGIN + 6 * MINUTE


@pytest.mark.parametrize(("on_overrun", "outcome"), [("undo", "UNDONE"), ("continue", "COMMITTED")])
async def test_an_overrun_of_the_budget_does_what_was_said(on_overrun: str, outcome: str) -> None:
    made = world(switch={"downtime_budget": "PT2M", "on_overrun": on_overrun})
    made.runtime.takes["verify"] = timedelta(minutes=10)
    commit_when_asked(made, HOUR)

    assert await made.live() == outcome

    assert "longer than the downtime budget of 120 s" in made.run.alarms[0]
    assert ("restore_target" in made.runtime.names()) is (outcome == "UNDONE")


def switched_at(made: World) -> timedelta:
    off = next(r for r in made.run.steps if r.name is StepName.POWER_OFF_REPLICA)
    assert off.started_at is not None
    return off.started_at - BEGIN


async def test_a_budget_that_was_ignored_undoes_nothing() -> None:
    made = world(switch={"mode": "manual", "downtime_budget": "PT2M", "on_overrun": "undo"})
    made.runtime.takes["verify"] = timedelta(minutes=10)
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER, ignore_budget=True))
    commit_when_asked(made, HOUR)

    assert await made.live() is Outcome.COMMITTED
    assert "it goes on" in made.run.alarms[0]


@pytest.mark.parametrize(
    ("when", "step"), [("before", "power_off_replica"), ("after", "power_on_target")]
)
async def test_hooks_around_the_downtime_are_no_downtime(when: str, step: str) -> None:
    made = world(
        switch={"downtime_budget": "PT5M", "on_overrun": "undo"},
        hooks=[{"name": "drain", "when": when, "step": step, "timeout": "PT30M"}],
    )
    made.runtime.takes["run_hook"] = 6 * MINUTE
    commit_when_asked(made, HOUR)

    assert await made.live() is Outcome.COMMITTED
    assert made.run.alarms == []


async def test_a_pause_during_the_last_look_leaves_the_run_in_the_gate() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT1H"})
    answers: list[bool] = []

    def look(argument: Any, number: int) -> None:
        # The look comes to its end although it was asked to stop: it reads and asks nobody again.
        if made.run.switch_asked and not answers:
            answers.append(made.ask(RequestKind.PAUSE).accepted)

    made.runtime.script["check_drift"] = look
    made.runtime.stubborn = frozenset({"check_drift"})
    made.runtime.after(90 * MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER))
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.RESCHEDULE, switch="manual"))
    made.runtime.after(48 * HOUR, lambda: made.ask(RequestKind.RESUME))
    seen: list[Phase] = []
    made.runtime.after(60 * HOUR, lambda: seen.append(made.run.phase))
    made.runtime.after(61 * HOUR, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE

    assert answers == [True]
    assert seen == [Phase.READY_TO_SWITCH]
    assert StepName.POWER_OFF_REPLICA not in made.run.started()


async def test_after_trouble_at_the_last_look_the_gate_decides_anew() -> None:
    made = world(
        switch={"mode": "scheduled", "at": BEGIN + 2 * HOUR, "resync_interval": "PT15M"},
    )
    made.runtime.script["check_drift"] = lambda argument, number: (
        OperationError("VmChanged", "It was changed.")
        if 2 * HOUR <= made.runtime.clock - BEGIN < 40 * HOUR
        else None
    )
    made.runtime.after(50 * HOUR, lambda: made.ask(RequestKind.RETRY))
    commit_when_asked(made, 60 * HOUR)

    assert await made.live() is Outcome.COMMITTED

    assert switched_at(made) == 50 * HOUR
    # What the replica wrote in two days came over before it went off.
    assert made.run.facts.cycles[-1].frozen_at >= BEGIN + 50 * HOUR
    last = [name for name in made.runtime.names() if name in ("check_drift", "power_off")][-2:]
    assert last == ["check_drift", "power_off"]


async def test_a_run_that_passed_the_gate_under_earlier_code_goes_on_as_it_began() -> None:
    made = world(switch={"mode": "scheduled", "at": BEGIN + 2 * HOUR})
    made.runtime.passed_by = frozenset({"looks-again"})
    made.runtime.script["check_drift"] = lambda argument, number: (
        OperationError("VmChanged", "It was changed.")
        if 2 * HOUR <= made.runtime.clock - BEGIN < 40 * HOUR
        else None
    )
    made.runtime.after(50 * HOUR, lambda: made.ask(RequestKind.RETRY))
    commit_when_asked(made, 60 * HOUR)

    assert await made.live() is Outcome.COMMITTED
    assert made.run.facts.cycles[-1].frozen_at < BEGIN + 3 * HOUR


async def test_the_budget_may_be_changed_after_the_time_of_the_switch() -> None:
    made = world(
        switch={"mode": "scheduled", "at": BEGIN + 2 * HOUR, "downtime_budget": "PT1S"},
    )
    budget = {"downtime_budget": "PT1H"}
    made.runtime.after(3 * HOUR, lambda: made.ask(RequestKind.RESCHEDULE, switch=budget))
    commit_when_asked(made, 5 * HOUR)

    assert await made.live() is Outcome.COMMITTED
    assert switched_at(made) == 3 * HOUR


async def test_another_interval_does_not_take_a_switch_over_back() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"})
    made.runtime.takes["transport_changes"] = 4 * MINUTE
    made.runtime.after(15 * MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER))
    every = {"resync_interval": "PT20M"}
    made.runtime.after(16 * MINUTE, lambda: made.ask(RequestKind.RESCHEDULE, switch=every))
    commit_when_asked(made, 2 * HOUR)

    assert await made.live() is Outcome.COMMITTED
    assert switched_at(made) < 30 * MINUTE


@pytest.mark.parametrize("minutes", range(8, 14))
async def test_undo_in_the_gate_removes_the_read_snapshot_of_the_newest_cycle(minutes: int) -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"})
    made.runtime.takes["transport_changes"] = timedelta(minutes=2)
    made.runtime.after(minutes * MINUTE, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE

    made_names = [a.purpose for n, a in made.runtime.issued if n == "snapshot_replica"]
    removed = [a.purpose for n, a in made.runtime.issued if n == "remove_snapshot"]
    assert set(made_names) <= set(removed)
    states = [a.to for n, a in made.runtime.issued if n == "set_replica_state"]
    assert states == ["READY_TO_SWITCH", "FAILOVER"]


async def test_pausing_in_the_gate_stops_cycles_and_the_schedule() -> None:
    made = world(switch={"mode": "scheduled", "at": BEGIN + HOUR, "resync_interval": "PT10M"})
    made.runtime.after(15 * MINUTE, lambda: made.ask(RequestKind.PAUSE))
    made.runtime.after(3 * HOUR, lambda: made.ask(RequestKind.RESUME))
    commit_when_asked(made, 4 * HOUR)

    await made.live()

    off = next(r for r in made.run.steps if r.name is StepName.POWER_OFF_REPLICA)
    assert off.started_at == BEGIN + 3 * HOUR
    assert len(made.run.facts.cycles) == 2


async def test_months_of_waiting_go_on_in_other_executions() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT1H"})
    made.runtime.after(30 * timedelta(days=1), lambda: setattr(made.runtime, "long_history", True))

    with pytest.raises(GoOnLater):
        await made.runtime.drive(made.life.live())
    carried = made.run.carry(BEGIN, made.runtime.now())
    assert len(carried.model_dump_json()) < 32 * 1024
    cycle = carried.facts.cycle
    assert cycle > 700

    later = world(carried)
    later.runtime.clock = made.runtime.now()
    later.runtime.after(MINUTE, lambda: later.ask(RequestKind.SWITCH_OVER))
    commit_when_asked(later, HOUR)
    assert await later.runtime.drive(later.life.live(taken_up=True)) is Outcome.COMMITTED

    assert later.runtime.names().count("set_replica_state") == 1
    # The cycle that was due when the execution ended, and the final pass.
    assert passes(later) == [cycle + 1, cycle + 2]
    assert later.run.steps[0].name is StepName.PREFLIGHT


async def test_lag_and_change_rate_are_those_of_the_cycles() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"})

    def moved(argument: Any, count: int) -> ops.TransportResult:
        return ops.TransportResult(
            address=argument.plan.address, examined_bytes=MIB, different_bytes=600 * 1024
        )

    made.runtime.script["transport_changes"] = moved
    gates = []
    made.runtime.after(25 * MINUTE, lambda: gates.append(made.run.gate))
    made.runtime.after(26 * MINUTE, lambda: made.ask(RequestKind.UNDO))

    await made.live()

    assert gates[0] is not None
    told = gates[0].prediction
    assert told is not None
    assert told.lag_bytes == 2 * 600 * 1024
    assert told.change_rate_bytes_per_s == pytest.approx(2048, rel=0.01)
    assert any("boot" in text for text in told.rests_on)


async def test_what_a_reschedule_does_not_say_stays() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"})
    made.runtime.after(
        MINUTE, lambda: made.ask(RequestKind.RESCHEDULE, switch={"downtime_budget": "PT5M"})
    )
    seen: list[Any] = []
    made.runtime.after(2 * MINUTE, lambda: seen.append(made.run.facts.switching))
    made.runtime.after(3 * MINUTE, lambda: made.ask(RequestKind.UNDO))

    await made.live()

    assert (seen[0].mode, seen[0].resync_interval) == ("manual", 10 * MINUTE)
    assert seen[0].downtime_budget == 5 * MINUTE


async def test_outside_its_window_no_cycle_begins() -> None:
    # The run begins at midnight UTC.
    made = world(
        switch={"mode": "manual", "resync_interval": "PT1H"},
        limits={"window": {"begin": "22:00", "end": "02:30"}},
    )
    made.runtime.after(21 * HOUR, lambda: made.ask(RequestKind.UNDO))

    await made.live()

    # At 01:00 and 02:00; then the window is closed until 22:00.
    assert [cycle.number for cycle in made.run.facts.cycles] == [1, 2, 3]
