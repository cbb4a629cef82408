from __future__ import annotations

from collections.abc import Callable

import pytest

from failback.disks.ledger import LedgerIdentity, PassLedger, SegmentRecord
from failback.disks.plan import Extent, TransferPlan
from failback.disks.testing import MemoryLedgerStore
from failback.errors import LeaseLost, StateConflict

PLAN = TransferPlan(1000, 65536)
IDENTITY = LedgerIdentity("source", "target")


def record(index: int, *written: Extent) -> SegmentRecord:
    return SegmentRecord(index, 10, 10, 10, 0, written)


@pytest.fixture
def store() -> MemoryLedgerStore:
    store = MemoryLedgerStore()
    store.save("p", "disk", IDENTITY, PLAN)
    return store


def test_the_same_plan_keeps_its_segments_and_any_other_forgets_them(
    store: MemoryLedgerStore,
) -> None:
    store.open("p", "a").commit([record(0, Extent(0, 5))])
    store.save("p", "disk", IDENTITY, PLAN)
    assert set(store.open("p", "a").finished()) == {0}

    for identity, plan in (
        (LedgerIdentity("source", "target", "base"), PLAN),
        (IDENTITY, TransferPlan(1001, 65536)),
    ):
        store.open("p", "a").commit([record(0)])
        store.save("p", "disk", identity, plan)
        assert store.open("p", "a").finished() == set()


@pytest.mark.parametrize(
    "act", [lambda ledger: ledger.commit([record(1)]), lambda ledger: ledger.complete()]
)
@pytest.mark.parametrize("replaced", [False, True])
def test_only_the_newest_holder_may_record(
    store: MemoryLedgerStore, act: Callable[[PassLedger], None], replaced: bool
) -> None:
    old = store.open("p", "same owner")
    if replaced:
        store.save("p", "disk", LedgerIdentity("other", "target"), PLAN)
    else:
        store.open("p", "same owner")

    with pytest.raises(LeaseLost):
        act(old)

    assert store.open("p", "b").finished() == set()
    assert not store.is_complete("p")


def test_written_is_the_union_over_all_passes_of_a_disk(store: MemoryLedgerStore) -> None:
    store.save("q", "disk", IDENTITY, PLAN)
    store.save("r", "another disk", IDENTITY, PLAN)
    store.open("p", "a").commit([record(0, Extent(0, 10)), record(1, Extent(50, 5))])
    store.open("q", "a").commit([record(0, Extent(5, 10))])
    store.open("r", "a").commit([record(0, Extent(700, 10))])

    assert tuple(store.written("disk")) == (Extent(0, 15), Extent(50, 5))


def test_an_unknown_plan_is_a_state_conflict(store: MemoryLedgerStore) -> None:
    with pytest.raises(StateConflict):
        store.open("nothing", "a")
