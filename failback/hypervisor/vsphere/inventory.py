"""Finding VMs and reading them, with their identity proven at every read."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from failback.contracts.vm import VmIdentity, VmView
from failback.errors import SettingsInvalid, VmAmbiguous, VmChanged, VmNotFound
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import Ref, moref, ref, vim, vmodl
from failback.hypervisor.vsphere.properties import Read, read_object, read_objects, walk
from failback.hypervisor.vsphere.session import Session
from failback.hypervisor.vsphere.views import (
    DATASTORE_PATHS,
    IDENTITY_PATHS,
    VIEW_PATHS,
    identity_of,
    unescaped,
    view_of,
)

log = logging.getLogger(__name__)


def vm_ref(vm: VmIdentity) -> Ref:
    """Reference of a VM."""
    return ref("VirtualMachine", vm.moref)


def service_instance() -> Ref:
    """The site's own root object, for questions about itself."""
    return ref("ServiceInstance", "ServiceInstance")


def find(session: Session, name_or_path: str) -> VmIdentity:
    """The one VM of this moref, inventory path or name below the site's root."""
    root = _root(session)
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


def read(session: Session, vms: Sequence[VmIdentity]) -> list[VmView]:
    """Views in the order asked, all in one round trip."""
    if not vms:
        return []
    unique = {vm.moref: vm for vm in vms}
    try:
        found = read_objects(
            session,
            [vm_ref(vm) for vm in unique.values()],
            {
                "VirtualMachine": VIEW_PATHS,
                "HostSystem": ("name", "runtime.inMaintenanceMode"),
                "Datastore": DATASTORE_PATHS,
                # The base type only: port groups have a name too.
                "Network": ("name",),
            },
            tuple(
                walk("VirtualMachine", path) for path in ("runtime.host", "datastore", "network")
            ),
        )
    except vmodl.fault.ManagedObjectNotFound as fault:
        raise gone(session, fault, vms) from fault
    by_moref = {moref(entry.ref): entry for entry in found}
    views = []
    for vm in vms:
        if vm.moref not in by_moref:
            raise _not_found(session, vm)
        entry = by_moref[vm.moref]
        prove(session, vm, entry)
        views.append(view_of(session, entry, by_moref))
    return views


def read_proven(session: Session, vm: VmIdentity, paths: Sequence[str], beat: Beat | None) -> Read:
    """Read some properties of the VM after proving that it still is this VM."""
    try:
        entry = read_object(session, vm_ref(vm), ("config.instanceUuid", *paths), beat)
    except vmodl.fault.ManagedObjectNotFound as fault:
        raise gone(session, fault, [vm]) from fault
    except vmodl.MethodFault as fault:
        raise faults.typed(fault, session.site, f"read {vm}") from fault
    prove(session, vm, entry)
    return entry


def prove(session: Session, vm: VmIdentity, entry: Read) -> None:
    """Raise VmChanged when what was read is another VM than the one meant."""
    uuid = entry.get("config.instanceUuid")
    # An inaccessible VM has no configuration to compare; its connection state says so.
    if uuid is not None and uuid != vm.instance_uuid:
        raise VmChanged(
            f"{vm} is now another VM: its instance UUID is {uuid}, not {vm.instance_uuid}.",
            "Register the VM anew in the catalog.",
            expected=vm.instance_uuid,
            found=str(uuid),
        )
    here = session.vcenter_uuid()
    if here != vm.vcenter_uuid:
        raise VmChanged(
            f"Site {session.site} is another vCenter ({here}) than the one {vm} was found in.",
            "Correct the site's url, or register the VM anew in the catalog.",
            expected=vm.vcenter_uuid,
            found=here,
        )


def gone(session: Session, fault: Any, vms: Sequence[VmIdentity]) -> VmNotFound:
    """VmNotFound naming the VM that a ManagedObjectNotFound is about."""
    missing = moref(fault.obj) if fault.obj is not None else ""
    return _not_found(session, next((vm for vm in vms if vm.moref == missing), vms[0]))


def missing_privileges(
    session: Session, vms: Sequence[VmIdentity], privileges: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Those of the privileges that our account lacks, by moref, in one round trip."""
    if not privileges or not vms:
        return {vm.moref: () for vm in vms}
    login = session.login()
    refs = {vm.moref: vm_ref(vm) for vm in vms}
    try:
        answer = session.read(
            login.content.authorizationManager,
            "HasPrivilegeOnEntities",
            list(refs.values()),
            login.key,
            list(privileges),
        )
    except vmodl.fault.ManagedObjectNotFound as fault:
        raise gone(session, fault, vms) from fault
    except vmodl.MethodFault as fault:
        raise faults.typed(fault, session.site, f"read our privileges on {vms[0]}") from fault
    granted = {
        moref(entity.entity): {p.privId for p in entity.privAvailability if p.isGranted}
        for entity in answer or ()
    }
    return {
        moid: tuple(p for p in privileges if p not in granted.get(moid, frozenset()))
        for moid in refs
    }


def refresh_datastores(session: Session, datastores: Sequence[str]) -> None:
    """Have the site look at free space now: by itself it does so only now and then."""
    for store in dict.fromkeys(datastores):
        try:
            session.read(ref("Datastore", store), "RefreshDatastore")
        except vmodl.MethodFault as fault:
            # What the site said before stays true enough to go on with.
            log.warning(
                "datastore not refreshed",
                extra={"site": session.site, "datastore": store, "detail": str(fault.msg)},
            )


def _not_found(session: Session, vm: VmIdentity) -> VmNotFound:
    return VmNotFound(
        f"{vm} is not in the inventory of site {session.site} any more.",
        "Find it again and register it anew in the catalog.",
    )


def _root(session: Session) -> Ref | None:
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
