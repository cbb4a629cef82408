"""Extents and plans: pure functions over (offset, length) in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

BLOCK_BYTES = 64 * 1024
"""Granularity of comparison and of writes; the extent size of change tracking."""

SEGMENT_BYTES = 64 * 1024 * 1024
"""Default unit of the ledger."""


@dataclass(frozen=True, order=True)
class Extent:
    """A byte range of a disk."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True)
class TransferPlan:
    """Which areas of a disk are examined, in segments of a fixed size.

    `areas` are sorted, disjoint and inside the capacity; None means the whole disk.
    """

    capacity_bytes: int
    segment_bytes: int = SEGMENT_BYTES
    areas: tuple[Extent, ...] | None = None


def merge(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """Sort and join touching or overlapping extents; empty ones vanish."""
    merged: list[Extent] = []
    for extent in sorted(extent for extent in extents if extent.length > 0):
        if merged and extent.offset <= merged[-1].end:
            last = merged.pop()
            extent = Extent(last.offset, max(last.end, extent.end) - last.offset)
        merged.append(extent)
    return tuple(merged)
