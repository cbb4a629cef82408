"""The ledger: which segments of a disk are already equal, durably.

Order is everything: a segment's writes are answered, FLUSH is answered, and only then `commit`
makes the segment finished. A crash in between costs a repeated comparison, never a wrong byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
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


class SegmentSet(Set[int]):
    """A set of segment numbers, a bit for each: a million of them take 128 KiB."""

    def __init__(self, indices: Iterable[int] = ()) -> None:
        self._bits = bytearray()
        self._count = 0
        for index in indices:
            self.add(index)

    def add(self, index: int) -> None:
        place, bit = index >> 3, 1 << (index & 7)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        if not self._bits[place] & bit:
            self._bits[place] |= bit
            self._count += 1

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int) or not 0 <= index >> 3 < len(self._bits):
            return False
        return bool(self._bits[index >> 3] & 1 << (index & 7))

    def __iter__(self) -> Iterator[int]:
        for place, bits in enumerate(self._bits):
            if bits:
                yield from (place * 8 + bit for bit in range(8) if bits & 1 << bit)

    def __len__(self) -> int:
        return self._count


@dataclass(frozen=True)
class SegmentTotals:
    """Sums over the finished segments of a pass; all but the first in bytes."""

    segments: int = 0
    examined_bytes: int = 0
    different_bytes: int = 0
    written_bytes: int = 0
    zeroed_bytes: int = 0


def total(records: Iterable[SegmentRecord]) -> SegmentTotals:
    """The sums of these records."""
    count = examined = different = written = zeroed = 0
    for record in records:
        count += 1
        examined += record.examined_bytes
        different += record.different_bytes
        written += record.written_bytes
        zeroed += record.zeroed_bytes
    return SegmentTotals(count, examined, different, written, zeroed)


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

    def finished(self) -> Set[int]:
        """Segments that are equal and flushed. Only their numbers: a disk may have a million."""
        ...

    def totals(self) -> SegmentTotals:
        """Counters of the finished segments, whichever attempt finished them."""
        ...

    def records(self) -> Iterator[SegmentRecord]:
        """What was done in the finished segments, in their order, fetched as it is asked for."""
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

    def written(self, disk_id: str) -> Iterator[Extent]:
        """Union of the written extents of all passes of this disk, merged and sorted, fetched as
        it is asked for."""
        ...

    def fold(self, disk_id: str, *, check: Callable[[], None], but: str = "") -> None:
        """Move what complete passes of a disk wrote into its first complete pass, and forget them;
        `written` stays the same. A disk that is re-synchronised for months keeps few rows, and its
        verification, which is downtime, reads one pass.

        Args:
            check: called before each page; what it raises ends the fold. Who reads `written`
                meanwhile could miss a page that moves, so one that was frozen must not go on.
            but: plan id of a pass that is left alone.

        Idempotent because a union is, and every page moves in one transaction."""
        ...
