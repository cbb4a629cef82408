"""What the account must be allowed to do, by the part its site plays. docs/vsphere-permissions.md
shows the same as a table, docs/vsphere-role.sh as commands; a test holds the three together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class On(StrEnum):
    """The object that a privilege is asked for on."""

    VM = "VM"
    DATASTORE = "datastore"
    VCENTER = "vCenter"
    PLACE = "destination"
    """Datacenter, folder, pool, network: where a VM is made."""


@dataclass(frozen=True)
class Privilege:
    """One privilege, by its id at the site."""

    id: str
    on: On
    why: str
    production: bool = True
    dr: bool = True
    checked: bool = True
    """Preflight asks for it on the VM; False: only some runs need it, or it is on no VM."""


_CREATING = {"dr": False, "checked": False}

PRIVILEGES: tuple[Privilege, ...] = (
    Privilege("VirtualMachine.Interact.PowerOff", On.VM, "switching, undo"),
    Privilege("VirtualMachine.Interact.PowerOn", On.VM, "switching, undo"),
    Privilege("VirtualMachine.State.CreateSnapshot", On.VM, "read and protective snapshots"),
    Privilege("VirtualMachine.State.RemoveSnapshot", On.VM, "removing our snapshots"),
    Privilege("VirtualMachine.State.RevertToSnapshot", On.VM, "undo"),
    Privilege(
        "VirtualMachine.Config.ChangeTracking",
        On.VM,
        "change tracking on at the replica, off at the target while it is written",
    ),
    Privilege(
        "VirtualMachine.Provisioning.DiskRandomRead",
        On.VM,
        "changed areas; reading disks through VDDK",
    ),
    Privilege(
        "VirtualMachine.Provisioning.DiskRandomAccess",
        On.VM,
        "writing disks through VDDK",
        dr=False,
        checked=False,
    ),
    Privilege(
        "VirtualMachine.Config.DiskLease",
        On.VM,
        "opening disks through VDDK",
        checked=False,
    ),
    Privilege(
        "VirtualMachine.Config.DiskExtend",
        On.VM,
        "growing a smaller target disk (--grow-target)",
        dr=False,
        checked=False,
    ),
    Privilege(
        "VirtualMachine.Interact.AnswerQuestion",
        On.VM,
        "answering whether a VM was moved",
        checked=False,
    ),
    Privilege(
        "Datastore.AllocateSpace", On.DATASTORE, "room of snapshots and grown disks", checked=False
    ),
    Privilege("Global.ManageCustomFields", On.VCENTER, "defining our mark", checked=False),
    Privilege("Global.SetCustomField", On.VM, "setting our mark", dr=False, checked=False),
    Privilege("Global.Licenses", On.VCENTER, "VDDK asks for the host's licence", checked=False),
    Privilege("Global.DisableMethods", On.VCENTER, "VDDK keeps a VM from moving", checked=False),
    Privilege("Global.EnableMethods", On.VCENTER, "VDDK lets it move again", checked=False),
    Privilege("System.Anonymous", On.VCENTER, "in every role", checked=False),
    Privilege("System.Read", On.VCENTER, "inventory, tasks and events"),
    Privilege("System.View", On.VCENTER, "inventory, tasks and events"),
    Privilege("VirtualMachine.Inventory.Create", On.PLACE, "creating a VM", **_CREATING),
    Privilege("VirtualMachine.Inventory.Register", On.PLACE, "registering a VM", **_CREATING),
    Privilege("VirtualMachine.Inventory.Unregister", On.VM, "undo of registering", **_CREATING),
    Privilege("VirtualMachine.Inventory.Delete", On.VM, "undo of creating", **_CREATING),
    Privilege("VirtualMachine.Inventory.Move", On.VM, "its final folder", **_CREATING),
    Privilege("VirtualMachine.Config.AddNewDisk", On.VM, "new VMs; carry-over", **_CREATING),
    Privilege("VirtualMachine.Config.RemoveDisk", On.VM, "undo of carry-over", **_CREATING),
    Privilege(
        "VirtualMachine.Config.AddRemoveDevice", On.VM, "controllers; carry-over", **_CREATING
    ),
    Privilege("VirtualMachine.Config.EditDevice", On.VM, "connecting its network", **_CREATING),
    Privilege("VirtualMachine.Config.AdvancedConfig", On.VM, "the mark in its file", **_CREATING),
    Privilege("VirtualMachine.Config.CPUCount", On.VM, "its CPUs; carry-over", **_CREATING),
    Privilege("VirtualMachine.Config.Memory", On.VM, "its memory; carry-over", **_CREATING),
    Privilege("VirtualMachine.Config.Settings", On.VM, "guest and firmware", **_CREATING),
    Privilege("VirtualMachine.Config.Rename", On.VM, "its final name", **_CREATING),
    Privilege("Resource.AssignVMToPool", On.PLACE, "its resource pool", **_CREATING),
    Privilege("Network.Assign", On.PLACE, "its network", **_CREATING),
    Privilege("Datastore.Browse", On.DATASTORE, "NVRAM of a VM with EFI firmware", checked=False),
    Privilege("Datastore.FileManagement", On.DATASTORE, "writing that NVRAM", **_CREATING),
)


def of_production() -> tuple[Privilege, ...]:
    """Those the account needs at the production site."""
    return tuple(p for p in PRIVILEGES if p.production)


def of_dr() -> tuple[Privilege, ...]:
    """Those the account needs at the DR site."""
    return tuple(p for p in PRIVILEGES if p.dr)


def checked_on_vm(privileges: tuple[Privilege, ...]) -> tuple[str, ...]:
    """Ids that preflight asks for on each VM."""
    return tuple(p.id for p in privileges if p.checked)
