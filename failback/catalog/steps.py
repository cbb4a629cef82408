"""The journal of a run: intent before an operation is issued, result and failures after it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from failback.catalog import runs
from failback.catalog.records import Beginning, StepRecord
from failback.catalog.tables import StepRow


def _find(session: Session, run_id: str, step: str, object: str) -> StepRow | None:
    return session.exec(
        select(StepRow)
        .where(StepRow.run_id == run_id, StepRow.step == step, StepRow.object == object)
        .with_for_update()
    ).one_or_none()


def _find_or_add(session: Session, run_id: str, step: str, object: str, at: datetime) -> StepRow:
    row = _find(session, run_id, step, object)
    if row is None:
        runs.find(session, run_id)
        row = StepRow(run_id=run_id, step=step, object=object, intent_at=at, started_at=at)
        session.add(row)
        session.flush()
    return row


def intent(
    session: Session, run_id: str, step: str, object: str, mark: str, at: datetime
) -> datetime:
    """About to be issued (again). Returns when it was so for the first time."""
    row = _find_or_add(session, run_id, step, object, at)
    row.mark, row.started_at, row.finished_at = mark, at, None
    row.attempts += 1
    return row.intent_at


def begin(session: Session, beginning: Beginning, at: datetime) -> None:
    """Intent, the run's phase and a clean slate for a new scheduling, in one go."""
    run_id, step, object = beginning.run_id, beginning.step, beginning.object
    intent(session, run_id, step, object, beginning.mark, at)
    if beginning.phase is not None:
        runs.set_phase(session, run_id, beginning.phase)
    if beginning.first:
        progress(session, run_id, step, object)


def finished(
    session: Session, run_id: str, step: str, object: str, evidence: str, at: datetime
) -> None:
    """Done, with what people and later steps need to know."""
    row = _find_or_add(session, run_id, step, object, at)
    row.evidence, row.finished_at = evidence, at
    row.failing_since = None


def failed(
    session: Session, run_id: str, step: str, object: str, error: str, now: datetime
) -> timedelta:
    """An attempt failed. Returns for how long attempts have failed without progress between."""
    row = _find_or_add(session, run_id, step, object, now)
    row.last_error = error
    if row.failing_since is None:
        row.failing_since = now
    # A clock that was set back must not make patience longer than it is.
    return max(now - row.failing_since, timedelta(0))


def progress(session: Session, run_id: str, step: str, object: str) -> None:
    """Durable progress: the next failure is the first again."""
    row = _find(session, run_id, step, object)
    if row is not None:
        row.failing_since = None


def has(session: Session, run_id: str, step: str, object: str) -> bool:
    """Whether an intent was ever recorded."""
    return session.get(StepRow, (run_id, step, object)) is not None


def of_run(session: Session, run_id: str) -> tuple[StepRecord, ...]:
    """Steps of a run in the order of their first intent."""
    rows = session.exec(
        select(StepRow)
        .where(StepRow.run_id == run_id)
        .order_by(col(StepRow.intent_at), col(StepRow.step), col(StepRow.object))
    ).all()
    return tuple(StepRecord(**row.model_dump()) for row in rows)
