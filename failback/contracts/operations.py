"""Arguments and results of the activities: one frozen model each.

No bulk data: extent lists, digests and progress live in the ledger and the catalog; what travels
here are identities, counts and short evidence.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field, StringConstraints

from failback.contracts.base import Contract, Name, ReplicaKey, Text
from failback.contracts.plan import Carry, Finding, RunPlan
from failback.contracts.policies import Hook, Limits, WorkloadProbe
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.vm import Disk, DiskOpening, DiskPair, VmIdentity
from failback.contracts.words import (
    GuestTimeoutPolicy,
    Method,
    Outcome,
    Phase,
    PowerOffWay,
    PowerState,
    ReplicaState,
    StepName,
)


class RunRef(Contract):
    """Which run, and which replica it is about."""

    run_id: Name
    replica: ReplicaKey


class StepCall(Contract):
    """Head of every activity argument: the run and the step on whose behalf it acts."""

    run: RunRef
    step: StepName
    phase: Phase | None = None
    patience: timedelta = timedelta(minutes=30)
    """Elapsed time without progress after which a retryable failure is put before a person."""
    generation: int = 0
    """Which execution of the run's workflow asks: attempts of an earlier one must do nothing."""


class Done(Contract):
    """Result of an operation whose only product is evidence for people."""

    evidence: Text = ""
    alarm: Text = ""
    """What people must hear of although the operation went well."""


class Preflight(StepCall):
    """Check everything, claim the VMs, change nothing else."""

    request: StartRequest


class PreflightResult(Contract):
    """`plan` is None exactly when a finding refuses."""

    findings: tuple[Finding, ...] = Field(default=(), max_length=200)
    plan: RunPlan | None = None


class PowerOff(StepCall):
    """Bring a VM to powered off (SPEC: guest shutdown first when tools run)."""

    vm: VmIdentity
    guest_timeout: timedelta = timedelta(minutes=15)
    on_guest_timeout: GuestTimeoutPolicy = GuestTimeoutPolicy.FORCE
    accept_suspended: bool = False
    hard: bool = False
    """Off at once: the VM's content will be reverted or deleted anyway."""
    attest_off: tuple[Name, ...] = Field(default=(), max_length=16)
    """VMs that a person declared to be off while their site cannot be asked."""
    only_look: bool = False
    """Nobody wants it to be powered off: refuse if it is not."""


class PowerOffResult(Contract):
    """How the VM came to be off."""

    was: PowerState
    way: PowerOffWay
    at: datetime
    power_mark: Name | None = None
    """Opaque mark of the newest power-on, read while off: a later different one means it ran."""
    evidence: Text = ""


class ProtectTarget(StepCall):
    """Tracking off, grow, protective snapshot, mark; in this order."""

    target: VmIdentity
    pairs: tuple[DiskPair, ...] = Field(max_length=64)
    snapshot: bool = True
    power_mark: Name | None = None
    """Of when it was switched off; None: not known."""


class ProtectTargetResult(Contract):
    """What undo and the later passes rely on."""

    snapshot: Name | None = None
    """moref of the target protective snapshot."""
    power_mark: Name | None = None
    """Opaque mark of the last power-on; a later different one means somebody ran the target."""
    disks: tuple[Disk, ...] = Field(default=(), max_length=64)
    """The target's disks as they must be opened for writing: the leaves."""
    evidence: Text = ""


class CarryOverHardware(StepCall):
    """Add to the target what was added to the replica; with `back` take it away."""

    target: VmIdentity
    carry: Carry
    back: bool = False
    reverted_next: bool = False
    """back: the target is reverted to its protective snapshot after this."""


class CarryOverResult(Done):
    """The target's disks and the new pairs, where disks were added."""

    disks: tuple[Disk, ...] = Field(default=(), max_length=64)
    pairs: tuple[DiskPair, ...] = Field(default=(), max_length=64)


class SnapshotReplica(StepCall):
    """Snapshot the replica so that its disks can be read: `purpose` names it."""

    replica: VmIdentity
    purpose: Name
    """`read-1` while it runs, `protective` when it is off."""
    enable_tracking: bool = False
    power_mark: Name | None = None
    """protective: of when it was switched off; None: not known."""


