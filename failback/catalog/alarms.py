"""Alarms: what people must see, kept for ever."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select

from failback.catalog.records import Alarm
from failback.catalog.tables import AlarmRow


def add(
    session: Session, run_id: str, code: str, message: str, now: datetime, lasting: bool = False
) -> None:
    """Record an alarm; the same one again counts up, so that a watch cannot flood the table.

    Args:
        lasting: of this code the run has one alarm, which says what was said last.
    """
    same = select(AlarmRow).where(AlarmRow.run_id == run_id, AlarmRow.code == code)
    if not lasting:
        same = same.where(AlarmRow.message == message)
    row = session.exec(same.with_for_update()).first()
    if row is None:
        session.add(AlarmRow(run_id=run_id, at=now, last_at=now, code=code, message=message))
    else:
        row.last_at, row.times, row.message = now, row.times + 1, message


def of_run(session: Session, run_id: str) -> tuple[Alarm, ...]:
    """Alarms of a run, oldest first."""
    rows = session.exec(
        select(AlarmRow).where(AlarmRow.run_id == run_id).order_by(col(AlarmRow.id))
    ).all()
    return tuple(
        Alarm(row.run_id, row.at, row.last_at, row.times, row.code, row.message) for row in rows
    )
