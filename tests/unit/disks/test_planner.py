from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failback.disks.plan import BLOCK_BYTES, Extent, align
from failback.disks.planner import Action, Part, decide, decide_full, tracked, whole_blocks

UNIT = BLOCK_BYTES // 4
"""Maps are made of quarters of a block, so that most of their ends lie inside one."""


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    """A capacity that is a multiple of nothing, and areas of whole blocks."""
    capacity = draw(st.integers(1, 30 * BLOCK_BYTES))
    areas = draw(st.lists(extents(), max_size=5))
    return capacity, list(align(areas, capacity))


def extents() -> st.SearchStrategy[Extent]:
    return st.builds(
        lambda start, length: Extent(start * UNIT, length * UNIT),
        st.integers(0, 120),
        st.integers(0, 60),
    )


def units(group: list[Extent] | tuple[Extent, ...]) -> set[int]:
    """First bytes of the pieces between all places where anything can begin."""
    return {
        at
        for extent in group
        for at in range(extent.offset // UNIT * UNIT, extent.end, UNIT)
        if at >= extent.offset
    }


def of(parts: tuple[Part, ...], action: Action) -> set[int]:
    return units([part.extent for part in parts if part.action is action])


def well_formed(parts: tuple[Part, ...], capacity: int) -> bool:
    ends = [(part.extent.offset, part.extent.end) for part in parts]
    return (
        all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
        and all(start % BLOCK_BYTES == 0 and start < end for start, end in ends)
        and all(end % BLOCK_BYTES == 0 or end == capacity for _, end in ends)
    )


@given(
    st.lists(extents(), max_size=6),
    st.lists(extents(), max_size=6),
    st.integers(1, 30 * BLOCK_BYTES),
)
def test_tracked_areas_are_the_whole_blocks_that_changed_on_either_side(
    ours: list[Extent], theirs: list[Extent], capacity: int
) -> None:
    areas = tracked(capacity, ours, theirs)

    assert areas is not None
    assert well_formed(tuple(Part(area, Action.COMPARE) for area in areas), capacity)
    assert areas == tracked(capacity, theirs, ours)
    changed = {at for at in units([*ours, *theirs]) if at < capacity}
    assert changed <= units(areas)
    # No block beside those: each holds a change.
    assert {at // BLOCK_BYTES for at in units(areas)} == {at // BLOCK_BYTES for at in changed}


@pytest.mark.parametrize("sides", [(None, []), ([], None), (None, None)])
def test_a_side_that_cannot_tell_makes_it_the_whole_disk(
    sides: tuple[list[Extent] | None, list[Extent] | None],
) -> None:
    assert tracked(BLOCK_BYTES, *sides) is None


@given(disks(), st.lists(extents(), max_size=6), st.lists(extents(), max_size=6))
def test_only_blocks_that_are_zero_on_both_sides_are_left_out(
    disk: tuple[int, list[Extent]], ours: list[Extent], theirs: list[Extent]
) -> None:
    capacity, areas = disk
    parts = decide(areas, ours, theirs, capacity)
    source = units(whole_blocks(ours, capacity))
    target = units(whole_blocks(theirs, capacity))

    assert well_formed(parts, capacity)
    assert of(parts, Action.COMPARE) == units(areas) - source - target
    assert of(parts, Action.FILL) == units(areas) & target - source
    assert of(parts, Action.CLEAR) == units(areas) & source - target


@given(disks(), st.lists(extents(), max_size=6))
def test_a_full_copy_writes_everything_unless_the_target_is_blank(
    disk: tuple[int, list[Extent]], ours: list[Extent]
) -> None:
    capacity, areas = disk
    source = units(whole_blocks(ours, capacity))

    parts = decide_full(areas, ours, capacity, blank=False)
    assert well_formed(parts, capacity)
    assert of(parts, Action.OVERWRITE) == units(areas) - source
    assert of(parts, Action.ZERO) == units(areas) & source

    parts = decide_full(areas, ours, capacity, blank=True)
    assert well_formed(parts, capacity)
    assert {part.action for part in parts} <= {Action.FILL}
    assert of(parts, Action.FILL) == units(areas) - source


@given(st.lists(extents(), max_size=6), st.integers(1, 30 * BLOCK_BYTES))
def test_a_block_is_zero_only_if_all_of_it_is(group: list[Extent], capacity: int) -> None:
    known = {byte for e in group for byte in range(e.offset // UNIT, e.end // UNIT)}
    expected = {
        start
        for start in range(0, capacity, BLOCK_BYTES)
        if all(at // UNIT in known for at in range(start, min(start + BLOCK_BYTES, capacity), UNIT))
        # The last unit of the disk may be a part of one.
    }
    found = whole_blocks(group, capacity)
    assert {start for e in found for start in range(e.offset, e.end, BLOCK_BYTES)} == expected


@pytest.mark.parametrize("action", Action)
def test_what_is_read_follows_from_the_action(action: Action) -> None:
    assert (action.reads_source, action.reads_target) == {
        Action.COMPARE: (True, True),
        Action.FILL: (True, False),
        Action.CLEAR: (False, True),
        Action.OVERWRITE: (True, False),
        Action.ZERO: (False, False),
    }[action]
