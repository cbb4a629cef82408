"""Snapshots: created once by name, reverted and removed only when they carry the mark."""

from __future__ import annotations

import logging

from failback.contracts.vm import Disk, Snapshot, VmIdentity
from failback.errors import FailbackError, SnapshotAmbiguous, SnapshotMissing, VmChanged, VmNotFound
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere.api import Ref, ref, vmodl
from failback.hypervisor.vsphere.devices import disks_of
from failback.hypervisor.vsphere.inventory import read_proven, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.properties import read_object
from failback.hypervisor.vsphere.tasks import Tasks
from failback.hypervisor.vsphere.views import snapshots_of

log = logging.getLogger(__name__)


def create_snapshot(tasks: Tasks, vm: VmIdentity, name: str, description: str, beat: Beat) -> str:
    """Snapshot without memory and quiescing; returns its moref.

    Idempotent because a snapshot of exactly this name is returned instead of a second one.
    """
    job = Job(
        Operation.CREATE_SNAPSHOT,
        f"create snapshot {name} of",
        lambda: (vm_ref(vm), "CreateSnapshot_Task", (name, description, False, False)),
        lambda: _named(tasks, vm, name, beat) is not None,
        # While disks are merged the site would only answer TaskInProgress, for hours maybe.
        after=(Operation.REMOVE_SNAPSHOT, Operation.CONSOLIDATE, Operation.REVERT),
    )
    tasks.make_true(vm, job, beat)
    found = _named(tasks, vm, name, beat)
    if found is None:
        raise SnapshotMissing(
            f"Snapshot {name} of {vm} was removed right after it was made.",
            "Find out who removes snapshots of this VM, then retry.",
        )
    return found.moref


def revert_to_snapshot(tasks: Tasks, vm: VmIdentity, snapshot: str, mark: str, beat: Beat) -> None:
    """Revert, leaving the VM off where the snapshot has no memory.

    Idempotent because reverting again gives the same content.
    """
    found = next((s for s in _tree(tasks, vm, beat) if s.moref == snapshot), None)
    if found is None:
        raise _missing(vm, snapshot)
    _check_mark(vm, found, mark)
    job = Job(
        Operation.REVERT,
        f"revert to snapshot {found.name}",
        # host None: where it is; suppressPowerOn: power is a step of its own.
        lambda: (ref_of(snapshot), "RevertToSnapshot_Task", (None, True)),
        # Content written since does not show in any state we can read: never "done already".
        None,
    )
    try:
        tasks.make_true(vm, job, beat)
    except VmNotFound as error:
        if all(s.moref != snapshot for s in _tree(tasks, vm, beat)):
            raise _missing(vm, snapshot) from error
        raise


def remove_snapshot(tasks: Tasks, vm: VmIdentity, name: str, mark: str, beat: Beat) -> bool:
    """Remove one snapshot, not its children, and wait until its disks are merged.

    Idempotent because a snapshot that is gone counts as removed and a running removal is awaited.
    """
    found = _named(tasks, vm, name, beat)
    if found is None:
        return False
    _check_mark(vm, found, mark)
    moid = found.moref
    job = Job(
        Operation.REMOVE_SNAPSHOT,
        f"remove snapshot {name} of",
        lambda: (ref_of(moid), "RemoveSnapshot_Task", (False, True)),
        lambda: all(s.moref != moid for s in _tree(tasks, vm, beat)),
    )
    tasks.make_true(vm, job, beat)
    _consolidate(tasks, vm, beat)
    return True


def snapshot_disks(tasks: Tasks, vm: VmIdentity, snapshot: str) -> tuple[Disk, ...]:
    """Disks as the snapshot froze them."""
    if all(s.moref != snapshot for s in _tree(tasks, vm, None)):
        raise _missing(vm, snapshot)
    try:
        found = read_object(tasks.session, ref_of(snapshot), ("config.hardware.device",))
    except vmodl.fault.ManagedObjectNotFound as fault:
        raise _missing(vm, snapshot) from fault
    return disks_of(found.get("config.hardware.device") or ())


def ref_of(snapshot: str) -> Ref:
    """Reference of a snapshot."""
    return ref("vm.Snapshot", snapshot)


def _tree(tasks: Tasks, vm: VmIdentity, beat: Beat | None) -> list[Snapshot]:
    found = read_proven(tasks.session, vm, ("snapshot.rootSnapshotList",), beat)
    return snapshots_of(found.get("snapshot.rootSnapshotList"))


def _named(tasks: Tasks, vm: VmIdentity, name: str, beat: Beat) -> Snapshot | None:
    found = [s for s in _tree(tasks, vm, beat) if s.name == name]
    if len(found) > 1:
        raise SnapshotAmbiguous(
            f"{vm} has {len(found)} snapshots named {name}.",
            "Find out which one is ours and remove the other, then retry.",
            snapshots=", ".join(s.moref for s in found),
        )
    return found[0] if found else None


def _check_mark(vm: VmIdentity, snapshot: Snapshot, mark: str) -> None:
    if not mark or mark not in snapshot.description:
        raise VmChanged(
            f"Snapshot {snapshot.name} of {vm} does not carry the mark of this run, "
            "so it is left alone.",
            "Check who made it.",
            snapshot=snapshot.moref,
        )


def _missing(vm: VmIdentity, snapshot: str) -> SnapshotMissing:
    return SnapshotMissing(
        f"Snapshot {snapshot} of {vm} is gone.",
        "Find out who removed it; what it protected cannot be restored from it.",
        snapshot=snapshot,
    )


def _consolidate(tasks: Tasks, vm: VmIdentity, beat: Beat) -> None:
    """Merge what the removal left behind, once; the view still tells when it did not help."""

    def merged() -> bool:
        state = read_proven(tasks.session, vm, ("runtime.consolidationNeeded",), beat)
        return not state.get("runtime.consolidationNeeded")

    if merged():
        return
    job = Job(
        Operation.CONSOLIDATE,
        "consolidate the disks of",
        lambda: (vm_ref(vm), "ConsolidateVMDisks_Task", ()),
        merged,
    )
    try:
        tasks.make_true(vm, job, beat)
    except FailbackError as error:
        # The snapshot is gone, which was asked for; a merge that has to wait is no failure.
        if error.type in {"LeaseLost", "Stopped", "SiteUnreachable"}:
            raise
        log.warning(
            "consolidation still needed",
            extra={"site": vm.site, "vm": vm.moref, "cause": error.type, "detail": error.what},
        )
