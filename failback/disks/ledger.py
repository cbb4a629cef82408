"""The ledger: which segments of a disk are already equal, durably.

Order is everything: a segment's writes are answered, FLUSH is answered, and only then `commit`
makes the segment finished. A crash in between costs a repeated comparison, never a wrong byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from failback.disks.plan import Extent, TransferPlan


@dataclass(frozen=True)
class SegmentRecord:
    """What was done in one segment; all counters in bytes."""

    index: int
    examined_bytes: int
    different_bytes: int
    written_bytes: int
    zeroed_bytes: int
    written: tuple[Extent, ...]
    """Extents that were written or zeroed, merged, absolute offsets: verify reads them again."""


@dataclass(frozen=True)
class LedgerIdentity:
    """What a plan is about. A plan saved under another identity is discarded with its segments."""

    source: str
    """Identity of the source disk and of the snapshot or change id it is read at."""
    target: str
    """Identity of the target disk and of the snapshot chain it is written under."""
    base: str = ""
    """Change id the areas start from; empty for a comparison."""


class PassLedger(Protocol):
    """One disk's pass, held by one attempt."""

    @property
    def plan(self) -> TransferPlan: ...

    def finished(self) -> Mapping[int, SegmentRecord]:
        """Segments that are equal and flushed, by index."""
        ...

    def commit(self, records: Sequence[SegmentRecord]) -> None:
        """Make these segments finished, all or none, durable on return.

        Raises LeaseLost when a newer attempt has opened the pass, CatalogUnavailable when the
        database is locked, full or gone; in both cases nothing was recorded."""
        ...

    def complete(self) -> None:
        """Mark the pass complete (every segment finished and flushed); same errors as commit."""
        ...


class LedgerStore(Protocol):
    """All plans and their segments."""

    def save(
        self, plan_id: str, disk_id: str, identity: LedgerIdentity, plan: TransferPlan
    ) -> None:
        """Store a plan. The same id with the same identity and plan keeps its finished segments;
        anything else replaces it and forgets them. `disk_id` groups the passes of one disk."""
        ...

    def open(self, plan_id: str, owner: str) -> PassLedger:
        """Take the pass over: from now on every other holder's commit raises LeaseLost."""
        ...

    def written(self, disk_id: str) -> tuple[Extent, ...]:
        """Union of the written extents of all passes of this disk, merged and sorted."""
        ...
