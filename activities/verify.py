"""Verification: digests of both sides before anybody powers the target on."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import partial

from activities.disks import Disks, Pair, disk_id
from activities.edge import Attempt
from activities.inventory import require_untouched
from activities.transfer import waiting
from failback.catalog.repository import Catalog
from failback.contracts.operations import DifferencePlan, Verify, VerifyResult
from failback.disks.blockio import Clock
from failback.disks.copier import CopyOptions
from failback.disks.digest import VerifyOutcome, verify
from failback.disks.ledger import LedgerIdentity, LedgerStore
from failback.disks.plan import TransferPlan
from failback.disks.remote.disk import RemoteDisk
from failback.disks.remote.scout import copy_from, verify_remote
from failback.errors import VerifyMismatch
from failback.hypervisor.ports import Sites

CODE = "VERIFY_MISMATCH"


@dataclass(frozen=True)
class VerifyActivities:
    """One activity per disk. Clock and random choice are injected for tests."""

    sites: Sites
    disks: Disks
    ledger: LedgerStore
    catalog: Catalog
    options: CopyOptions
    segment_bytes: int
    fraction: float
    random: random.Random
    clock: Clock = time.monotonic

    def verify(self, argument: Verify, attempt: Attempt) -> VerifyResult:
        """Digest both sides; on a difference compare the whole disk again and raise an alarm.

        Idempotent because reading changes nothing, and the repair is a comparison like any other.
        """
        plan = argument.plan
        attempt.details = waiting(plan, doing="verify")
        look = require_untouched(self.sites, argument.guard, moved_is_fatal=True)
        # What is believed to be written may not be there where somebody may have run the target.
        whole_disk = argument.whole_disk or bool(look.unread)
        # An attempt that died in its repair may have written what now compares equal and is not
        # flushed: the repair is made again, to its end.
        alarm = self._found_before(argument)
        if not alarm:
            with self.disks.open_pair(argument, attempt, writable=False) as pair:
                outcome = self._digest(argument, pair, whole_disk=whole_disk)
            if outcome.equal:
                return _result(plan, outcome)
            alarm = (
                f"{_beginning(plan)} {outcome.first_difference_offset} after pass "
                f"{plan.pass_no} ({plan.method}); the whole disk was compared again."
            )
            # One that was overtaken meanwhile has compared with what newer ones write.
            attempt.beat()
            self.catalog.raise_alarm(argument.run.run_id, CODE, alarm)
        self._repair(argument, attempt)
        with self.disks.open_pair(argument, attempt, writable=False) as pair:
            outcome = self._digest(argument, pair, whole_disk=True)
        if not outcome.equal:
            raise VerifyMismatch(
                f"Disk {plan.address} still differs at byte {outcome.first_difference_offset} "
                "after the whole disk was compared and written again.",
                "Suspect the storage of one side; send undo.",
                offset=outcome.first_difference_offset,
            )
        return _result(plan, outcome, repaired=True, alarm=alarm)

    def _found_before(self, argument: Verify) -> str:
        """The alarm of an earlier attempt; empty when none has found a difference in this pass."""
        plan = argument.plan
        alarms = self.catalog.alarms(argument.run.run_id)
        found = (one.message for one in alarms if one.code == CODE)
        begins, after = f"{_beginning(plan)} ", f" after pass {plan.pass_no} ("
        return next((text for text in found if text.startswith(begins) and after in text), "")

    def _digest(self, argument: Verify, pair: Pair, *, whole_disk: bool) -> VerifyOutcome:
        # What is behind the other site's mover is digested there: nothing is streamed.
        source = pair.source
        digest = partial(verify, source)
        if isinstance(source, RemoteDisk):
            digest = partial(verify_remote, source)
        return digest(
            pair.target,
            self.ledger.written(disk_id(argument.run.run_id, argument.target)),
            sample_fraction=self.fraction,
            whole_disk=whole_disk,
            segment_bytes=self.segment_bytes,
            random=self.random,
            check=pair.check,
            report=_ignore,
            clock=self.clock,
        )

    def _repair(self, argument: Verify, attempt: Attempt) -> None:
        """Compare and write the whole disk, in a pass of its own."""
        plan = argument.plan
        repair_id = f"{plan.plan_id}/repair"
        self.ledger.save(
            repair_id,
            disk_id(argument.run.run_id, argument.target),
            LedgerIdentity(source=plan.plan_id, target=attempt.scheduling),
            TransferPlan(argument.source.capacity_bytes, self.segment_bytes),
        )
        with (
            self.disks.conditions(argument, attempt) as conditions,
            self.disks.open_pair(argument, attempt, writable=True) as opened,
        ):
            pair = opened.under(conditions)
            copy_from(
                pair.source,
                pair.target,
                self.ledger.open(repair_id, attempt.owner),
                options=self.disks.options(argument, self.options, conditions),
                check=pair.check,
                report=_ignore,
                clock=self.clock,
            )


def _beginning(plan: DifferencePlan) -> str:
    """How the alarm of a disk begins."""
    return f"Disk {plan.address} differed at byte"


def _result(
    plan: DifferencePlan, outcome: VerifyOutcome, *, repaired: bool = False, alarm: str = ""
) -> VerifyResult:
    return VerifyResult(
        address=plan.address,
        checked_bytes=outcome.checked_bytes,
        digest=outcome.root_hex,
        repaired=repaired,
        alarm=alarm,
    )


def _ignore(_: object) -> None:
    """Progress of a digest is not shown: it is short against the passes."""
