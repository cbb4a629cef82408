"""What was read of a VM, in the product's words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from failback.contracts.base import complaint
from failback.contracts.placement import DatastoreView
from failback.contracts.vm import Snapshot, VmIdentity, VmView
from failback.contracts.words import PowerState
from failback.errors import OperationUnsupported
from failback.hypervisor.vsphere.api import moref
from failback.hypervisor.vsphere.devices import (
    disks_of,
    has_vtpm,
    nics_of,
    passed_through,
    stored_bytes,
)
from failback.hypervisor.vsphere.properties import Read
from failback.hypervisor.vsphere.session import Session

IDENTITY_PATHS = ("name", "config.instanceUuid", "config.uuid", "config.files.vmPathName")
VIEW_PATHS = (
    *IDENTITY_PATHS,
    "config.version",
    "config.firmware",
    "config.hardware.device",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.changeTrackingEnabled",
    "config.template",
    "config.ftInfo",
    "capability.changeTrackingSupported",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.bootTime",
    "runtime.host",
    "runtime.consolidationNeeded",
    "runtime.question",
    "guest.toolsRunningStatus",
    "snapshot.rootSnapshotList",
    "snapshot.currentSnapshot",
    "datastore",
    "network",
    "layoutEx.disk",
    "layoutEx.file",
    "parentVApp",
)
DATASTORE_PATHS = (
    "name",
    "summary.url",
    "summary.capacity",
    "summary.freeSpace",
    "summary.accessible",
    "summary.maintenanceMode",
)
_POWER = {
    "poweredOn": PowerState.ON,
    "poweredOff": PowerState.OFF,
    "suspended": PowerState.SUSPENDED,
}
_ESCAPES = {"%2f": "/", "%5c": "\\", "%25": "%"}


def power_state(value: Any) -> PowerState:
    """vSphere's power state in our words."""
    return _POWER.get(str(value), PowerState.UNKNOWN)


def aware(time: datetime | None) -> datetime | None:
    """A time in UTC: pyVmomi's own zone objects neither compare nor travel well."""
    return time.astimezone(UTC) if time is not None else None


def unescaped(name: str) -> str:
    """vSphere stores /, \\ and % of a name as %2f, %5c and %25."""
    return re.sub("%(?:2f|5c|25)", lambda hit: _ESCAPES[hit[0].lower()], name, flags=re.IGNORECASE)


def identity_of(session: Session, entry: Read) -> VmIdentity:
    """Identity of the VM whose IDENTITY_PATHS were read."""
    return VmIdentity(
        site=session.site,
        vcenter_uuid=session.vcenter_uuid(),
        moref=moref(entry.ref),
        name=unescaped(entry.get("name") or moref(entry.ref)),
        instance_uuid=entry.get("config.instanceUuid") or "",
        bios_uuid=entry.get("config.uuid") or "",
        path=entry.get("config.files.vmPathName") or "",
    )


def snapshots_of(roots: Iterable[Any] | None, parent: str | None = None) -> list[Snapshot]:
    """The snapshot tree as a list, parents before children."""
    found = []
    todo = [(node, parent) for node in roots or ()]
    while todo:
        node, above = todo.pop(0)
        found.append(
            Snapshot(
                moref=moref(node.snapshot),
                name=unescaped(node.name),
                description=(node.description or "")[:2000],
                parent=above,
                created_at=aware(node.createTime),
            )
        )
        todo += [(child, moref(node.snapshot)) for child in node.childSnapshotList or ()]
    return found


def datastore_view(entry: Read) -> DatastoreView:
    """A datastore whose name and summary were read."""
    return DatastoreView(
        moref=moref(entry.ref),
        name=entry.get("name") or moref(entry.ref),
        url=entry.get("summary.url") or "",
        capacity_bytes=entry.get("summary.capacity") or 0,
        free_bytes=entry.get("summary.freeSpace") or 0,
        accessible=entry.get("summary.accessible") is not False,
        in_maintenance=(entry.get("summary.maintenanceMode") or "normal") != "normal",
    )


def _ever_ran(entry: Read) -> bool:
    # Events age out and boot times go with the power; the log of the first start stays.
    files = entry.get("layoutEx.file") or ()
    off = power_state(entry.get("runtime.powerState")) is PowerState.OFF
    return not off or not files or any(file.type == "log" for file in files)


def view_of(session: Session, entry: Read, others: dict[str, Read]) -> VmView:
    """View of the VM; `others` holds its host and datastores by moref."""
    host = others.get(moref(entry.get("runtime.host"))) if entry.get("runtime.host") else None
    stores = [others[moref(d)] for d in entry.get("datastore") or () if moref(d) in others]
    datastores = tuple(datastore_view(store) for store in stores)
    networks = [others[moref(n)] for n in entry.get("network") or () if moref(n) in others]
    devices = entry.get("config.hardware.device") or ()
    stored = stored_bytes(entry.get("layoutEx.disk"), entry.get("layoutEx.file"))
    question = entry.get("runtime.question")
    current = entry.get("snapshot.currentSnapshot")
    identity = identity_of(session, entry)
    try:
        return VmView(
            identity=identity,
            power=power_state(entry.get("runtime.powerState")),
            tools_running=entry.get("guest.toolsRunningStatus") == "guestToolsRunning",
            disks=disks_of(devices, stored),
            snapshots=tuple(snapshots_of(entry.get("snapshot.rootSnapshotList"))),
            current_snapshot=moref(current) if current is not None else None,
            tracking_enabled=bool(entry.get("config.changeTrackingEnabled")),
            tracking_supported=bool(entry.get("capability.changeTrackingSupported")),
            is_template=bool(entry.get("config.template")),
            connection_state=str(entry.get("runtime.connectionState") or "connected"),
            fault_tolerant=entry.get("config.ftInfo") is not None,
            booted_at=aware(entry.get("runtime.bootTime")),
            consolidation_needed=bool(entry.get("runtime.consolidationNeeded")),
            question=question.text[:2000] if question is not None else None,
            memory_mb=entry.get("config.hardware.memoryMB") or 0,
            cpus=entry.get("config.hardware.numCPU") or 0,
            host=host.get("name") if host is not None else None,
            in_maintenance=bool(host is not None and host.get("runtime.inMaintenanceMode"))
            or any(store.in_maintenance for store in datastores),
            nics=nics_of(devices, {moref(n.ref): n.get("name") or "" for n in networks}),
            datastores=datastores,
            hardware_version=entry.get("config.version") or "",
            firmware=entry.get("config.firmware") or "bios",
            vtpm=has_vtpm(devices),
            passthrough=passed_through(devices),
            in_vapp=entry.get("parentVApp") is not None,
            ever_ran=_ever_ran(entry),
        )
    except ValidationError as error:
        raise OperationUnsupported(
            f"{identity} is beyond what is supported: {complaint(error)[1]}.",
            "VMs with up to 64 disks and 512 snapshots are supported.",
        ) from error
