"""One small function per check: evidence in, findings out. Pure, so tables test them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from failback.contracts.plan import Finding
from failback.contracts.vm import VmView
from failback.contracts.words import PowerState, ReplicaState
from failback.preflight.evidence import Evidence, refuse, warn

Check = Callable[[Evidence], Iterator[Finding]]

MAX_SNAPSHOTS = 30
"""vSphere ends at 31 or 32 levels; one snapshot of ours must still fit on either VM."""

DISK_REFUSALS = {
    "independent": "is an independent disk: snapshots leave it out",
    "physical-rdm": "is a physical RDM: it cannot be snapshotted",
    "multi-writer": "is shared by several VMs",
    "encrypted": "is encrypted",
}


def replica_state(e: Evidence) -> Iterator[Finding]:
    if e.state is not ReplicaState.FAILOVER:
        yield refuse(
            "REPLICA_STATE",
            e.request.replica,
            f"VM replica {e.request.replica!r} is in state {e.state}, not in FAILOVER.",
            "Fail over first; if it was done by another tool: failback replica mark-failover "
            f"{e.request.replica}.",
        )


def replication_running(e: Evidence) -> Iterator[Finding]:
    for job in e.running_jobs:
        yield refuse(
            "JOB_RUNNING",
            job,
            f"Replication job {job!r} of the source VM is running.",
            "Wait until it has ended, or stop it.",
        )


def same_vm(e: Evidence) -> Iterator[Finding]:
    ours, theirs = e.replica.identity, e.target.identity
    if (ours.vcenter_uuid, ours.moref) == (theirs.vcenter_uuid, theirs.moref) and (
        ours.instance_uuid == theirs.instance_uuid and ours.site == theirs.site
    ):
        yield refuse(
            "SAME_VM",
            theirs,
            f"The target VM is the VM replica itself ({ours}).",
            "Map the replica to its source VM: failback replica add.",
        )


def shared_files(e: Evidence) -> Iterator[Finding]:
    # Datastore names repeat between vCenters, so equal names count only within one of them.
    if e.replica.identity.vcenter_uuid != e.target.identity.vcenter_uuid:
        return
    if e.replica.identity.site != e.target.identity.site:
        return
    for file in {d.file for d in e.replica.disks} & {d.file for d in e.target.disks}:
        yield refuse(
            "SHARED_DISK_FILE",
            file,
            f"Disk file {file} belongs to the VM replica and to the target VM.",
            "Detach it from one of them.",
        )


def vm_usable(e: Evidence) -> Iterator[Finding]:
    for view in (e.replica, e.target):
        vm = view.identity
        if view.is_template:
            yield refuse("VM_TEMPLATE", vm, f"{vm} is a template.", "Convert it to a VM.")
        if view.connection_state != "connected":
            yield refuse(
                "VM_CONNECTION",
                vm,
                f"{vm} is {view.connection_state}.",
                "Bring its host or datastore back, or register the VM again.",
            )
        if view.fault_tolerant:
            yield refuse("FAULT_TOLERANCE", vm, f"{vm} uses fault tolerance.", "Switch it off.")
        if view.in_maintenance:
            yield refuse(
                "HOST_MAINTENANCE",
                vm,
                f"The host of {vm} is in maintenance mode.",
                "Leave maintenance mode, or move the VM.",
            )
        if view.question:
            yield refuse(
                "VM_QUESTION", vm, f"{vm} waits for an answer: {view.question}", "Answer it."
            )
        if len(view.snapshots) >= MAX_SNAPSHOTS:
            yield refuse(
                "SNAPSHOT_DEPTH",
                vm,
                f"{vm} has {len(view.snapshots)} snapshots; vSphere allows no further one.",
                "Remove snapshots that are no longer needed.",
            )


def replica_has_disks(e: Evidence) -> Iterator[Finding]:
    if not e.replica.disks:
        yield refuse(
            "REPLICA_WITHOUT_DISKS",
            e.replica.identity,
            f"{e.replica.identity} has no disks.",
            "Check that the replica key names the right VM.",
        )
    if not e.replica_ever_ran:
        yield refuse(
            "REPLICA_NEVER_RAN",
            e.replica.identity,
            f"{e.replica.identity} was never powered on: there is nothing to bring back.",
            "Power it on first, or check that the key names the right VM.",
        )


def disks_pair(e: Evidence) -> Iterator[Finding]:
    for disk in e.without_partner():
        if str(disk.address) in e.request.leave_behind:
            yield warn(
                "DISK_LEFT_BEHIND",
                disk.file,
                f"Disk {disk.address} of the VM replica stays on DR, as asked; its data is not "
                "brought back.",
            )
        else:
            yield refuse(
                "DISK_WITHOUT_PARTNER",
                disk.file,
                f"Disk {disk.address} of {e.replica.identity} has no partner on "
                f"{e.target.identity}: its data would be lost.",
                f"Add a disk at {disk.address} to the target VM, or start with "
                f"--leave-behind {disk.address}.",
            )
    if e.replica.disks and not e.pairs():
        yield refuse(
            "DISKS_DO_NOT_PAIR",
            e.target.identity,
            f"No disk of {e.replica.identity} sits where a disk of {e.target.identity} does.",
            "Check that the replica is mapped to the right VM.",
        )
    paired = {pair.target_key for pair in e.pairs()}
    for disk in e.target.disks:
        if disk.key not in paired:
            yield warn(
                "TARGET_DISK_UNTOUCHED",
                disk.file,
                f"Disk {disk.address} of {e.target.identity} has no partner and stays as it is.",
            )


def disks_fit(e: Evidence) -> Iterator[Finding]:
    for pair in e.pairs():
        if pair.target_capacity_bytes >= pair.capacity_bytes:
            continue
        sizes = (
            f"Disk {pair.address} of {e.target.identity} has {pair.target_capacity_bytes} bytes, "
            f"the replica's has {pair.capacity_bytes}."
        )
        if e.target.snapshots:
            yield refuse(
                "TARGET_SMALLER",
                e.target.identity,
                sizes,
                "It cannot be grown under a snapshot: remove the target's snapshots, then start "
                "with --grow-target.",
            )
        elif not e.request.grow_target:
            yield refuse(
                "TARGET_SMALLER",
                e.target.identity,
                sizes,
                "Start with --grow-target to grow it; undo cannot shrink it again.",
            )
        else:
            yield warn(
                "TARGET_GROWS", e.target.identity, f"{sizes} It is grown; undo cannot shrink it."
            )


def disk_kinds(e: Evidence) -> Iterator[Finding]:
    paired = {pair.address for pair in e.pairs()}
    for view in (e.replica, e.target):
        for disk in view.disks:
            if disk.address not in paired:
                continue
            for reason in disk.refusals:
                yield refuse(
                    "DISK_KIND",
                    disk.file,
                    f"Disk {disk.address} of {view.identity} {DISK_REFUSALS.get(reason, reason)}.",
                    "Change it, or leave it out with --leave-behind.",
                )


def disks_open(e: Evidence) -> Iterator[Finding]:
    for file, reason in e.unopenable.items():
        yield refuse(
            "DISK_NOT_OPENABLE",
            file,
            f"The mover cannot open {file}: {reason}",
            "Check the datastores of the site in the settings.",
        )


def privileges(e: Evidence) -> Iterator[Finding]:
    for vm, missing in e.missing_privileges.items():
        if missing:
            yield refuse(
                "PRIVILEGE_MISSING",
                vm,
                f"The account lacks {', '.join(missing)} on {vm}.",
                "Grant the role of docs/vsphere-permissions.md.",
            )


def power_states(e: Evidence) -> Iterator[Finding]:
    if e.target.power is PowerState.ON and not e.request.accept_target_overwrite:
        since = f" since {e.target.booted_at:%Y-%m-%d %H:%M} UTC" if e.target.booted_at else ""
        yield refuse(
            "TARGET_RUNS",
            e.target.identity,
            f"{e.target.identity} runs: what it wrote{since} will be overwritten.",
            "Shut it down, or start with --accept-target-overwrite.",
        )
    for view in (e.replica, e.target):
        if view.power is PowerState.SUSPENDED and not e.request.accept_suspended:
            yield refuse(
                "VM_SUSPENDED",
                view.identity,
                f"{view.identity} is suspended: powering it off loses its memory.",
                "Resume it, or start with --accept-suspended.",
            )


def good_to_know(e: Evidence) -> Iterator[Finding]:
    if e.replica.power is PowerState.ON and not e.replica.tools_running:
        yield warn(
            "TOOLS_NOT_RUNNING",
            e.replica.identity,
            f"{e.replica.identity} runs no guest tools: it will be powered off hard, change "
            "tracking may then be lost and pass 2 becomes a full comparison.",
            "Start the guest tools before the switch.",
        )
    for view in (e.replica, e.target):
        if view.snapshots:
            yield warn(
                "FOREIGN_SNAPSHOTS",
                view.identity,
                f"{view.identity} has {len(view.snapshots)} snapshots that are not of this run.",
            )
        if view.consolidation_needed:
            yield warn(
                "CONSOLIDATION_NEEDED",
                view.identity,
                f"The disks of {view.identity} need consolidation.",
            )
    if not e.request.protect_target:
        yield warn(
            "TARGET_NOT_PROTECTED",
            e.target.identity,
            f"No snapshot of {e.target.identity} will be made: undo cannot give it its old content "
            "back.",
        )
    yield from _drift(e.replica, e.target)


def _drift(replica: VmView, target: VmView) -> Iterator[Finding]:
    if (replica.cpus, replica.memory_mb) != (target.cpus, target.memory_mb):
        yield warn(
            "CONFIGURATION_DRIFT",
            target.identity,
            f"{replica.identity} has {replica.cpus} CPUs and {replica.memory_mb} MB, "
            f"{target.identity} {target.cpus} and {target.memory_mb}; only disk content is brought "
            "back.",
        )


CHECKS: tuple[Check, ...] = (
    replica_state,
    replication_running,
    same_vm,
    shared_files,
    vm_usable,
    replica_has_disks,
    disks_pair,
    disks_fit,
    disk_kinds,
    disks_open,
    privileges,
    power_states,
    good_to_know,
)


def check(evidence: Evidence) -> tuple[Finding, ...]:
    """Run every check; refusals first."""
    findings = [finding for one in CHECKS for finding in one(evidence)]
    return tuple(sorted(findings, key=lambda finding: finding.severity.value))
