"""What a VM is made of, and what a new one is to be: the shell that receives a replica's disks."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from failback.contracts.base import Contract, Name, Text
from failback.contracts.placement import Placement
from failback.contracts.vm import DiskAddress, Nic


class Provisioning(StrEnum):
    """How a disk takes its room."""

    THIN = "thin"
    THICK = "thick"
    EAGER = "eager"
    """Thick, and zeroed when it is made."""


class Controller(Contract):
    """One disk controller."""

    kind: Name
    """`scsi`, `sata`, `ide` or `nvme`, as in a disk's address."""
    bus: int
    model: Name
    """`pvscsi`, `lsilogic`, `lsilogic-sas`, `buslogic`, `ahci`, `ide` or `nvme`."""


class ShellDisk(Contract):
    """One disk to make, empty."""

    address: DiskAddress
    capacity_bytes: int
    provisioning: Provisioning = Provisioning.THIN


class Option(Contract):
    """One advanced setting."""

    key: Name
    value: Text


class VmConfiguration(Contract):
    """Configuration of a VM, as far as a copy of it must have it."""

    guest_id: Name
    hardware_version: Name
    firmware: Name = "bios"
    secure_boot: bool = False
    cpus: int
    cores_per_socket: int = 1
    memory_mb: int
    cpu_hot_add: bool = False
    memory_hot_add: bool = False
    annotation: Text = ""
    controllers: tuple[Controller, ...] = Field(default=(), max_length=16)
    disks: tuple[ShellDisk, ...] = Field(default=(), max_length=64)
    nics: tuple[Nic, ...] = Field(default=(), max_length=32)
    options: tuple[Option, ...] = Field(default=(), max_length=64)
    instance_uuid: Name = ""
    bios_uuid: Name = ""


class VmShell(Contract):
    """A VM to create: empty disks, a replica's configuration, a place.

    The BIOS UUID is kept by default: guests and licences know the machine by it. The instance UUID
    is not: a vCenter gives each VM its own, and the original may still hold it.
    """

    name: Name
    configuration: VmConfiguration
    placement: Placement = Placement()
    keep_bios_uuid: bool = True
    keep_instance_uuid: bool = False
    keep_macs: bool = False
    """Give the cards the replica's addresses, as manual ones. Right only when the VM that bore
    them is off for good or gone: two running VMs with one address disturb both."""
    provisioning: Provisioning | None = None
    """None: each disk as the replica's."""
    connect_nics: bool = False
    """Connect the cards at power-on; otherwise the VM starts without a network."""
