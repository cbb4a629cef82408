"""Extents and plans: pure functions over (offset, length) in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    `segment_bytes` is a multiple of BLOCK_BYTES.
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


def union(*groups: Iterable[Extent]) -> tuple[Extent, ...]:
    """Every byte that is in at least one group, merged."""
    return merge(extent for group in groups for extent in group)


def clip(extents: Iterable[Extent], capacity_bytes: int) -> tuple[Extent, ...]:
    """The part of the extents that lies in [0, capacity), merged."""
    return intersect(extents, (Extent(0, capacity_bytes),))


def align(
    extents: Iterable[Extent], capacity_bytes: int, block_bytes: int = BLOCK_BYTES
) -> tuple[Extent, ...]:
    """Grow every extent to whole blocks, never beyond the capacity, and merge.

    Only the last extent may end off a block boundary: where the capacity does."""
    given = tuple(extents)
    if _aligned(given, capacity_bytes, block_bytes):
        return given
    return clip(
        merge(
            Extent(start, -(-extent.end // block_bytes) * block_bytes - start)
            for extent in clip(given, capacity_bytes)
            for start in (extent.offset // block_bytes * block_bytes,)
        ),
        capacity_bytes,
    )


def _aligned(extents: tuple[Extent, ...], capacity_bytes: int, block_bytes: int) -> bool:
    """Nothing to be done: areas are aligned once and asked for often, and may be a million."""
    at = -1
    for extent in extents:
        end = extent.end
        if extent.offset <= at or extent.offset % block_bytes or end <= extent.offset:
            return False
        if end % block_bytes and end != capacity_bytes:
            return False
        at = end
    return at <= capacity_bytes


def intersect(left: Iterable[Extent], right: Iterable[Extent]) -> tuple[Extent, ...]:
    """Every byte that is in both groups, merged."""
    ours, theirs = merge(left), merge(right)
    common: list[Extent] = []
    i = j = 0
    while i < len(ours) and j < len(theirs):
        start = max(ours[i].offset, theirs[j].offset)
        end = min(ours[i].end, theirs[j].end)
        if start < end:
            common.append(Extent(start, end - start))
        if ours[i].end < theirs[j].end:
            i += 1
        else:
            j += 1
    return merge(common)


def subtract(extents: Iterable[Extent], holes: Iterable[Extent]) -> tuple[Extent, ...]:
    """Every byte of the extents that is in no hole, merged."""
    gaps = merge(holes)
    kept: list[Extent] = []
    first = 0
    for extent in merge(extents):
        # Holes that end before this extent cannot touch a later one: both lists are sorted.
        while first < len(gaps) and gaps[first].end <= extent.offset:
            first += 1
        start = extent.offset
        for hole in gaps[first:]:
            if hole.offset >= extent.end:
                break
            kept.append(Extent(start, hole.offset - start))
            start = min(hole.end, extent.end)
        kept.append(Extent(start, extent.end - start))
    return merge(kept)


def plan_areas(
    capacity_bytes: int,
    areas: Iterable[Extent] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
) -> TransferPlan:
    """A plan over any areas: aligned to blocks, clipped and merged; None means the whole disk."""
    tidy = None if areas is None else align(areas, capacity_bytes)
    return TransferPlan(capacity_bytes, segment_bytes, tidy)


def plan_extents(plan: TransferPlan) -> tuple[Extent, ...]:
    """The areas that are examined, in whole blocks; the whole disk as one extent."""
    areas = (Extent(0, plan.capacity_bytes),) if plan.areas is None else plan.areas
    return align(areas, plan.capacity_bytes)


def total_bytes(extents: Iterable[Extent]) -> int:
    return sum(extent.length for extent in extents)


def segments(plan: TransferPlan) -> Iterator[tuple[int, tuple[Extent, ...]]]:
    """Cut the plan's areas at multiples of `segment_bytes`.

    Yields (index, extents) in ascending order, only for segments that hold a part of the areas;
    segment `index` lies inside [index * segment_bytes, (index + 1) * segment_bytes)."""
    if plan.segment_bytes <= 0 or plan.segment_bytes % BLOCK_BYTES:
        raise ValueError(f"segment_bytes is {plan.segment_bytes}, not a multiple of {BLOCK_BYTES}")
    current, parts = -1, list[Extent]()
    for area in plan_extents(plan):
        offset = area.offset
        while offset < area.end:
            index = offset // plan.segment_bytes
            if index != current:
                if parts:
                    yield current, tuple(parts)
                current, parts = index, []
            end = min(area.end, (index + 1) * plan.segment_bytes)
            parts.append(Extent(offset, end - offset))
            offset = end
    if parts:
        yield current, tuple(parts)
