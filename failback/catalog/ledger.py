"""The ledger over SQL: plans and finished segments of every disk's pass.

Fencing: opening a pass raises its epoch, and every commit begins with an update of the plan's row
under the epoch it was opened with. Where that hits no row, a newer attempt has the pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, insert, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, delete, select

from failback.catalog.extents import decode, encode
from failback.catalog.repository import Catalog, utc_now
from failback.catalog.tables import LedgerPlanRow, LedgerSegmentRow
from failback.disks.ledger import LedgerIdentity, PassLedger, SegmentRecord
from failback.disks.plan import Extent, TransferPlan
from failback.errors import LeaseLost, StateConflict

ROWS_AT_ONCE = 500
"""Rows in one statement: databases limit the parameters of one."""


class SqlLedgerStore:
    """LedgerStore in the catalog's database."""

    def __init__(self, catalog: Catalog, *, now: Callable[[], datetime] = utc_now) -> None:
        self._database, self._now = catalog.database, now

    def save(
        self, plan_id: str, disk_id: str, identity: LedgerIdentity, plan: TransferPlan
    ) -> None:
        """Store a plan; same id, disk, identity and plan keeps its segments, else they go."""
        self._database.write(_save, plan_id, disk_id, identity, plan, self._now())

    def open(self, plan_id: str, owner: str) -> PassLedger:
        """Take the pass over; StateConflict where no such plan was saved."""
        plan, epoch = self._database.write(_open, plan_id, owner)
        return SqlPassLedger(self, plan_id, plan, epoch)

    def is_complete(self, plan_id: str) -> bool:
        """Whether the pass was completed under its present plan."""
        return self._database.read(
            lambda session: (
                (row := session.get(LedgerPlanRow, plan_id)) is not None
                and row.completed_at is not None
            )
        )

    def written(self, disk_id: str) -> tuple[Extent, ...]:
        """Union of the written extents of all passes of this disk."""
        return self._database.read(_written, disk_id)

    def finished(self, plan_id: str) -> dict[int, SegmentRecord]:
        """Finished segments of a plan, by index."""
        return self._database.read(_finished, plan_id)

    def commit(self, plan_id: str, epoch: int, records: Sequence[SegmentRecord]) -> None:
        """All of these, or LeaseLost."""
        self._database.write(_commit, plan_id, epoch, records)

    def complete(self, plan_id: str, epoch: int) -> None:
        """The pass is complete, or LeaseLost."""
        self._database.write(_complete, plan_id, epoch, self._now())


class SqlPassLedger:
    """PassLedger of one attempt: a plan and the epoch under which it was opened."""

    def __init__(self, store: SqlLedgerStore, plan_id: str, plan: TransferPlan, epoch: int) -> None:
        self._store, self._plan_id, self._plan, self._epoch = store, plan_id, plan, epoch

    @property
    def plan(self) -> TransferPlan:
        return self._plan

    def finished(self) -> Mapping[int, SegmentRecord]:
        """Segments that are equal and flushed, by index."""
        return self._store.finished(self._plan_id)

    def commit(self, records: Sequence[SegmentRecord]) -> None:
        """All of these are finished, durably; LeaseLost, CatalogUnavailable."""
        if records:
            self._store.commit(self._plan_id, self._epoch, records)

    def complete(self) -> None:
        """Mark the pass complete; same errors as commit."""
        self._store.complete(self._plan_id, self._epoch)


def _locked(session: Session, plan_id: str) -> LedgerPlanRow | None:
    return session.exec(
        select(LedgerPlanRow).where(LedgerPlanRow.plan_id == plan_id).with_for_update()
    ).one_or_none()


def _save(
    session: Session,
    plan_id: str,
    disk_id: str,
    identity: LedgerIdentity,
    plan: TransferPlan,
    now: datetime,
) -> None:
    values: dict[str, Any] = {
        "disk_id": disk_id,
        "source": identity.source,
        "target": identity.target,
        "base": identity.base,
        "capacity_bytes": plan.capacity_bytes,
        "segment_bytes": plan.segment_bytes,
        "areas": None if plan.areas is None else encode(plan.areas),
    }
    row = _locked(session, plan_id)
    if row is None:
        session.add(LedgerPlanRow(plan_id=plan_id, saved_at=now, **values))
        return
    if all(getattr(row, name) == value for name, value in values.items()):
        return
    session.exec(delete(LedgerSegmentRow).where(col(LedgerSegmentRow.plan_id) == plan_id))
    for name, value in values.items():
        setattr(row, name, value)
    # The epoch too: who opened the plan that was here must not commit into this one.
    row.epoch, row.owner, row.saved_at, row.completed_at = row.epoch + 1, "", now, None


