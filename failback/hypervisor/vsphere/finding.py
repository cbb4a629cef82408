"""Finding VMs: by what a person says, and again when their moref has changed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from failback.contracts.vm import VmIdentity
from failback.errors import SettingsInvalid, VmAmbiguous, VmChanged, VmNotFound
from failback.hypervisor.vsphere.api import Ref, moref, ref, vim, vmodl
from failback.hypervisor.vsphere.properties import Read, read_objects, walk
from failback.hypervisor.vsphere.session import Session
from failback.hypervisor.vsphere.views import IDENTITY_PATHS, identity_of, unescaped


def find(session: Session, name_or_path: str) -> VmIdentity:
    """The one VM of this moref, inventory path or name below the site's root."""
    root = root_of(session)
    if re.fullmatch(r"(vm-)?\d+", name_or_path):
        found = _candidate(session, ref("VirtualMachine", name_or_path), root)
        if found is not None:
            return found
    if "/" in name_or_path:
        at = session.read(
            session.login().content.searchIndex, "FindByInventoryPath", name_or_path.lstrip("/")
        )
        if isinstance(at, vim.VirtualMachine):
            found = _candidate(session, at, root)
            if found is not None:
                return found
    named = [
        vm.ref
        for vm in _vms_below(session, root)
        if name_or_path in {vm.get("name"), unescaped(vm.get("name") or "")}
    ]
    if len(named) > 1:
        raise VmAmbiguous(
            f"{len(named)} VMs of site {session.site} are named {name_or_path}.",
            "Give the moref or inventory path of one: "
            + ", ".join(moref(vm) for vm in named[:5])
            + ".",
        )
    found = _candidate(session, named[0], root) if named else None
    if found is None:
        raise VmNotFound(
            f"Site {session.site} has no VM {name_or_path}"
            + (f" below {session.connection.inventory_root}." if root is not None else "."),
            "Check the name, and the site's inventory_root.",
        )
    return found


def find_again(session: Session, vm: VmIdentity) -> VmIdentity:
    """The VM under whatever moref it has now.

    A VM that was unregistered and registered again has another moref; its instance UUID stays
    unless another VM took it meanwhile, and then BIOS UUID and path still tell.
    """
    root, index = root_of(session), session.login().content.searchIndex
    by_instance = session.read(index, "FindAllByUuid", None, vm.instance_uuid, True, True)
    by_bios = session.read(index, "FindAllByUuid", None, vm.bios_uuid, True, False)
    found = {one.moref: one for one in _identities(session, (*by_instance, *by_bios), root)}
    # Copies may share a BIOS UUID, and a UUID of another VM may be ours by accident.
    fitting = [one for one in found.values() if _score(vm, one) >= _ENOUGH]
    if len(fitting) > 1:
        raise VmAmbiguous(
            f"{len(fitting)} VMs of site {session.site} may be {vm}: "
            f"{', '.join(str(one) for one in fitting[:5])}.",
            "Find out which one it is, and register that one in the catalog.",
        )
    if fitting:
        return fitting[0]
    if any(one.instance_uuid == vm.instance_uuid for one in found.values()):
        raise VmChanged(
            f"The instance UUID of {vm} belongs to another VM of site {session.site} by now.",
            "Find out which VM is which; what the catalog means must have its own UUID back.",
        )
    raise VmNotFound(
        f"{vm} is not in the inventory of site {session.site}, under any moref.",
        "Register its .vmx file in the inventory again, or choose another VM.",
    )


_ENOUGH = 2


def _score(vm: VmIdentity, other: VmIdentity) -> int:
    """How many of instance UUID, BIOS UUID and path are the same; a name proves nothing."""
    return sum(
        (
            vm.instance_uuid == other.instance_uuid,
            vm.bios_uuid == other.bios_uuid,
            vm.path == other.path,
        )
    )


def _identities(session: Session, vms: Iterable[Ref], root: Ref | None) -> list[VmIdentity]:
    unique = {moref(vm): vm for vm in vms}
    found = (_candidate(session, vm, root) for vm in unique.values())
    return [one for one in found if one is not None]


def root_of(session: Session) -> Ref | None:
    """The inventory root of the settings, None where there is none; SettingsInvalid."""
    path = session.connection.inventory_root
    if not path:
        return None
    index = session.login().content.searchIndex
    found = session.read(index, "FindByInventoryPath", path.strip("/"))
    if found is None:
        raise SettingsInvalid(
            f"Site {session.site} has no inventory object {path}.", "Correct its inventory_root."
        )
    return found


def _vms_below(session: Session, root: Ref | None) -> list[Read]:
    return read_objects(
        session,
        [root if root is not None else session.login().content.rootFolder],
        {"VirtualMachine": ("name",)},
        (
            walk("Folder", "childEntity", "folder", "datacenter", "vapp", "nested", name="folder"),
            walk("Datacenter", "vmFolder", "folder", name="datacenter"),
            walk("VirtualApp", "vm", name="vapp"),
            walk("VirtualApp", "resourcePool", "vapp", "nested", name="nested"),
        ),
    )


def _candidate(session: Session, vm: Ref, root: Ref | None) -> VmIdentity | None:
    """Identity of this VM, None when it is gone or not below the root."""
    try:
        found = read_objects(
            session,
            [vm],
            # No base type here: which of two fitting entries counts differs between sites.
            {"VirtualMachine": IDENTITY_PATHS}
            | dict.fromkeys(("Folder", "Datacenter", "VirtualApp"), ("name",)),
            (
                walk("ManagedEntity", "parent", "up", name="up"),
                walk("VirtualMachine", "parentVApp", "up", "vapp", name="vm"),
                walk("VirtualApp", "parentFolder", "up", name="vapp"),
            ),
        )
    except vmodl.fault.ManagedObjectNotFound:
        return None
    if root is not None and moref(root) not in {moref(entry.ref) for entry in found}:
        return None
    entry = next(entry for entry in found if moref(entry.ref) == moref(vm))
    return identity_of(session, entry)
