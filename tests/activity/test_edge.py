"""What stands around every activity: leases, patience, stops, records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, CancelledError

from activities.edge import Attempt, bind
from failback.catalog.records import StepRecord
from failback.contracts.operations import Done, PowerOff, RemoveSnapshot
from failback.contracts.words import Phase, PowerState, StepName
from failback.errors import DiskFull, LeaseLost, SiteBusy
from tests.activity.world import World
from workflows import operations as op
from workflows.operations import Operation

CONVERTER = pydantic_data_converter.payload_converter


def remove(world: World, **more: Any) -> RemoveSnapshot:
    head = world.head(StepName.UNFREEZE_REPLICA, **more)
    return RemoveSnapshot(**head, vm=world.replica, purpose="read-1")


def with_method(world: World, method: Any) -> Any:
    """The real edge around a method of the test."""
    return bind(op.REMOVE_SNAPSHOT, method, world.catalog)


def test_an_attempt_that_was_overtaken_can_no_longer_change_anything(world: World) -> None:
    def overtaken(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        world.catalog.take_lease("replica/web01", "a newer attempt")
        world.dr.power_off(world.replica, attempt.beat)
        return Done()

    with pytest.raises(ApplicationError) as caught:
        world.environment().run(with_method(world, overtaken), remove(world))

    assert caught.value.type == LeaseLost.__name__
    assert world.dr.vm(world.replica).power is PowerState.ON


def test_an_attempt_of_an_earlier_step_is_stopped_by_a_later_one(world: World) -> None:
    beats = []

    def slow(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        world.run("power_off", PowerOff(**world.head(StepName.SETTLE), vm=world.target))
        try:
            attempt.beat()
        except LeaseLost:
            beats.append("lost")
            raise
        return Done()

    with pytest.raises(ApplicationError):
        world.environment().run(with_method(world, slow), remove(world))

    assert beats == ["lost"]


def test_retryable_trouble_becomes_a_question_when_patience_ends(world: World) -> None:
    def busy(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        raise SiteBusy("A task runs on it.", "Wait for it.")

    function, argument = with_method(world, busy), remove(world, patience=timedelta(0))

    with pytest.raises(ApplicationError) as first:
        world.environment().run(with_method(world, busy), remove(world))
    with pytest.raises(ApplicationError) as last:
        world.environment(attempt=7).run(function, argument)

    assert (first.value.type, first.value.non_retryable) == ("SiteBusy", False)
    assert (last.value.type, last.value.non_retryable) == ("SiteBusy", True)
    assert last.value.details[0]["tried"].startswith("7 attempts in")


def test_a_new_scheduling_begins_with_new_patience(world: World) -> None:
    def busy(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        raise SiteBusy("A task runs on it.")

    argument = remove(world, patience=timedelta(minutes=1))
    key = ("run-1", StepName.UNFREEZE_REPLICA.value, str(world.replica))
    world.catalog.step_intent(*key, mark="", at=datetime(2026, 1, 1, tzinfo=UTC))
    world.catalog.step_failed(*key, error="x", now=datetime(2026, 1, 1, tzinfo=UTC))

    with pytest.raises(ApplicationError) as again:
        world.environment(attempt=2).run(with_method(world, busy), argument)
    with pytest.raises(ApplicationError) as anew:
        world.environment(attempt=1).run(with_method(world, busy), argument)

    assert again.value.non_retryable
    assert not anew.value.non_retryable


def test_hopeless_trouble_is_a_question_at_once(world: World) -> None:
    def full(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        raise DiskFull("No room on ds-production.", "Make room.", offset=4096)

    with pytest.raises(ApplicationError) as caught:
        world.environment().run(with_method(world, full), remove(world))

    assert caught.value.non_retryable
    assert caught.value.message == "No room on ds-production. Make room."
    assert caught.value.details[0]["evidence"] == {"offset": 4096}
    # A chain of causes with tracebacks makes the server cut the whole failure off.
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


def test_a_cancel_stops_at_the_next_beat(world: World) -> None:
    environment = world.environment()

    def work(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        environment.cancel()
        attempt.beat()
        return Done()

    with pytest.raises(CancelledError):
        environment.run(with_method(world, work), remove(world))


def test_a_worker_shutdown_hands_over_at_once(world: World) -> None:
    environment = world.environment()

    def work(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        environment.worker_shutdown()
        attempt.beat()
        return Done()

    with pytest.raises(ApplicationError) as caught:
        environment.run(with_method(world, work), remove(world))

    assert caught.value.type == "Stopped"
    assert caught.value.next_retry_delay == timedelta(milliseconds=1)
    assert not caught.value.non_retryable


def test_intent_is_on_record_before_the_operation_and_evidence_after(world: World) -> None:
    seen: list[StepRecord] = []

    def look(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        seen.extend(world.catalog.steps("run-1"))
        return Done(evidence="done")

    world.environment().run(with_method(world, look), remove(world))

    row = world.catalog.steps("run-1")[0]
    assert seen[0].finished_at is None
    assert seen[0].mark == "failback/run-1/read-1"
    assert row.finished_at is not None and "done" in str(row.evidence)


def test_the_heart_beats_while_a_call_blocks(world: World) -> None:
    beats: list[Any] = []
    environment = world.environment(heartbeat_timeout=timedelta(seconds=0.2))
    environment.on_heartbeat = lambda *details: beats.append(details)

    def block(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        import time

        deadline = time.monotonic() + 10
        while len(beats) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        return Done()

    environment.run(with_method(world, block), remove(world))

    assert len(beats) >= 3


def test_the_catalog_knows_the_phase_and_that_an_operator_is_needed(world: World) -> None:
    def full(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        assert world.catalog.get_run("run-1").phase == "SYNCING"
        raise DiskFull("No room on ds-production.", "Make room.")

    with pytest.raises(ApplicationError):
        world.environment().run(with_method(world, full), remove(world, phase=Phase.SYNCING))

    assert world.catalog.get_run("run-1").phase == "NEEDS_OPERATOR(SYNCING)"


@pytest.mark.parametrize(("patience", "asks"), [(timedelta(hours=1), False), (timedelta(0), True)])
def test_patience_holds_for_what_nobody_has_foreseen(
    world: World, patience: timedelta, asks: bool
) -> None:
    def broken(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        raise KeyError("password=geheim")

    with pytest.raises(ApplicationError) as caught:
        world.environment().run(with_method(world, broken), remove(world, patience=patience))

    assert (caught.value.type, caught.value.non_retryable) == ("Unexpected", asks)
    assert "KeyError" in caught.value.message and "geheim" not in caught.value.message
    (row,) = world.catalog.steps("run-1")
    assert "KeyError" in (row.last_error or "")


class Newer(RemoveSnapshot):
    """As another version might want it."""

    added: int


NEWER = Operation("remove_snapshot", Newer, Done, op.REMOVE_SNAPSHOT.preset)


def raw(value: Any) -> RawValue:
    """As it comes over the wire."""
    payload = value if isinstance(value, Payload) else CONVERTER.to_payloads([value])[0]
    return RawValue(payload)


def attempt(world: World, given: list[Any], **more: Any) -> ApplicationError:
    """How an attempt that is given this ends."""
    environment = world.environment()
    environment.payload_converter = CONVERTER
    called: list[Any] = []

    def method(argument: Newer, attempt: Attempt) -> Done:
        called.append(argument)
        return Done()

    with pytest.raises(ApplicationError) as caught:
        environment.run(bind(NEWER, method, world.catalog, **more), *given)
    assert called == []
    return caught.value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (None, "added: Field required"),
        (b'{"run": "\\ud800"}', "input: Invalid JSON"),
        (b"", "input: Invalid JSON"),
        ("unknown encoding", "KeyError"),
    ],
)
def test_an_argument_that_does_not_fit_is_a_question_at_once(
    world: World, body: bytes | str | None, why: str
) -> None:
    value: Any = remove(world, phase=Phase.SYNCING)
    if isinstance(body, bytes):
        value = Payload(metadata={"encoding": b"json/plain"}, data=body)
    if isinstance(body, str):
        value = Payload(metadata={"encoding": b"x/y"}, data=b"geheim")

    error = attempt(world, [raw(value)])

    assert (error.type, error.non_retryable) == ("VersionMismatch", True)
    assert f"asks of remove_snapshot ({why}" in error.message
    assert "Bring all workers to one version" in error.message
    assert error.details[0]["tried"].startswith("1 attempts in")
    assert error.__cause__ is None and "geheim" not in error.message
    wanted = "NEEDS_OPERATOR(SYNCING)" if body is None else "PREFLIGHT"
    assert world.catalog.get_run("run-1").phase == wanted


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_arguments_does_not_fit_either(world: World, count: int) -> None:
    error = attempt(world, [remove(world)] * count)

    assert (error.type, error.non_retryable) == ("VersionMismatch", True)
    assert f"{count} arguments instead of one" in error.message


def test_what_nobody_attends_to_waits_for_a_worker_that_fits_and_raises_an_alarm(
    world: World,
) -> None:
    error = attempt(world, [raw(remove(world))], attended=False)

    assert (error.type, error.non_retryable) == ("VersionMismatch", False)
    (alarm,) = world.catalog.alarms("run-1")
    assert alarm.code == "VERSION_MISMATCH" and "is not done yet" in alarm.message


def test_an_argument_that_came_over_the_wire_is_what_the_method_gets(world: World) -> None:
    environment, sent = world.environment(), remove(world, patience=timedelta(minutes=7))
    environment.payload_converter = CONVERTER
    seen: list[RemoveSnapshot] = []

    def look(argument: RemoveSnapshot, attempt: Attempt) -> Done:
        seen.append(argument)
        return Done()

    environment.run(with_method(world, look), raw(sent))

    assert seen == [sent]
