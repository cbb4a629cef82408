"""What the checks look at: both VMs as read, the request, and what the catalog knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from failback.contracts.placement import Misplaced, PlacementView
from failback.contracts.plan import Finding
from failback.contracts.start import StartRequest
from failback.contracts.vm import Disk, DiskPair, VmIdentity, VmView
from failback.contracts.words import ReplicaState, Severity


@dataclass(frozen=True)
class Evidence:
    """Input of every check; all reads are done before the first check runs."""

    request: StartRequest
    state: ReplicaState
    replica: VmView
    target: VmView
    running_jobs: tuple[str, ...] = ()
    missing_privileges: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Privileges the accounts lack, by the VM they lack them on."""
    unopenable: dict[str, str] = field(default_factory=dict)
    """Disk files the mover cannot open, with the reason."""
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Names in the partition tables of replica and target disk, where both have one, by address
    of the replica's disk. Disks that cannot be read yet are looked at before the first write."""
    tracked_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes that change tracking says differ, by address, where it can be trusted."""
    placement: PlacementView | None = None
    """Where a new VM is to be; None where the target exists."""
    new_name: str = ""
    old_source: VmView | None = None
    """recovered, new: the VM whose place another takes, where it is still there."""
    old_source_unknown: str = ""
    """Why nobody can say whether it is there and runs; empty: it was asked, or there is none."""
    power_ons_unread: tuple[VmIdentity, ...] = ()
    """VMs whose site does not tell when they were powered on."""
    unknown_hooks: tuple[str, ...] = ()
    """Hooks and probe commands of the request that the worker's settings do not have."""
    lacking_networks: tuple[Misplaced, ...] = ()
    """Networks that carried-over cards need and the target's host does not have."""
    now: datetime | None = None
    switch_at: datetime | None = None
    """When the switch is to be; None: when people say so."""

    @property
    def makes_target(self) -> bool:
        """The target is still to be made: what is told of it is the wish."""
        return not self.target.identity.moref

    def pairs(self) -> tuple[DiskPair, ...]:
        """Disks mapped by the request; else those with the same controller kind, bus and unit."""
        targets = {str(disk.address): disk for disk in self.target.disks}
        mapped = {one.replica: one.target for one in self.request.disk_map}
        taken = set(mapped.values())
        pairs = []
        for disk in self.replica.disks:
            address = str(disk.address)
            if address in self.request.leave_behind:
                continue
            wanted = mapped.get(address) or (address if address not in taken else "")
            if wanted in targets:
                target = targets[wanted]
                pairs.append(
                    DiskPair(
                        address=disk.address,
                        replica_key=disk.key,
                        target_key=target.key,
                        capacity_bytes=disk.capacity_bytes,
                        target_capacity_bytes=target.capacity_bytes,
                        accepted=address in self.request.accept_pair,
                    )
                )
        return tuple(pairs)

    def without_partner(self) -> tuple[Disk, ...]:
        """Replica disks that no target disk pairs with."""
        paired = {pair.replica_key for pair in self.pairs()}
        return tuple(disk for disk in self.replica.disks if disk.key not in paired)

    def paired_disks(self) -> tuple[tuple[VmView, Disk], ...]:
        """Every disk of either VM that a pair names, with its VM."""
        pairs = self.pairs()
        replica, target = {p.replica_key for p in pairs}, {p.target_key for p in pairs}
        return tuple(
            (view, disk)
            for view, keys in ((self.replica, replica), (self.target, target))
            for disk in view.disks
            if disk.key in keys
        )


def refuse(code: str, subject: object, message: str, remedy: str) -> Finding:
    """A finding that ends the run before it changes anything."""
    return Finding(
        code=code, severity=Severity.REFUSE, object=str(subject), message=message, remedy=remedy
    )


def warn(code: str, subject: object, message: str, remedy: str = "") -> Finding:
    """A finding that people should know before they go on."""
    return Finding(
        code=code, severity=Severity.WARN, object=str(subject), message=message, remedy=remedy
    )
