"""Four eyes: what waits, who may approve, what expires, and that there is no way around it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from failback.contracts.requests import Answer
from failback.contracts.words import Outcome, Phase, RequestKind, SwitchMode
from tests.unit.workflows.virtual_runtime import world
from workflows import requests
from workflows.engine import GoOnLater

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.mark.parametrize("kind", [RequestKind.COMMIT, RequestKind.UNDO])
async def test_a_decision_waits_for_a_second_person(kind: RequestKind) -> None:
    made = world(approvals=2)
    answers: list[Answer] = []

    def ask() -> None:
        answers.append(made.ask(kind, by="ann", request_id="r1"))
        answers.append(made.ask(RequestKind.APPROVE, of="r1", by="ann"))
        answers.append(made.ask(RequestKind.APPROVE, of="r2", by="bob"))
        answers.append(made.ask(RequestKind.APPROVE, of="r1"))

    made.runtime.after(HOUR, ask)
    made.runtime.after(
        2 * HOUR, lambda: answers.append(made.ask(RequestKind.APPROVE, of="r1", by="bob"))
    )

    outcome = await made.live()

    assert outcome is (Outcome.COMMITTED if kind is RequestKind.COMMIT else Outcome.UNDONE)
    asked, same, unknown, nobody, approved = answers
    assert asked.accepted and asked.pending and "r1" in asked.message
    assert not same.accepted and "another person" in same.message
    assert not unknown.accepted and "waiting: r1" in unknown.message
    assert not nobody.accepted
    assert approved.accepted and not approved.pending
    record = next(a for a in made.run.answers if a.kind is kind)
    assert (record.by, record.approved_by, record.pending) == ("ann", "bob", False)


async def test_a_request_that_nobody_approves_in_time_is_void() -> None:
    made = world(approvals=2, approval_expiry="PT30M")
    late: list[Answer] = []
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT, by="ann", request_id="r1"))
    made.runtime.after(
        HOUR + 31 * MINUTE,
        lambda: late.append(made.ask(RequestKind.APPROVE, of="r1", by="bob")),
    )
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.UNDO, by="ann", request_id="r2"))
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.APPROVE, of="r2", by="bob"))

    assert await made.live() is Outcome.UNDONE

    assert not late[0].accepted
    void = next(a for a in made.run.answers if a.request_id == "r1")
    assert not void.accepted and "void" in void.message


async def test_what_waits_for_approval_means_the_same_in_the_next_execution() -> None:
    first = {"mode": "scheduled", "at": "2026-01-03T00:00:00Z", "downtime_budget": "PT10M"}
    made = world(approvals=2, switch=first)
    later = {"at": "2026-01-10T00:00:00Z"}
    made.runtime.after(
        HOUR, lambda: made.ask(RequestKind.RESCHEDULE, by="ann", request_id="r", switch=later)
    )
    made.runtime.after(HOUR + MINUTE, lambda: setattr(made.runtime, "long_history", True))
    with pytest.raises(GoOnLater):
        await made.live()

    then = world(made.run.carry(made.runtime.now(), made.runtime.now()))
    then.runtime.clock = made.runtime.clock
    then.ask(RequestKind.APPROVE, of="r", by="bob")
    then.runtime.after(HOUR, lambda: then.ask(RequestKind.UNDO, by="ann", request_id="u"))
    then.runtime.after(HOUR, lambda: then.ask(RequestKind.APPROVE, of="u", by="bob"))
    assert await then.runtime.drive(then.life.live(taken_up=True)) is Outcome.UNDONE

    policy = then.run.facts.switching
    assert policy.mode is SwitchMode.SCHEDULED
    assert policy.at == datetime(2026, 1, 10, tzinfo=UTC)
    assert policy.downtime_budget == 10 * MINUTE
    assert "power_off" not in then.runtime.names()


async def test_a_repeat_of_a_request_that_has_expired_is_told_so() -> None:
    made = world(approvals=2, approval_expiry="PT30M")
    repeat: list[Answer] = []

    def ask() -> Answer:
        return made.ask(RequestKind.COMMIT, by="ann", request_id="r1")

    made.runtime.after(HOUR, ask)
    made.runtime.after(2 * HOUR, lambda: repeat.append(ask()))
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.UNDO, by="ann", request_id="u"))
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.APPROVE, of="u", by="bob"))

    assert await made.live() is Outcome.UNDONE
    assert not repeat[0].accepted and not repeat[0].pending and "void" in repeat[0].message


async def test_an_approval_of_what_is_not_allowed_any_more_is_refused() -> None:
    made = world(approvals=2, switch="manual")
    answers: list[Answer] = []
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER, by="ann", request_id="s"))
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.UNDO, by="ann", request_id="u"))
    made.runtime.after(2 * MINUTE, lambda: made.ask(RequestKind.APPROVE, of="u", by="bob"))
    made.runtime.after(
        2 * MINUTE, lambda: answers.append(made.ask(RequestKind.APPROVE, of="s", by="bob"))
    )

    assert await made.live() is Outcome.UNDONE
    assert not answers[0].accepted and "undo was accepted" in answers[0].message


async def test_there_is_no_way_around_two_persons() -> None:
    made = world(approvals=2)
    answers: list[Answer] = []

    def try_all() -> None:
        answers.append(made.ask(RequestKind.COMMIT))
        answers.append(
            made.ask(
                RequestKind.ADJUST, finalize={"mode": "auto_commit", "after": "PT1S"}, by="ann"
            )
        )
        requests.cancelled(made.run, made.runtime.now())

    made.runtime.after(MINUTE, try_all)
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT, by="ann", request_id="c"))
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.APPROVE, of="c", by="bob"))

    assert await made.live() is Outcome.COMMITTED

    bare, adjust = answers
    assert not bare.accepted and "two persons" in bare.message
    assert adjust.pending
    assert made.runtime.clock.hour == 1
    cancelled = next(a for a in made.run.answers if a.by == "temporal")
    assert not cancelled.accepted


@pytest.mark.parametrize(
    ("switch", "waits"),
    [
        ({"mode": "auto"}, True),
        ({"mode": "scheduled", "at": "2026-01-01T00:02:00Z"}, True),
        ({"mode": "manual", "downtime_budget": "PT1S", "on_overrun": "undo"}, True),
        ({"mode": "manual"}, False),
    ],
)
def test_a_reschedule_by_which_one_person_would_switch_waits_too(
    switch: dict[str, str], waits: bool
) -> None:
    made = world(approvals=2, switch="manual")
    made.run.phase = Phase.READY_TO_SWITCH
    before = made.run.facts.switching

    answer = made.ask(RequestKind.RESCHEDULE, by="ann", request_id="r", switch=switch)

    assert answer.accepted and answer.pending is waits
    assert made.run.facts.switching == before
    if waits:
        assert made.ask(RequestKind.APPROVE, of="r", by="bob").accepted
        assert made.run.facts.switching != before


async def test_a_repeat_of_a_waiting_request_answers_the_same() -> None:
    made = world(approvals=2)
    answers: list[Answer] = []

    def twice() -> None:
        answers.extend(made.ask(RequestKind.COMMIT, by="ann", request_id="c") for _ in range(2))

    made.runtime.after(HOUR, twice)
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.APPROVE, of="c", by="bob"))

    await made.live()

    assert answers[0] == answers[1]
