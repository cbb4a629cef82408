"""The limits of a run's transfers: written by `adjust`, read by its movers every two seconds."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session

from failback.catalog import runs
from failback.catalog.tables import RunLimitsRow
from failback.contracts.policies import Limits


def put(session: Session, run_id: str, limits: Limits, now: datetime) -> None:
    """These limits and no others. The run's row is locked: two writers take turns."""
    runs.find(session, run_id)
    row = session.get(RunLimitsRow, run_id)
    text = limits.model_dump_json()
    if row is None:
        session.add(RunLimitsRow(run_id=run_id, limits=text, written_at=now))
    else:
        row.limits, row.written_at = text, now


def get(session: Session, run_id: str) -> Limits | None:
    """The limits of a run; None where nobody has set any."""
    row = session.get(RunLimitsRow, run_id)
    return None if row is None else Limits.model_validate_json(row.limits)
