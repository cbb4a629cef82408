"""Reading VMs, with their identity proven at every read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from failback.contracts.vm import VmIdentity, VmView
from failback.errors import VmChanged, VmNotFound
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import Ref, moref, ref, vmodl
from failback.hypervisor.vsphere.properties import Read, read_objects, walk
from failback.hypervisor.vsphere.session import Session
from failback.hypervisor.vsphere.views import (
    DATASTORE_PATHS,
    VIEW_PATHS,
    view_of,
)

log = logging.getLogger(__name__)


def vm_ref(vm: VmIdentity) -> Ref:
    """Reference of a VM."""
    return ref("VirtualMachine", vm.moref)


def service_instance() -> Ref:
    """The site's own root object, for questions about itself."""
    return ref("ServiceInstance", "ServiceInstance")


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
    return read_proven_beside(session, vm, paths, {}, beat)[0]


def read_proven_beside(
    session: Session,
    vm: VmIdentity,
    paths: Sequence[str],
    others: Mapping[Ref, Sequence[str]],
    beat: Beat | None,
) -> list[Read]:
    """The same, and properties of other objects (of other kinds) in the same round trip."""
    wanted = {vm_ref(vm): ("config.instanceUuid", *paths), **others}
    kinds = {type(one).__name__.removeprefix("vim."): paths for one, paths in wanted.items()}
    try:
        # In whatever order the site likes.
        found = {
            entry.ref: entry for entry in read_objects(session, list(wanted), kinds, beat=beat)
        }
    except vmodl.fault.ManagedObjectNotFound as fault:
        raise gone(session, fault, [vm]) from fault
    except vmodl.MethodFault as fault:
        raise faults.typed(fault, session.site, f"read {vm}") from fault
    entries = [found.get(one, Read(one, {})) for one in wanted]
    prove(session, vm, entries[0])
    return entries


def prove(session: Session, vm: VmIdentity, entry: Read) -> None:
    """Raise VmChanged when what was read is another VM than the one meant."""
    uuid = entry.get("config.instanceUuid")
    # An inaccessible VM has no configuration to compare; its connection state says so.
    if uuid is not None and uuid != vm.instance_uuid:
        raise VmChanged(
            f"{vm} is now another VM: its instance UUID is {uuid}, not {vm.instance_uuid}.",
            "If it was registered again: `failback replica find-again KEY`.",
            expected=vm.instance_uuid,
            found=str(uuid),
        )
    here = session.vcenter_uuid()
    # Records of hosts without vCenter may bear the site's name, which once stood for their uuid.
    named = here.startswith("host:") and vm.vcenter_uuid == f"host:{session.site}"
    if here != vm.vcenter_uuid and not named:
        raise VmChanged(
            f"Site {session.site} is another vCenter ({here}) than the one {vm} was found in.",
            "Correct the site's url, or give the new vCenter a site name of its own.",
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
    except (vmodl.fault.MethodNotFound, vmodl.fault.NotSupported):
        # A host without vCenter cannot be asked ahead; each operation names what it lacks.
        log.warning("privileges cannot be asked for", extra={"site": session.site})
        return dict.fromkeys(refs, ())
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
        "If it was registered again: `failback replica find-again KEY`.",
    )
