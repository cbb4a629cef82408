"""The ledger over SQL: plans and finished segments of every disk's pass.

Fencing: opening a pass raises its epoch, and every commit begins with an update of the plan's row
under the epoch it was opened with. Where that hits no row, a newer attempt has the pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, insert, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, delete, select

from failback.catalog.extents import decode, encode
from failback.catalog.repository import Catalog, utc_now
from failback.catalog.tables import LedgerPlanRow, LedgerSegmentRow
from failback.disks.ledger import (
    LedgerIdentity,
    PassLedger,
    SegmentRecord,
    SegmentSet,
    SegmentTotals,
)
from failback.disks.plan import Extent, TransferPlan, union
from failback.errors import LeaseLost, StateConflict

ROWS_AT_ONCE = 500
"""Rows in one statement: databases limit the parameters of one."""

PAGE_ROWS = 1000
"""Rows fetched at once: what is held in memory of a pass with a million segments."""


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

    def forget(self, plan_id: str) -> None:
        """Remove a plan and its segments; success also where there is none. Who has it open loses
        it (LeaseLost)."""
        self._database.write(_forget, plan_id)

    def written(self, disk_id: str) -> Iterator[Extent]:
        """Union of the written extents of all passes of this disk, merged and sorted.

        Pages of the ledger are read as it is consumed, each in a transaction of its own."""
        plan_ids = self._database.read(_plan_ids, disk_id)
        return _joined(heapq.merge(*(self._written_in_order(plan_id) for plan_id in plan_ids)))

    def fold(self, disk_id: str, *, check: Callable[[], None], but: str = "") -> None:
        """Move what complete passes wrote into the first of them; pages in transactions of their
        own, so that no commit of a mover waits for long."""
        check()
        while self._database.write(_fold, disk_id, but):
            check()

    def finished(self, plan_id: str) -> SegmentSet:
        """Numbers of the finished segments of a plan."""
        return self._database.read(_finished, plan_id)

    def totals(self, plan_id: str) -> SegmentTotals:
        """Sums over the finished segments of a plan."""
        return self._database.read(_totals, plan_id)

    def records(self, plan_id: str) -> Iterator[SegmentRecord]:
        """Finished segments of a plan in their order, a page at a time."""
        first = 0
        while page := self._database.read(_page, plan_id, first):
            yield from page
            first = page[-1].index + 1

    def _written_in_order(self, plan_id: str) -> Iterator[Extent]:
        for record in self.records(plan_id):
            yield from record.written

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

    def finished(self) -> SegmentSet:
        """Segments that are equal and flushed."""
        return self._store.finished(self._plan_id)

    def totals(self) -> SegmentTotals:
        """Counters of the finished segments."""
        return self._store.totals(self._plan_id)

    def records(self) -> Iterator[SegmentRecord]:
        """The finished segments in their order."""
        return self._store.records(self._plan_id)

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


def _forget(session: Session, plan_id: str) -> None:
    # The plan's row first: a commit that comes now waits for this transaction, and finds none.
    _locked(session, plan_id)
    session.exec(delete(LedgerSegmentRow).where(col(LedgerSegmentRow.plan_id) == plan_id))
    session.exec(delete(LedgerPlanRow).where(col(LedgerPlanRow.plan_id) == plan_id))


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
    _remove(session, plan_id, [record.index for record in records])
    _insert(session, plan_id, records)


def _remove(session: Session, plan_id: str, numbers: Sequence[int]) -> None:
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        session.exec(
            delete(LedgerSegmentRow).where(
                col(LedgerSegmentRow.plan_id) == plan_id,
                col(LedgerSegmentRow.segment_no).in_(numbers[start : start + ROWS_AT_ONCE]),
            )
        )


def _insert(session: Session, plan_id: str, records: Sequence[SegmentRecord]) -> None:
    for start in range(0, len(records), ROWS_AT_ONCE):
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
                for record in records[start : start + ROWS_AT_ONCE]
            ],
        )


def _finished(session: Session, plan_id: str) -> SegmentSet:
    found, last = SegmentSet(), -1
    # Pages, because a driver may hold a whole answer in memory.
    while page := session.exec(
        select(LedgerSegmentRow.segment_no)
        .where(LedgerSegmentRow.plan_id == plan_id, LedgerSegmentRow.segment_no > last)
        .order_by(col(LedgerSegmentRow.segment_no))
        .limit(10 * PAGE_ROWS)
    ).all():
        for last in page:
            found.add(last)
    return found


def _totals(session: Session, plan_id: str) -> SegmentTotals:
    row = LedgerSegmentRow
    counted = (row.examined_bytes, row.different_bytes, row.written_bytes, row.zeroed_bytes)
    sums = session.connection().execute(
        select_columns(
            func.count(), *(func.coalesce(func.sum(column), 0) for column in counted)
        ).where(col(row.plan_id) == plan_id)
    )
    # PostgreSQL sums big integers as decimals.
    return SegmentTotals(*(int(number) for number in sums.one()))


def _page(session: Session, plan_id: str, first: int) -> list[SegmentRecord]:
    number = col(LedgerSegmentRow.segment_no)
    return _records(session, plan_id, number >= first, PAGE_ROWS)


def _chosen(session: Session, plan_id: str, numbers: Sequence[int]) -> Iterator[SegmentRecord]:
    number = col(LedgerSegmentRow.segment_no)
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        chunk = numbers[start : start + ROWS_AT_ONCE]
        yield from _records(session, plan_id, number.in_(chunk), len(chunk))


def _records(
    session: Session, plan_id: str, which: ColumnElement[bool], most: int
) -> list[SegmentRecord]:
    rows = session.connection().execute(
        select_columns(
            col(LedgerSegmentRow.segment_no),
            col(LedgerSegmentRow.examined_bytes),
            col(LedgerSegmentRow.different_bytes),
            col(LedgerSegmentRow.written_bytes),
            col(LedgerSegmentRow.zeroed_bytes),
            col(LedgerSegmentRow.written),
        )
        .where(col(LedgerSegmentRow.plan_id) == plan_id, which)
        .order_by(col(LedgerSegmentRow.segment_no))
        .limit(most)
    )
    return [
        SegmentRecord(index, examined, different, written, zeroed, decode(extents))
        for index, examined, different, written, zeroed, extents in rows
    ]


def _fold(session: Session, disk_id: str, but: str) -> bool:
    """Move one page; whether there is more."""
    row = LedgerPlanRow
    complete = session.exec(
        select(row)
        .where(row.disk_id == disk_id, col(row.completed_at).is_not(None), row.plan_id != but)
        .order_by(col(row.saved_at), col(row.plan_id))
    ).all()
    # Segments of another size would come in another order.
    same = [plan for plan in complete if plan.segment_bytes == complete[0].segment_bytes]
    if len(same) < 2:
        return False
    first, second = _locked(session, same[0].plan_id), _locked(session, same[1].plan_id)
    if first is None or second is None:
        return True
    page = _page(session, second.plan_id, 0)
    if not page:
        session.delete(second)
        return True
    numbers = [record.index for record in page]
    old = {record.index: record for record in _chosen(session, first.plan_id, numbers)}
    moved = [_united(old.get(record.index), record) for record in page]
    _remove(session, first.plan_id, numbers)
    _insert(session, first.plan_id, moved)
    _remove(session, second.plan_id, numbers)
    return True


def _united(old: SegmentRecord | None, new: SegmentRecord) -> SegmentRecord:
    """The counters of the pass that keeps the segment, and what both wrote."""
    if old is None:
        return SegmentRecord(new.index, 0, 0, 0, 0, new.written)
    return replace(old, written=union(old.written, new.written))


def _plan_ids(session: Session, disk_id: str) -> Sequence[str]:
    return session.exec(select(LedgerPlanRow.plan_id).where(LedgerPlanRow.disk_id == disk_id)).all()


def _joined(extents: Iterator[Extent]) -> Iterator[Extent]:
    """Touching and overlapping ones as one; they come in order."""
    start = end = 0
    for extent in extents:
        if extent.offset > end:
            if end > start:
                yield Extent(start, end - start)
            start = extent.offset
        end = max(end, extent.end)
    if end > start:
        yield Extent(start, end - start)
