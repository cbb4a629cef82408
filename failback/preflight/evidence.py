"""What the checks look at: both VMs as read, the request, and what the catalog knows."""

from __future__ import annotations

from dataclasses import dataclass, field

from failback.contracts.plan import Finding
from failback.contracts.start import StartRequest
from failback.contracts.vm import Disk, DiskPair, VmView
from failback.contracts.words import ReplicaState, Severity


@dataclass(frozen=True)
class Evidence:
    """Input of every check; all reads are done before the first check runs."""

    request: StartRequest
    state: ReplicaState
    replica: VmView
    target: VmView
    running_jobs: tuple[str, ...] = ()
    replica_ever_ran: bool = True
    missing_privileges: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Privileges the accounts lack, by the VM they lack them on."""
    unopenable: dict[str, str] = field(default_factory=dict)
    """Disk files the mover cannot open, with the reason."""

    def pairs(self) -> tuple[DiskPair, ...]:
        """Disks with the same controller kind, bus and unit on both VMs."""
        targets = {disk.address: disk for disk in self.target.disks}
        return tuple(
            DiskPair(
                address=disk.address,
                replica_key=disk.key,
                target_key=targets[disk.address].key,
                capacity_bytes=disk.capacity_bytes,
                target_capacity_bytes=targets[disk.address].capacity_bytes,
            )
            for disk in self.replica.disks
            if disk.address in targets and str(disk.address) not in self.request.leave_behind
        )

    def without_partner(self) -> tuple[Disk, ...]:
        """Replica disks that no target disk pairs with."""
        targets = {disk.address for disk in self.target.disks}
        return tuple(disk for disk in self.replica.disks if disk.address not in targets)


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
