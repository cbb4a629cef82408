"""Runs that are over lose their ledger, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.purge import purge
from failback.catalog.repository import Catalog
from failback.contracts.words import ReplicaState
from failback.disks.ledger import LedgerIdentity, SegmentRecord
from failback.disks.plan import BLOCK_BYTES, Extent, TransferPlan
from failback.errors import LeaseLost, StateConflict
from tests.unit.catalog.build import NOW, add, start

DAY = timedelta(days=1)


def fill(catalog: Catalog, run_id: str, count: int = 5) -> None:
    """Two passes of one disk, as a run leaves them."""
    ledger = SqlLedgerStore(catalog)
    for number in (1, 2):
        plan_id = f"{run_id}/scsi0:0/{number}"
        plan = TransferPlan(count * BLOCK_BYTES, BLOCK_BYTES)
        ledger.save(plan_id, f"{run_id}/production/vm-1/2000", LedgerIdentity("s", "t"), plan)
        written = [(Extent(index * BLOCK_BYTES, 512),) for index in range(count)]
        ledger.open(plan_id, "one").commit(
            [SegmentRecord(index, 1, 1, 1, 0, extents) for index, extents in enumerate(written)]
        )


def ended(catalog: Catalog, run_id: str, key: str, days: int) -> None:
    """A run that was undone so long ago."""
    add(catalog, key)
    start(catalog, run_id, key)
    catalog.step_intent(run_id, "verify", "scsi0:0", "", NOW)
    catalog.step_finished(run_id, "verify", "scsi0:0", '{"digest": "r00t"}', NOW)
    fill(catalog, run_id)
    catalog.close_undo(run_id, key, NOW - days * DAY)


def counts(catalog: Catalog, run_id: str) -> list[int]:
    ledger = SqlLedgerStore(catalog)
    return [len(ledger.finished(f"{run_id}/scsi0:0/{number}")) for number in (1, 2)]


def test_only_runs_that_ended_long_ago_lose_their_ledger(catalog: Catalog) -> None:
    ended(catalog, "run-old", "old", 31)
    ended(catalog, "run-new", "new", 29)
    add(catalog, "open", ReplicaState.FAILOVER)
    start(catalog, "run-open", "open")
    fill(catalog, "run-open")
    fill(catalog, "run-o")  # nobody's: kept

    purged = catalog.purge_ledger(30 * DAY)

    assert (purged.plans, purged.segments, purged.complete) == (2, 10, True)
    assert counts(catalog, "run-old") == [0, 0]
    for kept in ("run-new", "run-open", "run-o"):
        assert counts(catalog, kept) == [5, 5]
    with pytest.raises(StateConflict):
        SqlLedgerStore(catalog).open("run-old/scsi0:0/1", "late")
    assert catalog.get_run("run-old").ended_at == NOW - 31 * DAY
    assert [step.evidence for step in catalog.steps("run-old")] == ['{"digest": "r00t"}']
    assert catalog.purge_ledger(30 * DAY).plans == 0


def test_a_limited_purge_is_continued_by_the_next(catalog: Catalog) -> None:
    ended(catalog, "run-old", "old", 31)

    found = [purge(catalog.database, NOW - 30 * DAY, 3) for _ in range(5)]

    assert [one.segments for one in found] == [3, 3, 3, 1, 0]
    assert [one.complete for one in found] == [False, False, False, True, True]
    assert sum(one.plans for one in found) == 2


def test_a_plan_that_is_forgotten_is_lost_to_who_has_it_open(catalog: Catalog) -> None:
    fill(catalog, "run-a")
    ledger = SqlLedgerStore(catalog)
    held = ledger.open("run-a/scsi0:0/1", "one")

    ledger.forget("run-a/scsi0:0/1")
    ledger.forget("run-a/scsi0:0/1")

    with pytest.raises(LeaseLost):
        held.commit([SegmentRecord(0, 1, 0, 0, 0, ())])
    assert counts(catalog, "run-a") == [0, 5]
