from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failback.disks.plan import (
    BLOCK_BYTES,
    Extent,
    TransferPlan,
    align,
    clip,
    intersect,
    merge,
    plan_areas,
    plan_extents,
    segments,
    subtract,
    total_bytes,
    union,
)

extents = st.lists(st.builds(Extent, st.integers(0, 300), st.integers(0, 60)), max_size=12)


def covered(group: list[Extent] | tuple[Extent, ...]) -> set[int]:
    return {byte for extent in group for byte in range(extent.offset, extent.end)}


def tidy(group: tuple[Extent, ...]) -> bool:
    return all(e.length > 0 for e in group) and all(
        left.end < right.offset for left, right in itertools.pairwise(group)
    )


@given(extents)
def test_merge_keeps_every_byte_and_leaves_gaps_between_extents(group: list[Extent]) -> None:
    assert covered(merge(group)) == covered(group)
    assert tidy(merge(group))


@given(extents, extents)
def test_set_operations_agree_with_sets_of_bytes(left: list[Extent], right: list[Extent]) -> None:
    for ours, theirs in (
        (union(left, right), covered(left) | covered(right)),
        (intersect(left, right), covered(left) & covered(right)),
        (subtract(left, right), covered(left) - covered(right)),
    ):
        assert covered(ours) == theirs
        assert tidy(ours)


@given(extents, st.integers(0, 400))
def test_clip_drops_only_what_is_beyond_the_capacity(group: list[Extent], capacity: int) -> None:
    assert covered(clip(group, capacity)) == {b for b in covered(group) if b < capacity}


@given(extents, st.integers(1, 400), st.integers(1, 32))
def test_align_covers_whole_blocks_and_stays_inside(
    group: list[Extent], capacity: int, block: int
) -> None:
    aligned = align(group, capacity, block)

    expected = {
        byte
        for inside in covered(clip(group, capacity))
        for byte in range(inside // block * block, min((inside // block + 1) * block, capacity))
    }
    assert covered(aligned) == expected
    assert all(e.offset % block == 0 for e in aligned)
    assert all(e.end % block == 0 or e.end == capacity for e in aligned)


@st.composite
def plans(draw: st.DrawFn) -> TransferPlan:
    capacity = draw(st.integers(1, 40 * BLOCK_BYTES))
    areas = draw(
        st.none()
        | st.lists(
            st.builds(Extent, st.integers(0, capacity + 9), st.integers(0, capacity)), max_size=8
        )
    )
    return plan_areas(capacity, areas, draw(st.integers(1, 7)) * BLOCK_BYTES)


@given(plans())
def test_segments_cover_the_areas_exactly_once(plan: TransferPlan) -> None:
    found = list(segments(plan))

    parts = [extent for _, group in found for extent in group]
    assert total_bytes(parts) == total_bytes(plan_extents(plan))
    assert merge(parts) == plan_extents(plan)
    indexes = [index for index, _ in found]
    assert indexes == sorted(set(indexes))
    for index, group in found:
        assert group
        assert group[0].offset >= index * plan.segment_bytes
        assert group[-1].end <= min((index + 1) * plan.segment_bytes, plan.capacity_bytes)
    if plan.areas is None:
        assert total_bytes(parts) == plan.capacity_bytes


def test_untidy_areas_of_a_plan_are_examined_once_and_in_whole_blocks() -> None:
    plan = TransferPlan(
        3 * BLOCK_BYTES + 5,
        2 * BLOCK_BYTES,
        (Extent(3 * BLOCK_BYTES, 99), Extent(10, 5), Extent(12, 1)),
    )

    assert list(segments(plan)) == [
        (0, (Extent(0, BLOCK_BYTES),)),
        (1, (Extent(3 * BLOCK_BYTES, 5),)),
    ]


@pytest.mark.parametrize("segment_bytes", [0, -BLOCK_BYTES, BLOCK_BYTES + 1])
def test_segments_must_be_whole_blocks(segment_bytes: int) -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        list(segments(TransferPlan(BLOCK_BYTES, segment_bytes)))
