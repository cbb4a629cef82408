"""Moving bytes: the copier knows nothing of Temporal, this file nothing of bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from activities.disks import Disks, Pair
from activities.edge import Attempt
from activities.inventory import require_untouched
from failback.contracts.operations import (
    DifferencePlan,
    TransferProgress,
    TransportChanges,
    TransportResult,
)
from failback.disks.blockio import Clock
from failback.disks.copier import CopyOptions
from failback.disks.label import read_label
from failback.disks.ledger import LedgerStore, PassLedger
from failback.disks.progress import CopyProgress
from failback.disks.remote.scout import copy_from
from failback.errors import DiskMismatch
from failback.hypervisor.ports import Sites


@dataclass(frozen=True)
class TransferActivities:
    """One activity per disk and pass. The clock is injected for tests."""

    sites: Sites
    disks: Disks
    ledger: LedgerStore
    options: CopyOptions
    clock: Clock = time.monotonic

    def transport_changes(self, argument: TransportChanges, attempt: Attempt) -> TransportResult:
        """Write what differs in the plan's areas of one disk.

        Idempotent because writing compares first, finished segments are in the ledger only after
        their FLUSH, and the fence lets one writer at a time reach the disk.
        """
        plan, began = argument.plan, self.clock()
        attempt.details = waiting(plan)
        # The ledger speaks of bytes that only we wrote: a target that ran since proves nothing.
        # Where nobody can say whether it ran, verification reads the whole disk.
        require_untouched(self.sites, argument.guard, moved_is_fatal=True)
        if plan.areas_bytes == 0:
            # Nothing changed: the replica is off and every second counts, so nothing is opened.
            return TransportResult(address=plan.address, method=plan.method, pass_no=plan.pass_no)
        # The fence first: until the earlier writer is proven dead its commits are still true.
        with (
            self.disks.conditions(argument, attempt) as conditions,
            self.disks.open_pair(argument, attempt, writable=True) as opened,
        ):
            pair = opened.under(conditions)
            if plan.check_label:
                _require_same_label(argument, pair, self.clock)
            ledger = self.ledger.open(plan.plan_id, attempt.owner)
            progress = copy_from(
                pair.source,
                pair.target,
                ledger,
                options=self.disks.options(argument, self.options, conditions),
                check=pair.check,
                report=lambda now: _report(attempt, plan, now),
                clock=self.clock,
            )
        return counted(plan, ledger, progress.resumed_bytes, self.clock() - began)


def _require_same_label(argument: TransportChanges, pair: Pair, clock: Clock) -> None:
    """Raise DiskMismatch when both disks have a name, and not the same one. Before any write."""
    theirs, ours = (
        read_label(disk, opening.capacity_bytes, pair.check, clock)
        for disk, opening in ((pair.source, argument.source), (pair.target, argument.target))
    )
    if theirs is not None and ours is not None and theirs != ours:
        raise DiskMismatch(
            f"Disk {argument.plan.address}: the replica's partition table is {theirs}, that of "
            f"{argument.target.file} is {ours}: these are not two copies of one disk.",
            "Nothing was written to it. Send undo, check which disks belong together, and start "
            f"with --disk-map, or with --accept-pair {argument.plan.address} if it is right.",
        )


def counted(
    plan: DifferencePlan, ledger: PassLedger, resumed_bytes: int, seconds: float
) -> TransportResult:
    """Counters of all attempts, out of the ledger: the only place that survives a crash."""
    totals = ledger.totals()
    return TransportResult(
        address=plan.address,
        examined_bytes=totals.examined_bytes,
        different_bytes=totals.different_bytes,
        written_bytes=totals.written_bytes,
        zeroed_bytes=totals.zeroed_bytes,
        resumed_bytes=resumed_bytes,
        seconds=seconds,
        method=plan.method,
        pass_no=plan.pass_no,
    )


def waiting(plan: DifferencePlan, doing: str = "waiting") -> TransferProgress:
    """Heartbeat details before the first byte."""
    return TransferProgress(
        address=plan.address,
        pass_no=plan.pass_no,
        total_bytes=plan.areas_bytes,
        examined_bytes=0,
        different_bytes=0,
        written_bytes=0,
        doing=doing,
    )


def _report(attempt: Attempt, plan: DifferencePlan, now: CopyProgress) -> None:
    attempt.details = TransferProgress(
        address=plan.address,
        pass_no=plan.pass_no,
        total_bytes=now.total_bytes,
        # As in the final counters: people see how far the disk is, not this attempt.
        examined_bytes=now.examined_bytes + now.resumed_bytes,
        different_bytes=now.different_bytes,
        written_bytes=now.written_bytes,
        zeroed_bytes=now.zeroed_bytes,
        resumed_bytes=now.resumed_bytes,
        rate_bytes_per_s=now.rate_bytes_s,
        eta_s=now.eta_s,
        doing="transport",
    )
    attempt.progressed()
