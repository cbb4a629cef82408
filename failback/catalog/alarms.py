"""Alarms: what people must see, kept for ever."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select

from failback.catalog.records import Alarm
from failback.catalog.tables import AlarmRow


def add(session: Session, run_id: str, code: str, message: str, now: datetime) -> None:
    """Record an alarm; the same one again counts up, so that a watch cannot flood the table."""
    row = session.exec(
        select(AlarmRow)
        .where(AlarmRow.run_id == run_id, AlarmRow.code == code, AlarmRow.message == message)
        .with_for_update()
    ).first()
    if row is None:
        session.add(AlarmRow(run_id=run_id, at=now, last_at=now, code=code, message=message))
    else:
        row.last_at, row.times = now, row.times + 1


def of_run(session: Session, run_id: str) -> tuple[Alarm, ...]:
    """Alarms of a run, oldest first."""
    rows = session.exec(
        select(AlarmRow).where(AlarmRow.run_id == run_id).order_by(col(AlarmRow.id))
    ).all()
    return tuple(
        Alarm(row.run_id, row.at, row.last_at, row.times, row.code, row.message) for row in rows
    )
