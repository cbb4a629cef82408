"""Checks of what was added to the replica: what stays behind, what is carried over."""

from __future__ import annotations

from collections.abc import Iterator

from failback.contracts.plan import Finding
from failback.contracts.words import CarryOver
from failback.preflight.carry import added_nics, carried, new_disks
from failback.preflight.evidence import Evidence, refuse, warn

COPYABLE = frozenset({"vmxnet3", "vmxnet2", "e1000e", "e1000", "pcnet32"})
"""Kinds of network cards that can be made anew; SR-IOV needs a choice of hardware."""


def computing_drift(e: Evidence) -> Iterator[Finding]:
    ours, theirs, carry = e.replica, e.target, carried(e)
    after = (theirs.cpus, theirs.memory_mb)
    if carry is not None:
        after = (carry.cpus, carry.memory_mb)
    if (ours.cpus, ours.memory_mb) != after:
        yield warn(
            "CONFIGURATION_DRIFT",
            theirs.identity,
            f"{ours.identity} has {ours.cpus} CPUs and {ours.memory_mb} MB, {theirs.identity} "
            f"will have {after[0]} and {after[1]}.",
            "What the replica has more is brought along with --carry-over cpu, --carry-over "
            "memory.",
        )


def network_drift(e: Evidence) -> Iterator[Finding]:
    ours, theirs, carry = e.replica, e.target, carried(e)
    after = len(theirs.nics) + (len(carry.nics) if carry is not None else 0)
    if len(ours.nics) != after:
        yield warn(
            "NETWORK_DRIFT",
            theirs.identity,
            f"{ours.identity} has {len(ours.nics)} network cards, {theirs.identity} will have "
            f"{after}.",
            "Cards that the replica has more are brought along with --carry-over nics.",
        )


def carried_over(e: Evidence) -> Iterator[Finding]:
    carry = carried(e)
    if carry is None:
        return
    parts = []
    if carry.cpus != carry.cpus_before:
        parts.append(f"{carry.cpus} CPUs instead of {carry.cpus_before}")
    if carry.memory_mb != carry.memory_mb_before:
        parts.append(f"{carry.memory_mb} MB of memory instead of {carry.memory_mb_before}")
    parts += [f"a further network card ({nic.kind}) in {nic.network}" for nic in carry.nics]
    for disk in carry.disks:
        parts.append(f"a disk of {disk.capacity_bytes} bytes at {disk.address}")
    yield warn(
        "CARRIED_OVER",
        e.target.identity,
        f"{e.target.identity} gets {', '.join(parts)}, as asked; undo takes it back.",
    )


def nothing_to_carry(e: Evidence) -> Iterator[Finding]:
    ours, theirs = e.replica, e.target
    grown = any(p.target_capacity_bytes < p.capacity_bytes for p in e.pairs())
    there = {
        CarryOver.CPU: ours.cpus > theirs.cpus,
        CarryOver.MEMORY: ours.memory_mb > theirs.memory_mb,
        CarryOver.NICS: bool(added_nics(e)),
        CarryOver.DISKS: grown or bool(new_disks(e)),
    }
    for kind in e.request.carry_over:
        if e.makes_target or not there[kind]:
            why = "it is made with it" if e.makes_target else "the replica has no more than it"
            yield warn(
                "CARRY_OVER_NOTHING",
                theirs.identity,
                f"There is nothing of kind {kind.value} to carry over to {theirs.identity}: {why}.",
            )


def possible(e: Evidence) -> Iterator[Finding]:
    """Never ignored: what is asked for and cannot be done refuses."""
    carry = carried(e)
    for nic in carry.nics if carry is not None else ():
        if nic.kind not in COPYABLE:
            yield refuse(
                "CARRY_OVER_UNSUPPORTED",
                e.replica.identity,
                f"Network card {nic.key} is of a kind that cannot be made anew: {nic.kind}.",
                "Add it to the target by hand, or start without --carry-over nics.",
            )
    if carry is not None and carry.nics and not e.request.protect_target:
        yield refuse(
            "CARRY_OVER_UNSUPPORTED",
            e.target.identity,
            "Undo takes network cards back by reverting the target to its protective snapshot, and "
            "the run is to make none.",
            "Start without --no-protect-target, or without --carry-over nics.",
        )
    buses = {(disk.address.controller, disk.address.bus) for disk in e.target.disks}
    taken = {disk.address for disk in e.target.disks}
    for disk in carry.disks if carry is not None else ():
        where, why = disk.address, ""
        if (where.controller, where.bus) not in buses:
            why = f"no disk of the target is at controller {where.controller}{where.bus}"
        elif where in taken:
            why = "the target has a disk there that belongs to another one of the replica's"
        if why:
            yield refuse(
                "CARRY_OVER_UNSUPPORTED",
                e.target.identity,
                f"Disk {where} of {e.replica.identity} cannot be carried over: {why}.",
                f"Add a disk of {disk.capacity_bytes} bytes to the target VM in the vSphere Client "
                f"and name it with --disk-map {where}=ADDRESS.",
            )


def networks(e: Evidence) -> Iterator[Finding]:
    for one in e.lacking_networks:
        known = ", ".join(one.candidates) or "none"
        yield refuse(
            "NETWORK_MISSING",
            one.name,
            f"The target's host has no network {one.name} for a card that is carried over.",
            f"Map it with --network {one.name}=NETWORK. There are: {known}.",
        )


CHECKS = (computing_drift, network_drift, carried_over, nothing_to_carry, possible, networks)
