"""Checks of the two VMs."""

from __future__ import annotations

from collections.abc import Iterator

from failback.contracts.plan import Finding
from failback.contracts.vm import VmView
from failback.contracts.words import OldSource, PowerState
from failback.preflight.evidence import Evidence, refuse, warn

MAX_SNAPSHOTS = 30
"""vSphere ends at 31 or 32 levels; one snapshot of ours must still fit on either VM."""


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


def no_template(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.is_template:
            vm = view.identity
            yield refuse("VM_TEMPLATE", vm, f"{vm} is a template.", "Convert it to a VM.")


def connected(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.connection_state != "connected":
            yield refuse(
                "VM_CONNECTION",
                view.identity,
                f"{view.identity} is {view.connection_state}.",
                "Bring its host or datastore back, or register the VM again.",
            )


def fault_tolerance(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.fault_tolerant:
            vm = view.identity
            yield refuse("FAULT_TOLERANCE", vm, f"{vm} uses fault tolerance.", "Switch it off.")


def no_question(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.question:
            yield refuse(
                "VM_QUESTION",
                view.identity,
                f"{view.identity} waits for an answer: {view.question}",
                "Answer it in the vSphere Client.",
            )


def snapshot_depth(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if len(view.snapshots) >= MAX_SNAPSHOTS:
            yield refuse(
                "SNAPSHOT_DEPTH",
                view.identity,
                f"{view.identity} has {len(view.snapshots)} snapshots; vSphere allows no further "
                "one.",
                "Remove snapshots that are no longer needed.",
            )


def replica_ran(e: Evidence) -> Iterator[Finding]:
    if not e.replica.ever_ran:
        yield refuse(
            "REPLICA_NEVER_RAN",
            e.replica.identity,
            f"{e.replica.identity} was never powered on: there is nothing to bring back.",
            "Power it on first, or check that the key names the right VM.",
        )


def target_power(e: Evidence) -> Iterator[Finding]:
    if e.target.power is PowerState.ON and not e.request.accept_target_overwrite:
        since = f" since {e.target.booted_at:%Y-%m-%d %H:%M} UTC" if e.target.booted_at else ""
        yield refuse(
            "TARGET_RUNS",
            e.target.identity,
            f"{e.target.identity} runs: what it wrote{since} will be overwritten.",
            "Shut it down, or start with --accept-target-overwrite.",
        )


def old_source(e: Evidence) -> Iterator[Finding]:
    view = e.old_source
    if e.old_source_unknown:
        yield warn(
            "OLD_SOURCE_UNKNOWN",
            e.request.replica,
            f"Nobody can say whether the old source VM runs: {e.old_source_unknown}",
            "Before the target is powered on somebody must bring its site or host back, or declare "
            "it to be off with --attest-off.",
        )
    if view is None or view.power is PowerState.OFF:
        return
    vm = view.identity
    if e.request.old_source is OldSource.REFUSE:
        yield refuse(
            "OLD_SOURCE_RUNS",
            vm,
            f"The old source VM {vm} is {view.power}.",
            "Power it off, or start with --old-source power_off.",
        )
    elif view.power is PowerState.SUSPENDED and not e.request.accept_suspended:
        yield refuse(
            "VM_SUSPENDED",
            vm,
            f"{vm} is suspended: powering it off loses its memory.",
            "Resume it, or start with --accept-suspended.",
        )
    else:
        yield warn(
            "OLD_SOURCE_RUNS",
            vm,
            f"The old source VM {vm} is {view.power}: the run powers it off, and undo leaves it "
            "off.",
        )


def suspended(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.power is PowerState.SUSPENDED and not e.request.accept_suspended:
            yield refuse(
                "VM_SUSPENDED",
                view.identity,
                f"{view.identity} is suspended: powering it off loses its memory.",
                "Resume it, or start with --accept-suspended.",
            )


def tools(e: Evidence) -> Iterator[Finding]:
    if e.replica.power is PowerState.ON and not e.replica.tools_running:
        yield warn(
            "TOOLS_NOT_RUNNING",
            e.replica.identity,
            f"{e.replica.identity} runs no guest tools: it will be powered off hard, change "
            "tracking may then be lost and pass 2 becomes a full comparison.",
            "Start the guest tools before the switch.",
        )


def power_ons(e: Evidence) -> Iterator[Finding]:
    for vm in e.power_ons_unread:
        then = "undo cannot tell whether somebody used it after the switch, and asks"
        if vm == e.target.identity:
            then = "every pass compares whole disks and they are verified as a whole, in downtime"
        yield warn(
            "POWER_ONS_UNREADABLE",
            vm,
            f"Whether {vm} is powered on by somebody during the run cannot be read: {then}.",
            "Let the account read events, or reach the host through a vCenter.",
        )


def foreign_snapshots(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.snapshots:
            yield warn(
                "FOREIGN_SNAPSHOTS",
                view.identity,
                f"{view.identity} has {len(view.snapshots)} snapshots that are not of this run.",
            )


def consolidation(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.consolidation_needed:
            yield warn(
                "CONSOLIDATION_NEEDED",
                view.identity,
                f"The disks of {view.identity} need consolidation.",
                "Consolidate them in the vSphere Client: until then they take more room.",
            )


def vtpm(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.vtpm:
            yield warn(
                "VTPM",
                view.identity,
                f"{view.identity} has a virtual TPM: what it holds is not in its disks and is not "
                "brought back.",
                "Have the recovery keys of encrypted guests (BitLocker, LUKS) at hand.",
            )


def passthrough(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.passthrough:
            yield warn(
                "PASSTHROUGH",
                view.identity,
                f"{view.identity} uses devices of its host ({', '.join(view.passthrough)}): "
                "vSphere refuses snapshots of such a VM while it runs.",
                "Take the devices away before the run, or switch the VM off.",
            )


def linked_clone(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if any(disk.linked for disk in view.disks):
            yield warn(
                "LINKED_CLONE",
                view.identity,
                f"{view.identity} is a linked clone: its disks stand on files of another VM.",
                "Keep that VM unchanged until commit.",
            )


def in_vapp(e: Evidence) -> Iterator[Finding]:
    for view in _both(e):
        if view.in_vapp:
            yield warn(
                "IN_VAPP",
                view.identity,
                f"{view.identity} is part of a vApp, whose start and stop order applies to it.",
            )


def _both(e: Evidence) -> tuple[VmView, VmView]:
    return e.replica, e.target


CHECKS = (
    same_vm,
    no_template,
    connected,
    fault_tolerance,
    no_question,
    snapshot_depth,
    replica_ran,
    target_power,
    old_source,
    suspended,
    tools,
    power_ons,
    foreign_snapshots,
    consolidation,
    vtpm,
    passthrough,
    linked_clone,
    in_vapp,
)
