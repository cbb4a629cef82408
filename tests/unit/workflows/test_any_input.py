"""Whatever people send and sites say, the run goes on and can show itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from failback.contracts import operations as ops
from failback.contracts.start import StartRequest
from failback.contracts.unreadable import Unreadable
from failback.contracts.words import Outcome, Phase, RequestKind
from tests.unit.workflows.fake_runtime import PLAN
from tests.unit.workflows.virtual_runtime import World, world
from workflows import requests, show
from workflows.engine import GoOnLater, OperationError

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
WIDE = "\U000e0001" * 255
"""A name of the greatest length that takes ten times as much where it is quoted."""


def shown(made: World) -> None:
    """What the workflow does after every change must not fail: it would stop the run's tasks."""
    show.status(
        made.run,
        workflow_id="failback/web01",
        outcome=None,
        findings=(),
        started_at=made.runtime.clock,
    )


async def test_an_error_longer_than_any_text_is_cut_and_can_be_shown() -> None:
    made = world()
    made.runtime.script["protect_target"] = lambda a, n: (
        OperationError("C" * 300, "m" * 5000, tried="t" * 5000) if n == 0 else None
    )
    seen: list[int] = []

    def look() -> None:
        shown(made)
        assert made.run.operator is not None
        seen.append(len(made.run.operator.message))
        made.ask(RequestKind.RETRY)

    made.runtime.after(HOUR, look)
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED
    assert seen == [2000]


@pytest.mark.parametrize("place", [0, 1])
def test_what_cannot_be_read_is_recorded_as_rejected(place: int) -> None:
    made = world()
    made.run.phase = Phase.SYNCING
    raw: list[object] = [{"by": "ann"}, {}]
    raw[place] = Unreadable("Invalid JSON: EOF")

    requests.admit(made.run, RequestKind.UNDO, tuple(raw), made.runtime.now())

    (answer,) = made.run.answers
    assert not answer.accepted and not made.run.undo_asked
    assert "(input: Invalid JSON: EOF); send no input, or" in answer.message
    shown(made)