class SnapshotReplicaResult(Contract):
    """The snapshot and the frozen disks, with their change ids, to be read through it."""

    snapshot: Name
    tracking: bool = False
    power_mark: Name | None = None
    """protective: a later different one means that it holds what the snapshot does not."""
    disks: tuple[Disk, ...] = Field(default=(), max_length=64)
    evidence: Text = ""


class RemoveSnapshot(StepCall):
    """Remove a snapshot that carries this run's mark and wait for the merge."""

    vm: VmIdentity
    purpose: Name
    restore_tracking: bool | None = None
    """Set change tracking to this afterwards; None: leave it."""


class TargetGuard(Contract):
    """What must still hold of the target before a pass after the first (invariant I2b)."""

    target: VmIdentity
    snapshot: Name | None
    power_mark: Name | None
    files: tuple[Text, ...] = Field(default=(), max_length=64)


class DiskSides(Contract):
    """Both sides of one disk as a pass opens them."""

    pair: DiskPair
    source: DiskOpening
    target: DiskOpening
    base_change_id: Name | None = None
    """Change id of the last complete cycle; None: there is no trusted base."""


class CalculateDifference(StepCall):
    """Choose the method of every disk and store its areas in the ledger."""

    pass_no: int
    replica: VmIdentity
    guard: TargetGuard
    blank_target: bool = False
    """The target's disks are this run's own and were never written."""
    disks: tuple[DiskSides, ...] = Field(max_length=64)


class DifferencePlan(Contract):
    """Reference to one disk's plan in the ledger, with the reason people see."""

    plan_id: Name
    pass_no: int
    address: Name
    method: Method
    reason: Text
    areas_bytes: int
    check_label: bool = False
    """Refuse before the first write when the partition tables name different disks."""


class Differences(Contract):
    """Plans of all disks, and the target as it was when they were made."""

    plans: tuple[DifferencePlan, ...] = Field(max_length=64)
    guard: TargetGuard


class DiskCall(StepCall):
    """Head of what a mover does with one disk."""

    plan: DifferencePlan
    source: DiskOpening
    target: DiskOpening
    guard: TargetGuard
    """The target as it was when this was planned; each attempt proves that it still is."""


class TransportChanges(DiskCall):
    """Write the difference of one disk: resumes from the ledger, safe to run twice."""


class TransportResult(Contract):
    """Counters of one disk's pass, over all attempts."""

    address: Name
    examined_bytes: int = 0
    different_bytes: int = 0
    written_bytes: int = 0
    zeroed_bytes: int = 0
    resumed_bytes: int = 0
    """Of the examined bytes, those that the last attempt found done in the ledger."""
    seconds: float = 0.0
    method: Method = Method.COMPARE
    pass_no: int = 0
    """0: of a version that did not say it."""
    stopped: bool = False
    """True when a cancel ended it at a checkpoint: not complete."""


class Verify(DiskCall):
    """Digest both sides over the written extents and random others."""

    whole_disk: bool = False


class VerifyResult(Contract):
    """Both digests were equal; `repaired` when a full comparison was needed first."""

    address: Name
    checked_bytes: int
    digest: Name
    repaired: bool = False
    alarm: Text = ""


class CheckDrift(StepCall):
    """Read both VMs again and compare them with the plan, before the replica goes off."""

    plan: RunPlan
    guard: TargetGuard
    leave_behind: tuple[Text, ...] = Field(default=(), max_length=64)
    made: VmIdentity | None = None
    """new: the VM that this run made; its hardware must still be like the replica's."""


class RebaseTarget(StepCall):
    """The replica's disks have grown: revert the target, grow it, protect it anew."""

    plan: RunPlan
    was: Name | None = None
    """moref of the target protective snapshot until now."""
    written_disks: tuple[DiskOpening, ...] = Field(default=(), max_length=64)
    """What movers may still have open."""
    snapshot: bool = True
    leave_behind: tuple[Text, ...] = Field(default=(), max_length=64)
    power_mark: Name | None = None
    """Of the target as it was last planned on; None: not known."""


class RebaseTargetResult(Contract):
    """What the run follows from here on."""

    plan: RunPlan
    protected: ProtectTargetResult
    evidence: Text = ""


class SetReplicaState(StepCall):
    """Compare-and-set of the replica's state, bound to the run."""

    to: ReplicaState
    allowed_from: tuple[ReplicaState, ...] = Field(max_length=4)
    verified_target: VmIdentity | None = None
    """Target whose mark `incomplete` is taken away: its content is verified."""


