"""Choosing how the difference of a disk is found, and storing the areas in the ledger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from activities.disks import Disks, disk_id
from activities.edge import Attempt
from activities.inventory import TargetLook, require_untouched
from failback.contracts.operations import (
    CalculateDifference,
    DifferencePlan,
    Differences,
    DiskSides,
)
from failback.contracts.vm import Disk, DiskOpening
from failback.contracts.words import Method, Phase
from failback.disks.ledger import LedgerIdentity, LedgerStore
from failback.disks.plan import Extent, TransferPlan
from failback.disks.planner import tracked
from failback.errors import TrackingUnusable
from failback.hypervisor.ports import Sites

FAR = "the replica's disk is behind the mover of its site, so digests are compared"


@dataclass(frozen=True)
class DifferenceActivities:
    """Plans of the disks of a pass."""

    sites: Sites
    disks: Disks
    ledger: LedgerStore
    segment_bytes: int

    def calculate_difference(self, argument: CalculateDifference, attempt: Attempt) -> Differences:
        """Choose tracked, compare or digest for each disk and save the areas.

        Idempotent because a plan of the same id, identity and areas keeps its finished segments.
        """
        look = require_untouched(self.sites, argument.guard, moved_is_fatal=False)
        plans = []
        for sides in argument.disks:
            attempt.beat()
            plans.append(self._plan(argument, sides, look, attempt))
        return Differences(plans=tuple(plans), guard=look.guard)

    def _plan(
        self, argument: CalculateDifference, sides: DiskSides, look: TargetLook, attempt: Attempt
    ) -> DifferencePlan:
        method, reason, areas = self._choose(argument, sides, look, attempt)
        if method is Method.COMPARE and self._far(sides.source):
            method, reason = Method.DIGEST, f"{reason}; {FAR}"
        disk = disk_id(argument.run.run_id, sides.target)
        capacity, address = sides.source.capacity_bytes, str(sides.pair.address)
        plan_id = f"{argument.run.run_id}/{address}/{argument.pass_no}"
        identity = LedgerIdentity(
            source=identity_of(sides.source),
            # With the mark: segments finished before somebody ran the target count for nothing.
            target=f"{identity_of(sides.target)} {look.guard.power_mark}",
            base=sides.base_change_id or "" if method is Method.TRACKED else "",
        )
        self.ledger.save(
            plan_id,
            disk,
            identity,
            TransferPlan(capacity, self.segment_bytes, areas),
        )
        if argument.phase is not Phase.SWITCHING:
            # While the replica serves: what cycles have written is read during the downtime.
            self.ledger.fold(disk, but=plan_id, check=attempt.beat)
        return DifferencePlan(
            plan_id=plan_id,
            pass_no=argument.pass_no,
            address=address,
            method=method,
            reason=reason,
            areas_bytes=capacity if areas is None else sum(area.length for area in areas),
            # Later passes write to a disk that pass 1 has made a copy.
            check_label=argument.pass_no == 1 and not sides.pair.accepted,
        )

    def _far(self, source: DiskOpening) -> bool:
        access = self.disks.access.get(source.site)
        return access is not None and access.kind == "mover"

    def _choose(
        self, argument: CalculateDifference, sides: DiskSides, look: TargetLook, attempt: Attempt
    ) -> tuple[Method, str, tuple[Extent, ...] | None]:
        # Also of a VM that the run has made: a guest may have written where holes are skipped.
        if look.moved:
            return Method.COMPARE, f"the target was touched behind our back: {look.moved}", None
        if look.unread:
            why = f"nobody can say whether the target was touched: {look.unread}"
            return Method.COMPARE, why, None
        if argument.pass_no == 1 and argument.blank_target:
            return (
                Method.FULL,
                "the target's disk is new and empty: what is allocated is copied",
                None,
            )
        if argument.pass_no == 1:
            return Method.COMPARE, "pass 1 has no trusted base on both sides", None
        if sides.base_change_id is None:
            return Method.COMPARE, "change tracking of the replica is off", None
        source = sides.source
        disk = Disk(
            key=source.disk_key,
            address=sides.pair.address,
            file=source.file,
            capacity_bytes=source.capacity_bytes,
            change_id=sides.base_change_id,
        )
        try:
            extents = tuple(
                Extent(offset, length)
                for offset, length in self.sites.site(source.site).changed_areas(
                    argument.replica,
                    source.snapshot or "",
                    disk,
                    sides.base_change_id,
                    attempt.beat,
                )
            )
        except TrackingUnusable as error:
            return Method.COMPARE, f"change tracking cannot be used: {error.what}", None
        # The target has changed nowhere: the guard proved that nobody but us wrote to it.
        areas = tracked(source.capacity_bytes, extents, ()) or ()
        total = sum(area.length for area in areas)
        return Method.TRACKED, f"{total} bytes changed since pass 1 by change tracking", areas


def identity_of(opening: DiskOpening) -> str:
    """What a ledger binds a side to: the disk, the file and the snapshot it is opened at."""
    text = "|".join(
        (
            opening.site,
            opening.vm_moref,
            opening.snapshot or "",
            str(opening.disk_key),
            opening.file,
            str(opening.capacity_bytes),
        )
    )
    return hashlib.sha256(text.encode()).hexdigest()