@pytest.mark.parametrize(
    "at", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "9000-01-01T00:00:00Z"]
)
async def test_a_time_without_end_is_refused_where_it_would_stop_the_run(at: str) -> None:
    window = {"window": {"begin": "01:00", "end": "02:00"}}
    made = world(switch={"mode": "manual"}, limits=window)
    answers: list[bool] = []

    def ask(when: str) -> None:
        switch = {"mode": "scheduled", "at": when}
        answers.append(made.ask(RequestKind.RESCHEDULE, switch=switch).accepted)

    made.runtime.after(HOUR, lambda: ask(at))
    made.runtime.after(2 * HOUR, lambda: ask("8999-12-31T23:59:59Z"))
    made.runtime.after(3 * HOUR, lambda: shown(made))
    made.runtime.after(4 * HOUR, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE
    assert answers == [False, True]
    with pytest.raises(ValueError, match="switch"):
        StartRequest.model_validate({"replica": "web01", "switch": {"mode": "scheduled", "at": at}})


async def test_hooks_that_fail_in_every_cycle_leave_only_the_newest_alarms() -> None:
    hook = {"name": "dns", "when": "after", "step": "resync_freeze", "on_failure": "continue"}
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"}, hooks=[hook])
    made.runtime.script["run_hook"] = lambda a, n: ops.HookResult(ok=False, evidence="status 1")
    made.runtime.after(5 * HOUR, lambda: shown(made))
    made.runtime.after(5 * HOUR, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE
    assert len(made.run.hooks) == len(made.run.alarms) == 20


async def test_an_alarm_of_the_greatest_length_ends_the_automatism_and_can_be_shown() -> None:
    made = world(finalize={"mode": "auto_commit", "after": "PT1H"})
    made.runtime.script["watch_decision"] = lambda a, n: ops.WatchResult(alarm="x" * 2000)
    made.runtime.after(2 * HOUR, lambda: shown(made))
    made.runtime.after(3 * HOUR, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE
    assert len(made.run.finalize_ended) < 2000


def test_an_approval_of_what_nobody_knows_is_answered_however_long_its_name() -> None:
    made = world(approvals=2)
    for number in range(16):
        made.ask(RequestKind.UNDO, by="ann", request_id=f"{number:0>250}")

    answer = made.ask(RequestKind.APPROVE, by="bob", of=WIDE)

    assert not answer.accepted and answer.message.startswith("No request")
    shown(made)


def test_what_waits_for_a_second_person_has_an_id_of_its_own() -> None:
    made = world(approvals=2)
    made.run.phase = Phase.AWAITING_DECISION
    first = made.ask(RequestKind.UNDO, by="ann", request_id="r1")
    other = made.ask(RequestKind.COMMIT, by="ann", request_id="r1")
    for _ in range(120):
        made.ask(RequestKind.RETRY)
    nameless = [made.ask(RequestKind.UNDO, by="ann") for _ in range(3)]

    assert first.pending
    assert not other.accepted and "waits under the id r1" in other.message
    assert len({answer.request_id for answer in nameless}) == 3
    assert [p.answer for p in made.run.pending] == [first, *nameless]


def test_only_undo_and_retry_declare_a_vm_to_be_off() -> None:
    made = world()
    made.run.phase = Phase.SYNCING
    made.run.facts = made.run.facts.model_copy(update={"plan": PLAN})
    for kind in (RequestKind.PAUSE, RequestKind.RESUME, RequestKind.SWITCH_OVER):
        assert made.ask(kind, attest_off=["web01"]).accepted
    assert not made.run.facts.attested_off

    nameless = made.ask(RequestKind.UNDO, attest_off=["web01"], by="ann")
    assert not nameless.accepted and "needs `by` and `reason`" in nameless.message
    assert made.ask(RequestKind.UNDO, attest_off=["web01"], by="ann", reason="It burnt.").accepted
    assert made.run.facts.attested_off == ("production:vm-3",)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (RequestKind.RESCHEDULE, {"switch": {"resync_interval": "P9999999D"}}),
        (RequestKind.RESCHEDULE, {"switch": {"downtime_budget": "P9999999D"}}),
        (RequestKind.ADJUST, {"finalize": {"after": "P9999999D"}}),
        (RequestKind.ADJUST, {"finalize": {"boot_grace": "P9999999D"}}),
    ],
)
def test_a_time_span_that_ends_after_the_last_date_is_not_understood(
    kind: RequestKind, body: dict[str, Any]
) -> None:
    made = world()
    made.run.phase = Phase.SYNCING

    answer = made.ask(kind, **body)

    assert not answer.accepted and "not understood" in answer.message
    with pytest.raises(ValueError, match="less than or equal"):
        StartRequest.model_validate({"replica": "web01", **body, "approval_expiry": "P9999999D"})


async def test_past_its_time_and_over_its_budget_the_switch_waits_for_the_next_cycle() -> None:
    switch = {"mode": "scheduled", "at": "2026-01-01T02:00:00Z", "downtime_budget": "PT1S"}
    made = world(switch=switch)
    made.runtime.after(4 * HOUR, lambda: made.ask(RequestKind.SWITCH_OVER, ignore_budget=True))
    made.runtime.after(5 * HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED
    # One every quarter of an hour, and the one that ends just before the time.
    assert 15 <= made.run.facts.cycle <= 18


@pytest.mark.parametrize("meanwhile", ["pause", "adjust", "alarm"])
async def test_what_is_said_while_the_sites_are_asked_stops_the_automatism(meanwhile: str) -> None:
    """The last question before a decision takes minutes where a site is slow."""
    made = world(finalize={"mode": "auto_commit", "after": "PT1H"})
    made.runtime.takes["probe"] = 5 * MINUTE
    seen: list[Phase] = []

    def breach(argument: Any, number: int) -> ops.WatchResult:
        return ops.WatchResult(alarm="Both run.")

    def say() -> None:
        match meanwhile:
            case "pause":
                assert made.ask(RequestKind.PAUSE).accepted
            case "adjust":
                assert made.ask(RequestKind.ADJUST, finalize={"mode": "manual"}).accepted
            case _:
                made.runtime.script["watch_decision"] = breach
                assert made.ask(
                    RequestKind.ADJUST, finalize={"probes": [{"kind": "tools"}]}
                ).accepted

    made.runtime.after(62 * MINUTE, say)
    made.runtime.after(3 * HOUR, lambda: seen.append(made.run.phase))
    made.runtime.after(4 * HOUR, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE
    assert seen == [Phase.AWAITING_DECISION]


@pytest.mark.parametrize("kind", [RequestKind.COMMIT, RequestKind.UNDO])
async def test_a_decision_between_two_executions_is_carried_over(kind: RequestKind) -> None:
    """The limits of the movers are being written, so that the old execution cannot end yet."""
    made = world()
    made.runtime.takes["set_limits"] = 10 * MINUTE
    limits = {"bandwidth_bytes_per_s": 1000}

    def lengthen() -> None:
        assert made.ask(RequestKind.ADJUST, limits=limits).accepted
        made.runtime.long_history = True

    made.runtime.after(HOUR, lengthen)
    made.runtime.after(HOUR + MINUTE, lambda: made.ask(kind, by="ann"))
    with pytest.raises(GoOnLater):
        await made.live()
    now = made.runtime.now()
    assert made.run.answers[-1].accepted

    again = world(carried=made.run.carry(now, now))

    wanted = Outcome.COMMITTED if kind is RequestKind.COMMIT else Outcome.UNDONE
    assert await again.runtime.drive(again.life.live(taken_up=True)) is wanted


async def test_rescheduled_during_the_last_look_the_switch_waits() -> None:
    made = world()
    made.runtime.takes["check_drift"] = 10 * MINUTE
    seen: list[Phase] = []
    made.runtime.after(
        MINUTE,
        lambda: made.ask(
            RequestKind.RESCHEDULE, switch={"mode": "manual", "resync_interval": "PT1H"}
        ),
    )
    made.runtime.after(30 * MINUTE, lambda: seen.append(made.run.phase))
    made.runtime.after(40 * MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER))
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED
    assert seen == [Phase.READY_TO_SWITCH]
    assert made.runtime.names().count("check_drift") >= 2


async def test_a_site_that_is_away_for_a_year_is_asked_some_hundred_times() -> None:
    """A history may have 51,200 events, and each time costs it some."""
    made = world()
    back = made.runtime.clock + timedelta(days=365)

    def away(argument: Any, number: int) -> Any:
        if made.runtime.clock < back:
            return OperationError("SiteUnreachable", "It does not answer.", unreachable=True)
        return None

    made.runtime.script |= {"power_off": away, "probe": away}
    made.runtime.after(timedelta(days=380), lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED
    assert made.runtime.names().count("probe") < 1000
