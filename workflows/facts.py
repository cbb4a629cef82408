"""What a run has learnt so far: the results of its steps, and nothing that can be derived."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from failback.contracts.base import Contract, Name
from failback.contracts.operations import (
    DifferencePlan,
    DiskSides,
    PowerOffResult,
    ProtectTargetResult,
    RunRef,
    SnapshotReplicaResult,
    StayedOff,
    TargetGuard,
    TransportResult,
    VerifyResult,
)
from failback.contracts.plan import Finding, RunPlan
from failback.contracts.policies import FinalizePolicy, Limits, SwitchPolicy
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.status import Cycle
from failback.contracts.vm import Disk, DiskOpening, DiskPair, VmIdentity
from failback.contracts.words import Destination, GuestTimeoutPolicy, PowerState


class ChangeBase(Contract):
    """Change id of one disk that a complete, flushed cycle brought the target to."""

    address: Name
    change_id: Name | None


class Facts(Contract):
    """Grows step by step; input of every activity argument."""

    run: RunRef
    request: StartRequest
    generation: int = 0
    """Grows with every execution of the workflow that takes the run over."""
    findings: tuple[Finding, ...] = Field(default=(), max_length=200)
    plan: RunPlan | None = None
    protected: ProtectTargetResult | None = None
    unconnected: tuple[int, ...] = Field(default=(), max_length=32)
    """new: keys of network cards that are not connected at the replica either."""
    frozen: SnapshotReplicaResult | None = None
    """The read snapshot of pass 1."""
    base: tuple[ChangeBase, ...] = Field(default=(), max_length=64)
    rebased: bool = False
    """The target was reverted and grown: a whole cycle must come before the switch."""
    target_off: PowerOffResult | None = None
    replica_off: PowerOffResult | None = None
    protective: SnapshotReplicaResult | None = None
    """The failback protective snapshot."""
    cycle: int = 1
    """The cycle that began last; pass 1 is cycle 1, and the final pass comes after the last."""
    cycles: tuple[Cycle, ...] = Field(default=(), max_length=32)
    """The newest complete cycles."""
    switch: SwitchPolicy | None = None
    """After a `reschedule`; None: the request's."""
    finalize: FinalizePolicy | None = None
    """After an `adjust`; None: the request's."""
    limits: Limits | None = None
    """After an `adjust`; None: the request's."""
    differences: tuple[DifferencePlan, ...] = Field(default=(), max_length=256)
    planned_on: TargetGuard | None = None
    """The target as it was when the newest differences were calculated."""
    transfers: tuple[TransportResult, ...] = Field(default=(), max_length=256)
    verified: tuple[VerifyResult, ...] = Field(default=(), max_length=64)
    target_on_at: datetime | None = None
    undo: Request = Request()
    """The undo requests so far, merged: later answers win."""
    commit: Request = Request()
    attested_off: tuple[Name, ...] = Field(default=(), max_length=16)
    """VMs that a person answers for, by reference (workflows/attesting.py)."""

    @property
    def known(self) -> RunPlan:
        """The plan of preflight; every step after step 0 has it."""
        if self.plan is None:
            raise ValueError("a step after preflight ran without a plan")
        return self.plan

    @property
    def others(self) -> tuple[VmIdentity, ...]:
        """The old source VM, where another VM takes its place and it is still there."""
        plan = self.known
        there = plan.old_source is not None and plan.old_source_there
        return (plan.old_source,) if there and plan.old_source is not None else ()

    @property
    def targets(self) -> tuple[VmIdentity, ...]:
        """The target VM, once there is one."""
        return (self.known.target,) if self.known.target_exists else ()

    @property
    def snapshots_target(self) -> bool:
        """Whether the target has a protective snapshot; one that the run makes needs none."""
        return self.request.protect_target and self.request.destination is not Destination.NEW

    @property
    def switching(self) -> SwitchPolicy:
        """When the work moves over, as it was last said."""
        return self.switch or self.request.switch

    @property
    def finalizing(self) -> FinalizePolicy:
        """Who decides at the end, as it was last said."""
        return self.finalize or self.request.finalize

    @property
    def read_purpose(self) -> str:
        """Purpose of the read snapshot of the cycle that began last: the only one there can be."""
        return f"read-{self.cycle}"

    @property
    def final_pass(self) -> int:
        """Number of the pass after the replica went off."""
        return self.cycle + 1

    @property
    def power_on_replica(self) -> bool:
        """Whether undo powers the replica on: asked for, else as it was when the run began."""
        asked = self.undo.power_on_replica
        return self.known.replica_power is PowerState.ON if asked is None else asked

    @property
    def may_restart_replica(self) -> bool:
        """Whether undo may power a replica off hard whose guest hangs in its shutdown: people let
        the run do so, and it is powered on next."""
        force = self.request.on_guest_timeout is GuestTimeoutPolicy.FORCE
        return force and self.power_on_replica

    @property
    def replica_power_mark(self) -> str | None:
        """Mark of the replica's newest power-on as this run knows it: of the protective snapshot,
        or of the power-off before it when that step was cut off before it could report."""
        newest = self.protective or self.replica_off
        return newest.power_mark if newest else None

    @property
    def replica_unused(self) -> StayedOff | None:
        """The replica as it was protected; None where its site does not tell power-ons."""
        mark = self.protective.power_mark if self.protective else None
        return StayedOff(vm=self.known.replica, power_mark=mark) if mark is not None else None

    def guard(self) -> TargetGuard:
        """What must still hold of the target: as step 2 left it, or as it was last planned on."""
        if self.planned_on is not None:
            return self.planned_on
        protected = self.protected or ProtectTargetResult()
        return TargetGuard(
            target=self.known.target,
            snapshot=protected.snapshot,
            power_mark=protected.power_mark,
            files=tuple(disk.file for disk in protected.disks),
        )

    def pass_disks(self, pass_no: int) -> tuple[DiskSides, ...]:
        """Both sides of every disk as this pass opens them: a cycle reads its read snapshot, the
        final pass the failback protective one; all but pass 1 from the base of the cycle before."""
        snapshot = self.frozen if pass_no <= self.cycle else self.protective
        assert snapshot is not None
        return tuple(
            DiskSides(
                pair=pair,
                source=source_opening(self.known.replica, pair, snapshot),
                target=self.target_opening(pair),
                base_change_id=self.change_base(str(pair.address)) if pass_no > 1 else None,
            )
            for pair in self.known.pairs
        )

    def planned_disks(self, pass_no: int) -> tuple[tuple[DifferencePlan, DiskSides], ...]:
        """Every disk of a pass with its plan."""
        plans = {plan.address: plan for plan in self.differences if plan.pass_no == pass_no}
        return tuple((plans[str(d.pair.address)], d) for d in self.pass_disks(pass_no))

    def target_openings(self) -> tuple[DiskOpening, ...]:
        """The target's disks as they are written; empty before the target is protected."""
        if self.protected is None:
            return ()
        leaves = {disk.key: disk for disk in self.protected.disks}
        return tuple(
            opening(self.known.target, leaves[pair.target_key], None)
            for pair in self.known.pairs
            if pair.target_key in leaves
        )

    def target_opening(self, pair: DiskPair) -> DiskOpening:
        """The target disk of this pair as it is written."""
        return next(o for o in self.target_openings() if o.disk_key == pair.target_key)

    def change_base(self, address: str) -> str | None:
        """The trusted change id of a disk, if a complete cycle left one."""
        return next((base.change_id for base in self.base if base.address == address), None)


def opening(vm: VmIdentity, disk: Disk, snapshot: str | None) -> DiskOpening:
    """How a mover opens this disk of this VM."""
    return DiskOpening(
        site=vm.site,
        vm_moref=vm.moref,
        snapshot=snapshot,
        disk_key=disk.key,
        file=disk.file,
        capacity_bytes=disk.capacity_bytes,
    )


def source_opening(
    replica: VmIdentity, pair: DiskPair, snapshot: SnapshotReplicaResult
) -> DiskOpening:
    """The replica disk of this pair, frozen in this snapshot."""
    disk = next(d for d in snapshot.disks if d.key == pair.replica_key)
    return opening(replica, disk, snapshot.snapshot)
