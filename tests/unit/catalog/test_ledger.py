"""The ledger over SQL: fencing, identity, and extents in a few bytes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence, Set
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failback.catalog.extents import decode, encode
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.disks.ledger import (
    LedgerIdentity,
    LedgerStore,
    SegmentRecord,
    SegmentSet,
    SegmentTotals,
    total,
)
from failback.disks.plan import BLOCK_BYTES, Extent, TransferPlan, merge
from failback.disks.testing import MemoryLedgerStore
from failback.errors import LeaseLost, StateConflict

SEGMENT = 4 * BLOCK_BYTES
PLAN = TransferPlan(100 * SEGMENT, SEGMENT)
IDENTITY = LedgerIdentity("source@1", "target@1")
TIB = 1 << 40


@pytest.fixture
def ledger(catalog: Catalog) -> LedgerStore:
    return SqlLedgerStore(catalog)


def segment(index: int, *written: Extent) -> SegmentRecord:
    count = sum(extent.length for extent in written)
    return SegmentRecord(index, SEGMENT, count, count, 0, written)


def at(index: int, blocks: int = 1) -> Extent:
    return Extent(index * SEGMENT, blocks * BLOCK_BYTES)


def test_committed_segments_are_found_by_the_next_attempt(ledger: LedgerStore) -> None:
    ledger.save("p", "disk", IDENTITY, PLAN)
    records = [segment(0), segment(7, at(7)), segment(3, at(3), Extent(3 * SEGMENT + 131072, 512))]
    ledger.open("p", "one").commit(records)

    again = ledger.open("p", "two")

    assert again.plan == PLAN
    assert list(again.records()) == sorted(records, key=lambda record: record.index)
    assert again.finished() == {0, 3, 7}
    assert again.totals() == total(records)


def test_areas_come_back_as_they_were_saved(ledger: LedgerStore) -> None:
    areas = (at(1), at(5, 4), at(6, 2))
    ledger.save("p", "disk", IDENTITY, TransferPlan(PLAN.capacity_bytes, SEGMENT, areas))
    ledger.save("nothing", "disk", IDENTITY, TransferPlan(PLAN.capacity_bytes, SEGMENT, ()))

    assert ledger.open("p", "one").plan.areas == areas
    assert ledger.open("nothing", "one").plan.areas == ()


def test_a_segment_committed_again_replaces_itself(ledger: LedgerStore) -> None:
    ledger.save("p", "disk", IDENTITY, PLAN)
    held = ledger.open("p", "one")
    held.commit([segment(1)])

    held.commit([segment(1, at(1)), segment(2)])

    assert list(held.records()) == [segment(1, at(1)), segment(2)]


def test_a_fenced_attempt_records_nothing(ledger: LedgerStore) -> None:
    ledger.save("p", "disk", IDENTITY, PLAN)
    old = ledger.open("p", "one")
    new = ledger.open("p", "two")

    with pytest.raises(LeaseLost):
        old.commit([segment(0, at(0))])
    with pytest.raises(LeaseLost):
        old.complete()

    assert new.finished() == set()
    assert new.totals() == SegmentTotals()
    new.commit([segment(0)])
    new.complete()


def test_many_segments_are_committed_at_once(ledger: LedgerStore) -> None:
    plan = TransferPlan(2000 * SEGMENT, SEGMENT)
    ledger.save("p", "disk", IDENTITY, plan)
    held = ledger.open("p", "one")

    held.commit([segment(index, at(index, 4)) for index in range(1200)])
    held.commit([])

    assert len(held.finished()) == 1200
    assert tuple(ledger.written("disk")) == (Extent(0, 1200 * SEGMENT),)


def test_the_same_plan_saved_again_keeps_everything(catalog: Catalog) -> None:
    ledger = SqlLedgerStore(catalog)
    ledger.save("p", "disk", IDENTITY, PLAN)
    held = ledger.open("p", "one")
    held.commit([segment(0)])
    held.complete()

    ledger.save("p", "disk", IDENTITY, PLAN)

    held.commit([segment(1)])
    assert set(held.finished()) == {0, 1}
    assert ledger.is_complete("p")
    assert not ledger.is_complete("unknown")


@pytest.mark.parametrize(
    ("identity", "plan"),
    [
        (LedgerIdentity("source@2", "target@1"), PLAN),
        (LedgerIdentity("source@1", "target@2"), PLAN),
        (LedgerIdentity("source@1", "target@1", "base"), PLAN),
        (IDENTITY, TransferPlan(101 * SEGMENT, SEGMENT)),
        (IDENTITY, TransferPlan(100 * SEGMENT, 2 * SEGMENT)),
        (IDENTITY, TransferPlan(100 * SEGMENT, SEGMENT, ())),
    ],
    ids=["source", "target", "base", "capacity", "segment size", "areas"],
)
def test_another_plan_forgets_the_segments_and_fences_their_writer(
    catalog: Catalog, identity: LedgerIdentity, plan: TransferPlan
) -> None:
    ledger = SqlLedgerStore(catalog)
    ledger.save("p", "disk", IDENTITY, PLAN)
    old = ledger.open("p", "one")
    old.commit([segment(0, at(0))])
    old.complete()

    ledger.save("p", "disk", identity, plan)

    with pytest.raises(LeaseLost):
        old.commit([segment(1)])
    new = ledger.open("p", "two")
    assert (new.plan, new.finished()) == (plan, set())
    assert not ledger.is_complete("p")
    assert not list(ledger.written("disk"))


def test_written_is_the_union_of_all_passes_of_one_disk(ledger: LedgerStore) -> None:
    for plan_id, disk, extents in (
        ("p1", "disk", [at(0), at(5, 4)]),
        ("p2", "disk", [at(0, 2), at(6)]),
        ("p3", "other", [at(50)]),
    ):
        ledger.save(plan_id, disk, IDENTITY, PLAN)
        ledger.open(plan_id, "one").commit(
            [segment(extent.offset // SEGMENT, extent) for extent in extents]
        )

    assert tuple(ledger.written("disk")) == (at(0, 2), at(5, 5))
    assert not list(ledger.written("never written"))


def passed(ledger: LedgerStore, plan_id: str, *extents: Extent, plan: TransferPlan = PLAN) -> None:
    """A complete pass of the disk that wrote these, each in a segment of its own."""
    ledger.save(plan_id, "disk", IDENTITY, plan)
    held = ledger.open(plan_id, "one")
    held.commit([segment(extent.offset // SEGMENT, extent) for extent in extents])
    held.complete()


def no_check() -> None:
    """Nobody took over."""


def stores(catalog: Catalog) -> list[LedgerStore]:
    """The real one and the double keep the same rules."""
    return [SqlLedgerStore(catalog), MemoryLedgerStore()]


def plans_left(ledger: LedgerStore, *plan_ids: str) -> list[str]:
    left = []
    for plan_id in plan_ids:
        with contextlib.suppress(StateConflict):
            ledger.open(plan_id, "look")
            left.append(plan_id)
    return left


def test_folded_passes_are_one_and_nothing_that_was_written_is_lost(catalog: Catalog) -> None:
    for ledger in stores(catalog):
        passed(ledger, "p1", at(0), at(5, 4))
        passed(ledger, "p2", at(0, 2), at(6))
        passed(ledger, "p3", at(9), at(6, 2))
        ledger.save("p4", "disk", IDENTITY, PLAN)
        ledger.open("p4", "one").commit([segment(20, at(20))])
        passed(ledger, "p5", at(30))
        before = tuple(ledger.written("disk"))
        counters = ledger.open("p1", "one").totals()

        for _ in range(2):
            ledger.fold("disk", check=no_check, but="p5")

            assert tuple(ledger.written("disk")) == before
            assert plans_left(ledger, "p1", "p2", "p3", "p4", "p5") == ["p1", "p4", "p5"]
            folded = {one.index: one for one in ledger.open("p1", "one").records()}
            assert sorted(folded) == [0, 5, 6, 9]
            assert folded[0].written == (at(0, 2),)
            # What the pass itself did is still what its totals say.
            assert folded[9].examined_bytes == 0
            assert ledger.open("p1", "one").totals().written_bytes == counters.written_bytes


def test_passes_with_segments_of_another_size_stay_apart(catalog: Catalog) -> None:
    for ledger in stores(catalog):
        passed(ledger, "p1", at(0))
        passed(ledger, "p2", at(1), plan=TransferPlan(100 * SEGMENT, 2 * SEGMENT))
        ledger.fold("disk", check=no_check)
        assert plans_left(ledger, "p1", "p2") == ["p1", "p2"]


def test_who_lost_the_lease_folds_nothing(catalog: Catalog) -> None:
    def lost() -> None:
        raise LeaseLost("The lease went over.", "Nothing is to be done.")

    for ledger in stores(catalog):
        passed(ledger, "p1", at(0))
        passed(ledger, "p2", at(1))
        with pytest.raises(LeaseLost):
            ledger.fold("disk", check=lost)
        assert plans_left(ledger, "p1", "p2") == ["p1", "p2"]


def test_there_is_nothing_to_fold_in_one_pass_or_none(catalog: Catalog) -> None:
    for ledger in stores(catalog):
        ledger.fold("disk", check=no_check)
        passed(ledger, "p1", at(0))
        ledger.fold("disk", check=no_check)
        assert tuple(ledger.written("disk")) == (at(0),)


class Dying:
    """The catalog of a process that dies in place of its third write."""

    def __init__(self, catalog: Catalog) -> None:
        self.real, self.writes = catalog.database, 0
        self.database = self

    def read(self, *args: Any) -> Any:
        return self.real.read(*args)

    def write(self, *args: Any) -> Any:
        self.writes += 1
        if self.writes == 3:
            raise KeyboardInterrupt
        return self.real.write(*args)


def test_a_fold_that_was_cut_off_goes_on(catalog: Catalog) -> None:
    ledger = SqlLedgerStore(catalog)
    large = TransferPlan(3000 * SEGMENT, SEGMENT)
    passed(ledger, "p1", at(0), plan=large)
    passed(ledger, "p2", *(at(2 * index) for index in range(1400)), plan=large)
    passed(ledger, "p3", at(1), plan=large)
    before = tuple(ledger.written("disk"))

    with pytest.raises(KeyboardInterrupt):
        SqlLedgerStore(cast("Catalog", Dying(catalog))).fold("disk", check=no_check)

    assert tuple(ledger.written("disk")) == before
    assert plans_left(ledger, "p1", "p2", "p3") == ["p1", "p2", "p3"]
    assert len(ledger.finished("p2")) == 0, "both pages are moved, the plan is still there"

    ledger.fold("disk", check=no_check)

    assert tuple(ledger.written("disk")) == before
    assert plans_left(ledger, "p1", "p2", "p3") == ["p1"]


def test_a_plan_that_was_never_saved_cannot_be_opened(ledger: LedgerStore) -> None:
    with pytest.raises(StateConflict, match="no plan p"):
        ledger.open("p", "one")


@st.composite
def sorted_extents(draw: st.DrawFn) -> tuple[Extent, ...]:
    unit = draw(st.sampled_from([1, 512, 4096, BLOCK_BYTES]))
    steps = draw(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 1 << 20)), max_size=30))
    extents, end = [], 0
    for gap, length in steps:
        extents.append(Extent(end + gap * unit, length * unit))
        end += (gap + length) * unit
    return tuple(extents)


@given(sorted_extents())
def test_extents_survive_their_coding(extents: tuple[Extent, ...]) -> None:
    assert decode(encode(extents)) == extents


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100))))
def test_extents_that_overlap_are_refused(pairs: Sequence[tuple[int, int]]) -> None:
    extents = [Extent(offset, length) for offset, length in pairs]
    tidy = all(left.end <= right.offset for left, right in itertools.pairwise(extents))

    if tidy:
        assert decode(encode(extents)) == tuple(extents)
    else:
        with pytest.raises(ValueError, match="overlap"):
            encode(extents)


def test_changed_blocks_all_over_a_64_tib_disk_take_few_bytes() -> None:
    areas = tuple(Extent(offset, BLOCK_BYTES) for offset in range(0, 64 * TIB, 2 << 30))

    coded = encode(areas)

    assert len(coded) < 5 * len(areas)
    assert decode(coded) == merge(areas)


@given(st.sets(st.integers(0, 5000)))
def test_a_set_of_segments_is_a_set(numbers: set[int]) -> None:
    found: Set[int] = SegmentSet(numbers)

    assert found == numbers
    assert list(found) == sorted(numbers)
    assert len(found) == len(numbers)
    assert all((number in found) == (number in numbers) for number in range(-9, 5010))


def test_pages_of_a_pass_are_read_as_they_are_asked_for(ledger: LedgerStore) -> None:
    ledger.save("p", "disk", IDENTITY, TransferPlan(4000 * SEGMENT, SEGMENT))
    ledger.save("q", "disk", IDENTITY, TransferPlan(4000 * SEGMENT, SEGMENT))
    held, other = ledger.open("p", "one"), ledger.open("q", "one")
    held.commit([segment(index, at(index)) for index in range(0, 2500, 2)])
    other.commit([segment(index, at(index, 4)) for index in range(1, 2500, 2)])

    assert [record.index for record in held.records()] == list(range(0, 2500, 2))
    expected = merge(at(index, 1 + index % 2 * 3) for index in range(2500))
    assert tuple(ledger.written("disk")) == expected