class StayedOff(Contract):
    """A VM that must not have been powered on since it had this mark."""

    vm: VmIdentity
    power_mark: Name


class PowerOn(StepCall):
    """Power a VM on after proving that no other copy runs."""

    vm: VmIdentity
    must_be_off: tuple[VmIdentity, ...] = Field(default=(), max_length=4)
    attest_off: tuple[Name, ...] = Field(default=(), max_length=16)
    written_disks: tuple[DiskOpening, ...] = Field(default=(), max_length=64)
    """Disks whose writers must be proven dead first."""
    unused: StayedOff | None = None
    """The VM whose content this one has: what it wrote since would be lost."""


class PowerOnResult(Contract):
    """When it was issued, and since when it runs."""

    at: datetime
    evidence: Text = ""
    alarm: Text = ""


class Settle(StepCall):
    """Wait until nothing half-done can still happen on these VMs or disks."""

    vms: tuple[VmIdentity, ...] = Field(max_length=4)
    written_disks: tuple[DiskOpening, ...] = Field(default=(), max_length=64)
    attest_off: tuple[Name, ...] = Field(default=(), max_length=16)
    guest_timeout: timedelta = timedelta(minutes=15)
    """How long a guest that was asked to shut down is waited for, from the request on."""
    may_force: tuple[VmIdentity, ...] = Field(default=(), max_length=4)
    """VMs that may be powered off hard after that: they are powered on again."""


class RestoreReplica(StepCall):
    """Undo of protect_replica: revert to the protective snapshot, remove it."""

    replica: VmIdentity
    snapshot: Name | None = None
    power_mark: Name | None = None
    content: Name = ""
    """`keep` or `revert` when a person has chosen; empty: nobody was asked."""


class RestoreTarget(StepCall):
    """Undo of protect_target: revert, remove, restore tracking and mark."""

    target: VmIdentity
    snapshot: Name | None = None
    protected: bool = True
    """False when the run was started without a target protective snapshot."""
    tracking_was: bool = False
    accept_not_restored: bool = False


class CreateTarget(StepCall):
    """new: make the shell that receives the disks, under a temporary name and with our mark."""

    replica: VmIdentity
    request: StartRequest
    plan: RunPlan


class CreateTargetResult(Contract):
    """The VM that was made: what the next steps write to, and what undo deletes."""

    target: VmIdentity
    pairs: tuple[DiskPair, ...] = Field(max_length=64)
    disks: tuple[Disk, ...] = Field(default=(), max_length=64)
    power_mark: Name | None = None
    unconnected: tuple[int, ...] = Field(default=(), max_length=32)
    """Keys of its network cards whose counterparts at the replica are not connected."""
    evidence: Text = ""


class DeleteTarget(StepCall):
    """Undo of create_target: delete it if everything on it is this run's."""

    site: Name
    target: VmIdentity | None = None
    """None: its creation may have been applied although nobody heard of it."""
    replica: VmIdentity
    request: StartRequest
    plan: RunPlan
    files: tuple[Text, ...] = Field(default=(), max_length=64)
    """Disk files that this run made; empty: nobody heard of them."""
    attest_off: tuple[Name, ...] = Field(default=(), max_length=16)
    accept_not_restored: bool = False
    """Leave it where it is if it holds something that is not this run's."""


class CopyConfiguration(StepCall):
    """new: NVRAM and configuration of the replica, read again now that it is off."""

    replica: VmIdentity
    target: VmIdentity
    request: StartRequest


class RegisterTarget(StepCall):
    """new: final name, folder, connected cards; with `back` the temporary name, disconnected."""

    target: VmIdentity
    request: StartRequest
    final_name: Name
    back: bool = False
    unconnected: tuple[int, ...] = Field(default=(), max_length=32)
    """Keys of cards that stay without a network, as at the replica."""
    attest_off: tuple[Name, ...] = Field(default=(), max_length=16)
    """back: VMs that need not be asked, because a person declared them to be off."""


class ReplaceSource(StepCall):
    """Compare-and-set of the replica's source VM in the catalog, bound to the run."""

    old: VmIdentity
    new: VmIdentity


class SetLimits(StepCall):
    """Write the limits that the movers of this run look at."""

    limits: Limits


class RunHook(StepCall):
    """Make a call of the worker's settings."""

    hook: Hook
    replica_vm: VmIdentity | None = None
    target_vm: VmIdentity | None = None


