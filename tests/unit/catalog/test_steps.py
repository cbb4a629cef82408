"""The journal of steps, and alarms."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.exc import StatementError

from failback.catalog.repository import Catalog
from failback.errors import StateConflict
from tests.unit.catalog.build import NOW, add, start

RUN, STEP, DISK = "run-a", "transport_changes", "scsi0:0"
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _run(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, RUN, "web")


def test_the_first_intent_is_remembered(catalog: Catalog) -> None:
    first = catalog.step_intent(RUN, STEP, DISK, mark="m1", at=NOW)
    second = catalog.step_intent(RUN, STEP, DISK, mark="m2", at=NOW + SECOND)

    assert first == second == NOW
    step = catalog.steps(RUN)[0]
    assert (step.intent_at, step.started_at) == (NOW, NOW + SECOND)
    assert (step.attempts, step.mark, step.finished_at) == (2, "m2", None)


def test_a_finished_step_carries_its_evidence_until_it_is_issued_again(catalog: Catalog) -> None:
    catalog.step_intent(RUN, STEP, DISK, mark="", at=NOW)
    catalog.step_finished(RUN, STEP, DISK, evidence='{"bytes": 1}', at=NOW + SECOND)

    done = catalog.steps(RUN)[0]
    assert (done.finished_at, done.evidence) == (NOW + SECOND, '{"bytes": 1}')

    catalog.step_intent(RUN, STEP, DISK, mark="", at=NOW + 2 * SECOND)
    assert catalog.steps(RUN)[0].finished_at is None


def test_failures_are_timed_from_the_first_without_progress(catalog: Catalog) -> None:
    catalog.step_intent(RUN, STEP, DISK, mark="", at=NOW)

    assert catalog.step_failed(RUN, STEP, DISK, error="one", now=NOW) == timedelta(0)
    assert catalog.step_failed(RUN, STEP, DISK, error="two", now=NOW + SECOND) == SECOND
    assert catalog.steps(RUN)[0].last_error == "two"
    assert catalog.steps(RUN)[0].failing_since == NOW

    catalog.step_progress(RUN, STEP, DISK)
    later = NOW + 5 * SECOND
    assert catalog.step_failed(RUN, STEP, DISK, error="three", now=later) == timedelta(0)


def test_success_ends_a_row_of_failures(catalog: Catalog) -> None:
    catalog.step_failed(RUN, STEP, DISK, error="one", now=NOW)

    catalog.step_finished(RUN, STEP, DISK, evidence="", at=NOW + SECOND)

    assert catalog.step_failed(RUN, STEP, DISK, error="x", now=NOW + 9 * SECOND) == timedelta(0)


def test_a_clock_that_went_back_does_not_lengthen_patience(catalog: Catalog) -> None:
    catalog.step_failed(RUN, STEP, DISK, error="one", now=NOW)

    assert catalog.step_failed(RUN, STEP, DISK, error="two", now=NOW - SECOND) == timedelta(0)


def test_objects_of_one_step_are_apart(catalog: Catalog) -> None:
    catalog.step_intent(RUN, STEP, "scsi0:0", mark="", at=NOW)
    catalog.step_intent(RUN, STEP, "scsi0:1", mark="", at=NOW + SECOND)
    catalog.step_finished(RUN, STEP, "scsi0:1", evidence="done", at=NOW + SECOND)

    assert [(step.object, step.evidence) for step in catalog.steps(RUN)] == [
        ("scsi0:0", ""),
        ("scsi0:1", "done"),
    ]
    assert catalog.has_step(RUN, STEP, "scsi0:1")
    assert not catalog.has_step(RUN, STEP, "scsi0:2")


def test_progress_of_an_unknown_step_is_nothing(catalog: Catalog) -> None:
    catalog.step_progress(RUN, "never", "seen")

    assert catalog.steps(RUN) == ()


def test_a_step_needs_its_run(catalog: Catalog) -> None:
    with pytest.raises(StateConflict, match="no run other"):
        catalog.step_intent("other", STEP, DISK, mark="", at=NOW)


def test_times_without_zone_are_refused(catalog: Catalog) -> None:
    with pytest.raises(StatementError, match="without time zone"):
        catalog.step_intent(RUN, STEP, DISK, mark="", at=NOW.replace(tzinfo=None))


def test_the_same_alarm_counts_up(catalog: Catalog) -> None:
    catalog.raise_alarm(RUN, "SPLIT_BRAIN", "both run")
    catalog.raise_alarm(RUN, "SPLIT_BRAIN", "both run")
    catalog.raise_alarm(RUN, "VERIFY_MISMATCH", "a block differs")

    assert [(alarm.code, alarm.times) for alarm in catalog.alarms(RUN)] == [
        ("SPLIT_BRAIN", 2),
        ("VERIFY_MISMATCH", 1),
    ]
    assert catalog.alarms(RUN)[0].at == NOW


def test_an_alarm_needs_no_run(catalog: Catalog) -> None:
    catalog.raise_alarm("unknown", "SPLIT_BRAIN", "both run")

    assert len(catalog.alarms("unknown")) == 1


def test_a_trouble_that_lasts_is_one_alarm_that_says_what_was_said_last(catalog: Catalog) -> None:
    catalog.raise_alarm(RUN, "OTHER", "that one stays")
    for message in ("locked by one", "locked by another", "locked by another"):
        catalog.raise_alarm(RUN, "CLEANUP", message, lasting=True)

    assert [(alarm.code, alarm.message, alarm.times) for alarm in catalog.alarms(RUN)] == [
        ("OTHER", "that one stays", 1),
        ("CLEANUP", "locked by another", 3),
    ]