def _open(session: Session, plan_id: str, owner: str) -> tuple[TransferPlan, int]:
    row = _locked(session, plan_id)
    if row is None:
        raise StateConflict(
            f"The ledger has no plan {plan_id}.", "Calculate the difference of that disk again."
        )
    row.epoch, row.owner = row.epoch + 1, owner
    areas = None if row.areas is None else decode(row.areas)
    return TransferPlan(row.capacity_bytes, row.segment_bytes, areas), row.epoch


def _fence(session: Session, plan_id: str, epoch: int, **values: datetime) -> None:
    """Hold the plan's row, under our epoch, until this transaction ends."""
    result = session.connection().execute(
        update(LedgerPlanRow)
        .where(col(LedgerPlanRow.plan_id) == plan_id, col(LedgerPlanRow.epoch) == epoch)
        .values(epoch=epoch, **values)
    )
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise LeaseLost(
            f"Pass {plan_id} was taken over by a newer attempt.",
            "Nothing is to be done: that attempt goes on.",
        )


def _complete(session: Session, plan_id: str, epoch: int, now: datetime) -> None:
    _fence(session, plan_id, epoch, completed_at=now)


def _commit(session: Session, plan_id: str, epoch: int, records: Sequence[SegmentRecord]) -> None:
    _fence(session, plan_id, epoch)
    for start in range(0, len(records), ROWS_AT_ONCE):
        chunk = records[start : start + ROWS_AT_ONCE]
        session.exec(
            delete(LedgerSegmentRow).where(
                col(LedgerSegmentRow.plan_id) == plan_id,
                col(LedgerSegmentRow.segment_no).in_([record.index for record in chunk]),
            )
        )
        session.connection().execute(
            insert(LedgerSegmentRow),
            [
                {
                    "plan_id": plan_id,
                    "segment_no": record.index,
                    "examined_bytes": record.examined_bytes,
                    "different_bytes": record.different_bytes,
                    "written_bytes": record.written_bytes,
                    "zeroed_bytes": record.zeroed_bytes,
                    "written": encode(record.written),
                }
                for record in chunk
            ],
        )


def _finished(session: Session, plan_id: str) -> dict[int, SegmentRecord]:
    # Columns, not entities: a 64 TiB disk has a million of them.
    rows = session.connection().execute(
        select_columns(
            col(LedgerSegmentRow.segment_no),
            col(LedgerSegmentRow.examined_bytes),
            col(LedgerSegmentRow.different_bytes),
            col(LedgerSegmentRow.written_bytes),
            col(LedgerSegmentRow.zeroed_bytes),
            col(LedgerSegmentRow.written),
        ).where(col(LedgerSegmentRow.plan_id) == plan_id)
    )
    return {
        index: SegmentRecord(index, examined, different, written, zeroed, decode(extents))
        for index, examined, different, written, zeroed, extents in rows
    }


def _written(session: Session, disk_id: str) -> tuple[Extent, ...]:
    plan_ids = session.exec(
        select(LedgerPlanRow.plan_id).where(LedgerPlanRow.disk_id == disk_id)
    ).all()
    merged: list[Extent] = []
    for extent in heapq.merge(*(_written_in_order(session, plan_id) for plan_id in plan_ids)):
        if merged and extent.offset <= merged[-1].end:
            last = merged[-1]
            merged[-1] = Extent(last.offset, max(last.end, extent.end) - last.offset)
        elif extent.length:
            merged.append(extent)
    return tuple(merged)


def _written_in_order(session: Session, plan_id: str) -> Iterator[Extent]:
    rows = session.connection().execute(
        select_columns(col(LedgerSegmentRow.written))
        .where(col(LedgerSegmentRow.plan_id) == plan_id)
        .order_by(col(LedgerSegmentRow.segment_no))
    )
    for (coded,) in rows:
        yield from decode(coded)