class HookResult(Contract):
    """How it ended. A failure is a result: the policy decides what it means."""

    ok: bool
    output: Annotated[str, StringConstraints(max_length=4096)] = ""
    """What it printed or answered, its end, without secrets."""
    evidence: Text = ""


class CleanTarget(StepCall):
    """After commit: remove our snapshot, restore tracking, remove the mark."""

    target: VmIdentity
    tracking_was: bool = False
    heartbeat_timeout: timedelta = timedelta(seconds=30)
    """As the worker's settings have it: after so long a dead worker's cleanup goes on elsewhere."""


class CloseRun(StepCall):
    """The closing transaction of a run: state, restore point, claims, outcome."""

    outcome: Outcome
    began: bool = True
    """False when preflight had not ended: there is nothing to undo but its claims."""
    request: Request = Request()
    protective_snapshot: Name | None = None
    replica: VmIdentity | None = None
    target: VmIdentity | None = None
    old_source: VmIdentity | None = None
    """recovered, new: the VM that the jobs include until the commit; `target` takes its place."""
    final_name: Name = ""
    """new: the name that `target` bears since it was registered."""
    must_be_off: tuple[VmIdentity, ...] = Field(default=(), max_length=4)
    """commit: refused while one of these runs, or cannot be read; undo: what a person declared of
    these is looked at once more."""
    power_known: tuple[VmIdentity, ...] = Field(default=(), max_length=4)
    """commit: refused while the power state of one of these cannot be read."""
    attest_off: tuple[Name, ...] = Field(default=(), max_length=16)


class WatchDecision(StepCall):
    """Watch the power states while a person decides; returns only when something is wrong."""

    must_be_off: tuple[VmIdentity, ...] = Field(max_length=4)
    target: VmIdentity
    interval: timedelta = timedelta(seconds=30)
    probes: tuple[WorkloadProbe, ...] = Field(default=(), max_length=16)
    """Asked too; a failure ends the watch."""
    probes_count_from: datetime | None = None
    """Failures before this time are a workload that still boots."""
    attest_off: tuple[Name, ...] = Field(default=(), max_length=16)


class WatchResult(Contract):
    """What the watch saw; the watch is started again after it is recorded."""

    alarm: Text
    code: Name = "SPLIT_BRAIN"
    """`SPLIT_BRAIN`, `PROBE_FAILED`, `SNAPSHOT_GROWS` or `SNAPSHOT_OLD`."""


class SnapshotLook(Contract):
    """One snapshot of this run, while the decision is awaited."""

    vm: Name
    name: Name
    created_at: datetime | None = None
    stored_bytes: int = 0
    """Room that the VM's disks take with all their snapshots."""
    grown_bytes: int = 0
    """Of it since this watch began."""
    free_bytes: int | None = None
    """Free room on the fullest of its datastores; None: not told."""


class WatchProgress(Contract):
    """Heartbeat details of the watch: what our snapshots cost."""

    since: datetime
    snapshots: tuple[SnapshotLook, ...] = Field(default=(), max_length=16)


class InspectRun(StepCall):
    """Look at what the newest run of a replica left; `run.run_id` is not known and empty."""


class Probe(StepCall):
    """Ask whether these sites answer; of VMs also whether their power states can be read."""

    sites: tuple[Name, ...] = Field(max_length=4)
    must_be_off: tuple[VmIdentity, ...] = Field(default=(), max_length=4)
    power_known: tuple[VmIdentity, ...] = Field(default=(), max_length=4)
    target: VmIdentity | None = None
    """Whose workload the probes ask."""
    probes: tuple[WorkloadProbe, ...] = Field(default=(), max_length=16)


class ProbeResult(Contract):
    """Which sites answered."""

    reachable: bool
    """And of VMs that were asked for: every power state is what it must be."""
    evidence: Text = ""


class TransferProgress(Contract):
    """Heartbeat details of a mover: live numbers of one disk, a hint and never the journal."""

    address: Name
    pass_no: int
    total_bytes: int
    examined_bytes: int
    different_bytes: int
    written_bytes: int
    zeroed_bytes: int = 0
    resumed_bytes: int = 0
    rate_bytes_per_s: float = 0.0
    eta_s: float | None = None
    doing: Name = "transport"
    """`waiting`, `window` (outside the run's hours), `transport`, `verify`."""
