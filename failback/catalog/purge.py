"""Removes what the ledger knows of runs that are over.

While a run is open its plans say what is finished and what was written; afterwards nobody asks.
What was moved and the roots of verification stay: they are evidence of the run's steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, delete, select

from failback.catalog.engine import Database
from failback.catalog.tables import LedgerPlanRow, LedgerSegmentRow, RunRow

BATCH_SEGMENTS = 20_000
"""Segments in one transaction: other writers wait for a tenth of a second, not for a million."""


@dataclass(frozen=True)
class Purged:
    """What was removed."""

    plans: int = 0
    segments: int = 0
    complete: bool = True
    """False if `max_segments` was reached: some is left for the next time."""


def purge(database: Database, ended_before: datetime, max_segments: int | None = None) -> Purged:
    """Remove plans and segments of runs that ended before this time.

    Idempotent because a run that has ended never goes on: killed in the middle it leaves less, and
    the next call removes the rest."""
    plans = segments = 0
    for plan_id in database.read(_plans, ended_before):
        while True:
            left = BATCH_SEGMENTS if max_segments is None else max_segments - segments
            if left <= 0:
                return Purged(plans, segments, complete=False)
            removed, gone = database.write(_remove, plan_id, min(left, BATCH_SEGMENTS))
            segments += removed
            if gone:
                plans += 1
                break
    return Purged(plans, segments)


def _plans(session: Session, ended_before: datetime) -> list[str]:
    runs = session.exec(
        select(RunRow.run_id).where(col(RunRow.ended_at) < ended_before).order_by(RunRow.run_id)
    ).all()
    known = session.exec(select(LedgerPlanRow.plan_id).order_by(LedgerPlanRow.plan_id)).all()
    ended = set(runs)
    # A plan's id begins with its run's; a few hundred plans at most, so not by the database.
    return [plan_id for plan_id in known if plan_id.partition("/")[0] in ended]


def _remove(session: Session, plan_id: str, count: int) -> tuple[int, bool]:
    """(segments removed, whether the plan is gone as well)."""
    numbers = session.exec(
        select(LedgerSegmentRow.segment_no)
        .where(LedgerSegmentRow.plan_id == plan_id)
        .order_by(col(LedgerSegmentRow.segment_no))
        .limit(count + 1)
    ).all()
    found = delete(LedgerSegmentRow).where(col(LedgerSegmentRow.plan_id) == plan_id)
    if len(numbers) > count:
        session.exec(found.where(col(LedgerSegmentRow.segment_no) < numbers[count]))
        return count, False
    session.exec(found)
    session.exec(delete(LedgerPlanRow).where(col(LedgerPlanRow.plan_id) == plan_id))
    return len(numbers), True
