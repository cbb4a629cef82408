"""Changed areas: every page of them, or TrackingUnusable."""

from __future__ import annotations

from collections.abc import Iterator

from failback.contracts.vm import Disk, VmIdentity
from failback.errors import PrivilegeMissing, SiteUnreachable, TrackingUnusable
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import vmodl
from failback.hypervisor.vsphere.inventory import vm_ref
from failback.hypervisor.vsphere.snapshots import ref_of
from failback.hypervisor.vsphere.tasks import Tasks

ALLOCATED = "*"
"""Instead of a change id: every allocated area."""


def changed_areas(
    tasks: Tasks, vm: VmIdentity, snapshot: str, disk: Disk, since: str, beat: Beat
) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes. One answer covers only part of the disk, often 2000 areas; the
    next question starts where its page ends, an empty page included, and never at the capacity."""
    _check_same_tracking(vm, disk, since)
    session, start = tasks.session, 0
    while start < disk.capacity_bytes:
        beat()
        try:
            page = session.read(
                vm_ref(vm),
                "QueryChangedDiskAreas",
                ref_of(snapshot),
                disk.key,
                start,
                since,
                beat=beat,
            )
        except vmodl.MethodFault as fault:
            error = faults.typed(fault, session.site, f"read changed areas of {vm}")
            if isinstance(error, (SiteUnreachable, PrivilegeMissing)):
                raise error from fault
            # FileFault, InvalidArgument, MethodNotFound, ...: whatever it is, compare instead.
            why = f"{faults.fault_name(fault)} {faults.text(fault)}".strip()
            raise _unusable(vm, disk, why) from fault
        end = page.startOffset + page.length
        if page.startOffset != start or page.length <= 0 or end > disk.capacity_bytes:
            raise _unusable(
                vm, disk, f"asked at {start}, answered for {page.startOffset}+{page.length}"
            )
        last = start
        for area in page.changedArea or ():
            if area.start < last or area.length <= 0 or area.start + area.length > end:
                raise _unusable(vm, disk, f"area {area.start}+{area.length} is out of place")
            last = area.start + area.length
            yield int(area.start), int(area.length)
        start = end


def _check_same_tracking(vm: VmIdentity, disk: Disk, since: str) -> None:
    if not disk.change_id:
        raise _unusable(vm, disk, "it has no change id, tracking is off")
    if since == ALLOCATED:
        return
    if not since or since.rpartition("/")[0] != disk.change_id.rpartition("/")[0]:
        # Another UUID part: tracking was reset in between and knows nothing of before.
        raise _unusable(vm, disk, f"tracking was reset ({since or 'no id'} -> {disk.change_id})")


def _unusable(vm: VmIdentity, disk: Disk, why: str) -> TrackingUnusable:
    return TrackingUnusable(
        f"Changed areas of disk {disk.address} of {vm} cannot be trusted: {why}.",
        "The disk is compared as a whole instead.",
        disk=disk.key,
    )
