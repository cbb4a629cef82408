"""Virtual machines, disks and snapshots as the wire sees them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from failback.contracts.base import Contract, Name, Text
from failback.contracts.placement import DatastoreView
from failback.contracts.words import PowerState


class VmIdentity(Contract):
    """Identity of a VM: (site, vCenter instance uuid, moref), checked with the other fields.

    Morefs repeat between vCenters and names repeat within one, so no single field is enough.
    """

    site: Name
    vcenter_uuid: Name
    moref: Name
    name: Name
    instance_uuid: Name
    bios_uuid: Name
    path: Text

    @property
    def ref(self) -> str:
        """One word for this VM and no other, `site:moref`, as people are told it."""
        return f"{self.site}:{self.moref}"

    def __str__(self) -> str:
        return f"{self.name} ({self.ref})"


class DiskAddress(Contract):
    """Where a disk sits: the only thing that pairs disks of two VMs (keys and uuids differ)."""

    controller: Name
    """`scsi`, `sata`, `ide` or `nvme`."""
    bus: int
    unit: int

    def __str__(self) -> str:
        return f"{self.controller}{self.bus}:{self.unit}"


class Disk(Contract):
    """One virtual disk of a VM, or of a snapshot's configuration."""

    key: int
    """Device key: stable within one VM."""
    address: DiskAddress
    file: Text
    """Backing file as vSphere names it: `[datastore] folder/name.vmdk`. Changes with snapshots."""
    capacity_bytes: int
    change_id: Name | None = None
    """Change tracking position, `uuid/epoch`; None where tracking is off."""
    parent_file: Text | None = None
    mode: Name = "persistent"
    datastore: Name | None = None
    """moref of its datastore."""
    stored_bytes: int | None = None
    """Room its whole chain of files takes; None: not told."""
    linked: bool = False
    """Its chain begins in a file of another VM or template (linked clone)."""
    refusals: tuple[Name, ...] = Field(default=(), max_length=16)
    """Why it cannot be failed back: `independent`, `physical-rdm`, `multi-writer`, `encrypted`."""


class Nic(Contract):
    """One network card of a VM."""

    key: int
    kind: Name
    """`vmxnet3`, `e1000e`, `e1000`, ..."""
    network: Name
    """Name of the network or distributed port group."""
    mac: Name = ""
    address_type: Name = "assigned"
    """`manual`, `generated` or `assigned`."""
    connected: bool = True
    """Connected at power-on."""


class Snapshot(Contract):
    """One snapshot of a VM."""

    moref: Name
    name: Name
    description: Text = ""
    parent: Name | None = None
    """moref of the parent snapshot."""
    created_at: datetime | None = None


class VmView(Contract):
    """Everything the product reads of a VM, in one batch read."""

    identity: VmIdentity
    power: PowerState
    tools_running: bool
    disks: tuple[Disk, ...] = Field(max_length=64)
    snapshots: tuple[Snapshot, ...] = Field(default=(), max_length=512)
    current_snapshot: Name | None = None
    tracking_enabled: bool = False
    tracking_supported: bool = False
    is_template: bool = False
    connection_state: Name = "connected"
    """`connected`, `disconnected`, `orphaned`, `inaccessible` or `invalid`."""
    fault_tolerant: bool = False
    booted_at: datetime | None = None
    consolidation_needed: bool = False
    question: Text | None = None
    memory_mb: int = 0
    cpus: int = 0
    host: Name | None = None
    in_maintenance: bool = False
    """Its host or one of its datastores is in maintenance, or about to be."""
    nics: tuple[Nic, ...] = Field(default=(), max_length=32)
    datastores: tuple[DatastoreView, ...] = Field(default=(), max_length=64)
    hardware_version: Name = ""
    """`vmx-19`."""
    firmware: Name = "bios"
    vtpm: bool = False
    passthrough: tuple[Name, ...] = Field(default=(), max_length=32)
    """Labels of devices passed through from the host."""
    in_vapp: bool = False
    ever_ran: bool = True
    """False: it is off and its first start has left no log file yet."""

    def snapshot_named(self, name: str) -> tuple[Snapshot, ...]:
        """All snapshots of exactly this name: vSphere lets names repeat."""
        return tuple(snapshot for snapshot in self.snapshots if snapshot.name == name)


class DiskPair(Contract):
    """A replica disk and the target disk that receives it."""

    address: DiskAddress
    replica_key: int
    target_key: int
    capacity_bytes: int
    """Capacity of the replica's disk."""
    target_capacity_bytes: int
    accepted: bool = False
    """Somebody vouches for the pair: partition tables that name different disks are no reason."""


class DiskOpening(Contract):
    """How a mover opens one disk: it resolves the file by the site's settings."""

    site: Name
    vm_moref: Name
    snapshot: Name | None = None
    """moref of the snapshot whose content is read; None: the current disk."""
    disk_key: int
    file: Text
    capacity_bytes: int
