"""Findings of preflight and the plan that a run follows."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from failback.contracts.base import Contract, Name, ReplicaKey, Text
from failback.contracts.vm import DiskAddress, DiskPair, Nic, VmIdentity
from failback.contracts.words import PowerState, Severity


class Finding(Contract):
    """One result of preflight: what, which object, what to do."""

    code: Name
    severity: Severity
    object: Text
    message: Text
    remedy: Text = ""


class Tuning(Contract):
    """Numbers of the worker's settings that the workflow needs to schedule activities."""

    heartbeat_timeout: timedelta = timedelta(seconds=30)
    step_patience: timedelta = timedelta(minutes=30)
    switch_patience: timedelta = timedelta(minutes=10)
    probe_interval: timedelta = timedelta(seconds=30)
    history_events: int = 4000
    """A run that waits goes on in a new execution when its history has so many events."""


class CarriedDisk(Contract):
    """A disk of the replica that the target gets too, empty at first."""

    address: DiskAddress
    replica_key: int
    capacity_bytes: int
    folder: Text
    """Where its file goes, `[datastore] folder`: beside the target's other disks."""


class Carry(Contract):
    """What was added to the replica and is added to the target too."""

    cpus: int
    memory_mb: int
    cpus_before: int
    memory_mb_before: int
    nics: tuple[Nic, ...] = Field(default=(), max_length=32)
    """Network cards to be added, with the networks they get; their keys are the replica's."""
    nic_keys_before: tuple[int, ...] = Field(default=(), max_length=32)
    """The cards that the target had."""
    disks: tuple[CarriedDisk, ...] = Field(default=(), max_length=64)


class RunPlan(Contract):
    """What preflight proved: the VMs, the disk pairs, the state to return to."""

    replica: VmIdentity
    target: VmIdentity
    pairs: tuple[DiskPair, ...] = Field(max_length=64)
    replica_power: PowerState
    target_power: PowerState
    replica_tracking: bool
    target_tracking: bool
    target_snapshots: int = 0
    tuning: Tuning = Tuning()
    old_source: VmIdentity | None = None
    """recovered, new: the VM whose place the target takes."""
    old_source_there: bool = False
    """Whether that VM still exists, as far as its site could be asked."""
    old_source_power: PowerState = PowerState.UNKNOWN
    """Unknown also where its site could not be asked."""
    replica_tools: bool = True
    """Whether its guest tools ran: without them it is powered off hard."""
    final_name: Name = ""
    """new: the name the VM bears in the end."""
    plan_hash: Name = ""
    """Over everything this rests on."""
    carry: Carry | None = None
    """None: nothing but disk content is brought to the target."""

    @property
    def target_exists(self) -> bool:
        """False until a VM that this run makes was made: its moref is not known yet."""
        return bool(self.target.moref)


class BeginAnswer(Contract):
    """Answer of update `begin`, when preflight has ended."""

    accepted: bool
    workflow_id: Name = ""
    run_id: Name = ""
    replica: ReplicaKey | None = None
    findings: tuple[Finding, ...] = Field(default=(), max_length=200)
