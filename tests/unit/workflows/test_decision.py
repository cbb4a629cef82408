"""The end: who decides, when, and what stops a run from deciding by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from failback.contracts import operations as ops
from failback.contracts.words import FinalizeMode, Outcome, Phase, RequestKind
from tests.unit.workflows.virtual_runtime import World, world
from workflows.engine import GoOnLater, OperationError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
AUTO_COMMIT = {"mode": "auto_commit", "after": "PT1H"}
AUTO_UNDO = {"mode": "auto_undo", "after": "PT1H", "accept_loss_of_production_writes": True}


def ended(made: World) -> timedelta:
    return made.runtime.clock - BEGIN


async def test_auto_commit_commits_after_the_soak_time() -> None:
    made = world(finalize=AUTO_COMMIT)

    assert await made.live() is Outcome.COMMITTED

    assert ended(made) == HOUR
    assert made.run.facts.commit.by == "auto_commit"
    assert made.cleaned == [True]


async def test_auto_undo_undoes_at_the_deadline_and_a_commit_comes_before() -> None:
    left = world(finalize=AUTO_UNDO)
    assert await left.live() is Outcome.UNDONE
    assert ended(left) == HOUR

    made = world(finalize=AUTO_UNDO)
    made.runtime.after(59 * MINUTE, lambda: made.ask(RequestKind.COMMIT))
    assert await made.live() is Outcome.COMMITTED


def test_auto_undo_needs_consent_at_the_start() -> None:
    with pytest.raises(ValueError, match="accept_loss_of_production_writes"):
        world(finalize="auto_undo")


@pytest.mark.parametrize("code", ["SPLIT_BRAIN", "PROBE_FAILED"])
@pytest.mark.parametrize("policy", [AUTO_COMMIT, AUTO_UNDO], ids=["commit", "undo"])
async def test_a_breach_or_a_failed_probe_ends_the_automatism(
    code: str, policy: dict[str, Any]
) -> None:
    made = world(finalize=policy)
    made.runtime.script["watch_decision"] = lambda a, n: ops.WatchResult(
        alarm="It broke.", code=code
    )
    made.runtime.after(3 * HOUR, lambda: made.ask(RequestKind.COMMIT, by="a"))

    assert await made.live() is Outcome.COMMITTED

    assert ended(made) == 3 * HOUR and made.run.facts.commit.by == "a"
    assert "It broke; a person must decide" in made.run.finalize_ended
    assert any("auto_" in text for text in made.run.alarms)


async def test_an_alarm_about_something_else_leaves_the_soak_time_alone() -> None:
    made = world(finalize=AUTO_COMMIT)
    made.runtime.script["watch_decision"] = lambda a, n: ops.WatchResult(
        alarm="The snapshot grows.", code="SNAPSHOT_GROWS"
    )

    assert await made.live() is Outcome.COMMITTED
    assert ended(made) == HOUR


async def test_nothing_is_decided_while_a_site_cannot_be_asked() -> None:
    made = world(finalize=AUTO_UNDO)
    made.runtime.script["probe"] = lambda a, n: ops.ProbeResult(reachable=False)
    made.runtime.after(5 * HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED
    assert "could not be asked" in made.run.finalize_ended


async def test_a_failing_watch_ends_the_automatism() -> None:
    made = world(finalize=AUTO_COMMIT)
    made.runtime.script["watch_decision"] = lambda a, n: OperationError("Unknown", "It broke.")
    made.runtime.after(5 * HOUR, lambda: made.ask(RequestKind.COMMIT))

    await made.live()

    assert ended(made) == 5 * HOUR


async def test_pause_stops_the_soak_timer_and_resume_goes_on_with_what_was_left() -> None:
    made = world(finalize=AUTO_COMMIT)
    made.runtime.after(20 * MINUTE, lambda: made.ask(RequestKind.PAUSE))
    made.runtime.after(3 * HOUR, lambda: made.ask(RequestKind.RESUME))

    await made.live()

    assert ended(made) == 3 * HOUR + 40 * MINUTE


async def test_the_time_is_extended_and_counts_from_the_switch() -> None:
    made = world(finalize=AUTO_COMMIT)
    made.runtime.after(
        50 * MINUTE, lambda: made.ask(RequestKind.ADJUST, finalize={**AUTO_COMMIT, "after": "PT4H"})
    )

    await made.live()

    assert ended(made) == 4 * HOUR


async def test_a_pause_does_not_count_when_the_time_is_extended() -> None:
    made = world(finalize=AUTO_COMMIT)
    made.runtime.after(20 * MINUTE, lambda: made.ask(RequestKind.PAUSE))
    made.runtime.after(10 * HOUR, lambda: made.ask(RequestKind.RESUME))
    made.runtime.after(
        10 * HOUR + 10 * MINUTE, lambda: made.ask(RequestKind.ADJUST, finalize={"after": "PT8H"})
    )

    assert await made.live() is Outcome.COMMITTED

    # Half an hour of the eight had run when they were given.
    assert ended(made) == 10 * HOUR + 10 * MINUTE + 7 * HOUR + 30 * MINUTE


async def test_a_deadline_that_is_put_off_while_paused_is_not_over_at_the_resume() -> None:
    made = world(finalize={**AUTO_UNDO, "after": "PT4H"})
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.PAUSE))
    made.runtime.after(10 * HOUR, lambda: made.ask(RequestKind.ADJUST, finalize={"after": "PT8H"}))
    made.runtime.after(11 * HOUR, lambda: made.ask(RequestKind.RESUME))
    made.runtime.after(17 * HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED


async def test_a_probe_that_fails_under_a_manual_decision_is_told_once() -> None:
    made = world(finalize={"mode": "manual", "probes": [{"kind": "tools"}]})
    asked: list[int] = []

    def watch(argument: ops.WatchDecision, number: int) -> Any:
        asked.append(len(argument.probes))
        if argument.probes:
            return ops.WatchResult(code="PROBE_FAILED", alarm=f"It failed after {number} s.")
        return ops.WatchResult(code="SPLIT_BRAIN", alarm="Two copies run.")

    made.runtime.script["watch_decision"] = watch
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED

    # With its probes, then without: at once, after an alarm, and every quarter of an hour.
    assert asked == [1, *(0 for _ in range(5))]
    assert made.run.alarms == ["It failed after 0 s.", "Two copies run."]


async def test_an_adjustment_is_heard_while_the_watch_rests() -> None:
    made = world(finalize={**AUTO_COMMIT, "after": "PT20M"})
    asked: list[tuple[timedelta, int]] = []

    def watch(argument: ops.WatchDecision, number: int) -> Any:
        asked.append((ended(made), len(argument.probes)))
        return ops.WatchResult(code="SNAPSHOT_OLD", alarm="It is old.")

    made.runtime.script["watch_decision"] = watch
    probes = {"probes": [{"kind": "tools"}], "boot_grace": "PT0S"}
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.ADJUST, finalize=probes))

    assert await made.live() is Outcome.COMMITTED

    assert (MINUTE, 1) in asked


async def test_a_manual_decision_becomes_automatic_and_the_time_begins_then() -> None:
    made = world()
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.ADJUST, finalize=AUTO_COMMIT))

    await made.live()

    assert ended(made) == 3 * HOUR


async def test_an_automatic_decision_becomes_manual() -> None:
    made = world(finalize=AUTO_COMMIT)
    made.runtime.after(30 * MINUTE, lambda: made.ask(RequestKind.ADJUST, finalize="manual"))
    made.runtime.after(9 * HOUR, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE
    assert ended(made) == 9 * HOUR


async def test_after_a_failed_probe_a_person_may_let_the_soak_begin_anew() -> None:
    made = world(finalize=AUTO_COMMIT)
    failing = [True]

    def watch(argument: Any, count: int) -> Any:
        failing[0] = False
        del made.runtime.script["watch_decision"]
        return ops.WatchResult(alarm="tcp: refused.", code="PROBE_FAILED")

    made.runtime.script["watch_decision"] = watch
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.ADJUST, finalize=AUTO_COMMIT))

    assert await made.live() is Outcome.COMMITTED
    assert ended(made) == 3 * HOUR


async def test_what_was_left_of_the_time_is_carried_into_the_next_execution() -> None:
    made = world(finalize=AUTO_COMMIT)
    made.runtime.after(40 * MINUTE, lambda: setattr(made.runtime, "long_history", True))
    with pytest.raises(GoOnLater):
        await made.runtime.drive(made.life.live())
    carried = made.run.carry(BEGIN, made.runtime.now())
    assert carried.phase is Phase.AWAITING_DECISION

    later = world(carried)
    later.runtime.clock = made.runtime.clock
    assert await later.runtime.drive(later.life.live(taken_up=True)) is Outcome.COMMITTED
    assert ended(later) == HOUR


async def test_limits_are_written_before_pass_1_and_whenever_they_change() -> None:
    made = world(limits={"bandwidth_bytes_per_s": 1000})
    made.runtime.takes["transport_changes"] = HOUR
    made.runtime.after(
        30 * MINUTE,
        lambda: made.ask(RequestKind.ADJUST, limits={"bandwidth_bytes_per_s": 5000}),
    )
    made.runtime.after(5 * HOUR, lambda: made.ask(RequestKind.COMMIT))

    await made.live()

    limits = [a.limits.bandwidth_bytes_per_s for n, a in made.runtime.issued if n == "set_limits"]
    assert limits == [1000, 5000]
    names = made.runtime.names()
    assert names.index("set_limits") < names.index("transport_changes")


@pytest.mark.parametrize("mode", list(FinalizeMode))
def test_every_mode_has_a_bare_word(mode: FinalizeMode) -> None:
    if mode is not FinalizeMode.AUTO_UNDO:
        assert world(finalize=mode.value).run.facts.finalizing.mode is mode


async def test_what_an_adjustment_does_not_say_stays() -> None:
    made = world(
        finalize=AUTO_COMMIT,
        limits={"bandwidth_bytes_per_s": 1000, "window": {"begin": "22:00", "end": "06:00"}},
    )
    made.runtime.after(
        MINUTE, lambda: made.ask(RequestKind.ADJUST, limits={"bandwidth_bytes_per_s": 5000})
    )
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.ADJUST, finalize={"after": "PT2H"}))

    assert await made.live() is Outcome.COMMITTED

    assert ended(made) == 2 * HOUR
    limits = made.run.facts.limits
    assert limits is not None and limits.bandwidth_bytes_per_s == 5000
    assert limits.window is not None and limits.window.begin == "22:00"


async def test_an_adjustment_that_makes_no_sense_with_what_holds_is_refused() -> None:
    made = world()
    answers = []
    made.runtime.after(
        MINUTE, lambda: answers.append(made.ask(RequestKind.ADJUST, finalize={"mode": "auto_undo"}))
    )
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED
    assert not answers[0].accepted and "accept_loss_of_production_writes" in answers[0].message


@pytest.mark.parametrize("adjusted", [30 * MINUTE, HOUR], ids=["before", "with the commit"])
async def test_a_commit_does_not_wait_for_limits_that_cannot_be_written(
    adjusted: timedelta,
) -> None:
    """Once the run has ended in the catalog, none can be written any more, however often tried."""
    made = world()
    made.runtime.takes["set_limits"] = timedelta(days=365)
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))
    made.runtime.after(
        adjusted, lambda: made.ask(RequestKind.ADJUST, limits={"bandwidth_bytes_per_s": 1})
    )

    assert await made.live() is Outcome.COMMITTED
    assert ended(made) == HOUR


@pytest.mark.parametrize("policy", [AUTO_COMMIT, AUTO_UNDO], ids=["commit", "undo"])
async def test_nothing_is_decided_unless_every_power_state_is_read_in_that_moment(
    policy: dict[str, Any],
) -> None:
    """The sites answer, but one does not know of a VM; the watch passes that over."""
    made = world(finalize=policy)
    asked: list[ops.Probe] = []

    def look(argument: ops.Probe, number: int) -> ops.ProbeResult:
        asked.append(argument)
        return ops.ProbeResult(reachable=not argument.power_known, evidence="web01 is unknown")

    made.runtime.script["probe"] = look
    made.runtime.after(3 * HOUR, lambda: made.ask(RequestKind.COMMIT, by="a"))

    assert await made.live() is Outcome.COMMITTED
    assert ended(made) == 3 * HOUR and made.run.facts.commit.by == "a"
    assert "web01 is unknown; a person must decide" in made.run.finalize_ended
    assert [vm.name for vm in (*asked[0].must_be_off, *asked[0].power_known)] == [
        "web01-replica",
        "web01",
    ]


@pytest.mark.parametrize(("mode", "asked"), [("auto_commit", ["tools"]), ("auto_undo", [])])
async def test_the_workload_is_asked_once_more_before_an_automatic_commit(
    mode: str, asked: list[str]
) -> None:
    """A worker that was down during the soak time has asked nobody."""
    policy: dict[str, Any] = {"mode": mode, "after": "PT1H", "probes": [{"kind": "tools"}]}
    if mode == "auto_undo":
        policy["accept_loss_of_production_writes"] = True
    made = world(finalize=policy)

    await made.live()

    (last,) = (a for name, a in made.runtime.issued if name == "probe")
    assert [probe.kind for probe in last.probes] == asked
    assert last.target.name == "web01"
