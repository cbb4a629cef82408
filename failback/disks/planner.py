"""What is done with each part of a disk, from what both sides say about their allocation.

Pure functions. A side that says "reads as zeroes" is believed, one that says nothing holds data: an
allocation map may call zeroes data, never the other way round. Nothing here is proof that two disks
are equal; it only spares reading what is known without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from failback.disks.plan import BLOCK_BYTES, Extent, align, intersect, merge, subtract, union


class Action(StrEnum):
    """What the copier does with an extent."""

    COMPARE = "compare"
    """Read both sides and write the blocks that differ."""
    FILL = "fill"
    """The target reads as zeroes: read the source only and write the blocks that are not zero."""
    CLEAR = "clear"
    """The source reads as zeroes: read the target only and zero the blocks that are not. Zeroing
    all of it unread would be shorter, but would take the space of a thick target from it, or write
    all of it where zeroing is emulated by writing."""
    OVERWRITE = "overwrite"
    """Read the source only and write everything, zero blocks as zeroes."""
    ZERO = "zero"
    """Read nothing and zero all of it."""

    @property
    def reads_source(self) -> bool:
        return self in (Action.COMPARE, Action.FILL, Action.OVERWRITE)

    @property
    def reads_target(self) -> bool:
        return self in (Action.COMPARE, Action.CLEAR)


@dataclass(frozen=True)
class Part:
    """An extent of whole blocks (the last one may end with the disk) and what is done with it."""

    extent: Extent
    action: Action


def tracked(
    capacity_bytes: int,
    source_changed: Iterable[Extent] | None,
    target_changed: Iterable[Extent] | None,
) -> tuple[Extent, ...] | None:
    """Whole blocks that may differ: what changed on the source, or on the target, since both were
    equal. None, the whole disk, where one side cannot tell: a change unseen on one side alone
    would stay for ever."""
    if source_changed is None or target_changed is None:
        return None
    return align(union(source_changed, target_changed), capacity_bytes)


def decide(
    extents: Iterable[Extent],
    source_zeroes: Iterable[Extent],
    target_zeroes: Iterable[Extent],
    capacity_bytes: int,
) -> tuple[Part, ...]:
    """Parts that together cover the extents, less what reads as zeroes on both sides, in order.

    The extents consist of whole blocks."""
    areas = merge(extents)
    ours = whole_blocks(source_zeroes, capacity_bytes)
    theirs = whole_blocks(target_zeroes, capacity_bytes)
    return _in_order(
        (Action.FILL, subtract(intersect(areas, theirs), ours)),
        (Action.CLEAR, subtract(intersect(areas, ours), theirs)),
        (Action.COMPARE, subtract(areas, union(ours, theirs))),
    )


def decide_full(
    extents: Iterable[Extent],
    source_zeroes: Iterable[Extent],
    capacity_bytes: int,
    *,
    blank: bool,
) -> tuple[Part, ...]:
    """Parts for a target that is not read, in order.

    `blank`: the target is a disk that we created and nobody ever wrote, so zeroes are there
    already and holes stay holes; else every byte is written or zeroed."""
    areas = merge(extents)
    ours = whole_blocks(source_zeroes, capacity_bytes)
    data = subtract(areas, ours)
    if blank:
        return _in_order((Action.FILL, data))
    return _in_order((Action.OVERWRITE, data), (Action.ZERO, intersect(areas, ours)))


def whole_blocks(
    extents: Iterable[Extent], capacity_bytes: int, block_bytes: int = BLOCK_BYTES
) -> tuple[Extent, ...]:
    """The blocks that lie wholly inside the extents; the disk's last block may be a short one."""
    shrunk = []
    for extent in merge(extents):
        start = -(-extent.offset // block_bytes) * block_bytes
        end = min(extent.end, capacity_bytes)
        if end < capacity_bytes:
            end = end // block_bytes * block_bytes
        shrunk.append(Extent(start, max(0, end - start)))
    return merge(shrunk)


def _in_order(*groups: tuple[Action, Iterable[Extent]]) -> tuple[Part, ...]:
    parts = (Part(extent, action) for action, extents in groups for extent in extents)
    return tuple(sorted(parts, key=lambda part: part.extent))
