"""Checks of the disks: that each has its partner, and that both can be what they are needed for."""

from __future__ import annotations

from collections.abc import Iterator

from failback.contracts.plan import Finding
from failback.contracts.vm import Disk, VmView
from failback.contracts.words import CarryOver
from failback.preflight.carry import carried
from failback.preflight.evidence import Evidence, refuse, warn

DISK_REFUSALS = {
    "independent": "is an independent disk: snapshots leave it out",
    "physical-rdm": "is a physical RDM: it cannot be snapshotted",
    "multi-writer": "is shared by several VMs",
    "encrypted": "is encrypted",
}


def replica_has_disks(e: Evidence) -> Iterator[Finding]:
    if not e.replica.disks:
        yield refuse(
            "REPLICA_WITHOUT_DISKS",
            e.replica.identity,
            f"{e.replica.identity} has no disks.",
            "Check that the replica key names the right VM.",
        )


def shared_files(e: Evidence) -> Iterator[Finding]:
    theirs = {_file(e.target, disk): disk.file for disk in e.target.disks}
    for disk in e.replica.disks:
        if _file(e.replica, disk) in theirs:
            yield refuse(
                "SHARED_DISK_FILE",
                disk.file,
                f"Disk file {disk.file} belongs to the VM replica and to the target VM.",
                "Detach it from one of them.",
            )


def disk_map(e: Evidence) -> Iterator[Finding]:
    sides = (
        ("replica", e.replica, [one.replica for one in e.request.disk_map]),
        ("target", e.target, [one.target for one in e.request.disk_map]),
    )
    for side, view, addresses in sides:
        there = {str(disk.address) for disk in view.disks}
        for address in addresses:
            if address not in there:
                yield refuse(
                    "DISK_MAP",
                    view.identity,
                    f"The disk map names {address}, where {view.identity} has no disk.",
                    f"Disks of the {side}: {', '.join(sorted(there)) or 'none'}.",
                )
        for address in sorted({a for a in addresses if addresses.count(a) > 1}):
            yield refuse(
                "DISK_MAP",
                view.identity,
                f"The disk map names {address} of {view.identity} twice.",
                "Map each disk once.",
            )


def partners(e: Evidence) -> Iterator[Finding]:
    carry = carried(e)
    added = {disk.replica_key for disk in carry.disks} if carry is not None else set()
    for disk in e.without_partner():
        if disk.key in added:
            continue
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
                f"Start with --carry-over disks to add one to the target VM, name its partner with "
                f"--disk-map {disk.address}=ADDRESS, or start with --leave-behind "
                f"{disk.address}.",
            )


def any_pair(e: Evidence) -> Iterator[Finding]:
    if e.replica.disks and not e.pairs():
        yield refuse(
            "DISKS_DO_NOT_PAIR",
            e.target.identity,
            f"No disk of {e.replica.identity} sits where a disk of {e.target.identity} does.",
            "Check that the replica is mapped to the right VM.",
        )


def untouched(e: Evidence) -> Iterator[Finding]:
    paired = {pair.target_key for pair in e.pairs()}
    for disk in e.target.disks:
        if disk.key not in paired:
            yield warn(
                "TARGET_DISK_UNTOUCHED",
                disk.file,
                f"Disk {disk.address} of {e.target.identity} has no partner and stays as it is.",
            )


def same_disk(e: Evidence) -> Iterator[Finding]:
    for pair in e.pairs():
        ours, theirs = e.labels.get(str(pair.address), ("", ""))
        if ours == theirs:
            continue
        what = (
            f"Disk {pair.address}: the replica's partition table is {ours}, the target's {theirs}: "
            "these are not two copies of one disk."
        )
        if pair.accepted:
            yield warn("DISK_MISMATCH_ACCEPTED", e.target.identity, f"{what} It is accepted.")
        else:
            yield refuse(
                "DISK_MISMATCH",
                e.target.identity,
                what,
                "Check which disks belong together and use --disk-map, or start with "
                f"--accept-pair {pair.address}.",
            )


def sizes(e: Evidence) -> Iterator[Finding]:
    for pair in e.pairs():
        if pair.target_capacity_bytes >= pair.capacity_bytes:
            continue
        told = (
            f"Disk {pair.address} of {e.target.identity} has {pair.target_capacity_bytes} bytes, "
            f"the replica's has {pair.capacity_bytes}."
        )
        if e.target.snapshots:
            yield refuse(
                "TARGET_SMALLER",
                e.target.identity,
                told,
                "It cannot be grown under a snapshot: remove the target's snapshots, then start "
                "with --grow-target.",
            )
        elif not (e.request.grow_target or CarryOver.DISKS in e.request.carry_over):
            yield refuse(
                "TARGET_SMALLER",
                e.target.identity,
                told,
                "Start with --grow-target to grow it; undo cannot shrink it again.",
            )
        else:
            yield warn(
                "TARGET_GROWS", e.target.identity, f"{told} It is grown; undo cannot shrink it."
            )


def kinds(e: Evidence) -> Iterator[Finding]:
    for view, disk in e.paired_disks():
        for reason in disk.refusals:
            yield refuse(
                "DISK_KIND",
                disk.file,
                f"Disk {disk.address} of {view.identity} {DISK_REFUSALS.get(reason, reason)}.",
                "Change it, or leave it out with --leave-behind.",
            )


def openable(e: Evidence) -> Iterator[Finding]:
    for file, reason in e.unopenable.items():
        yield refuse(
            "DISK_NOT_OPENABLE",
            file,
            f"The mover cannot open {file}: {reason}",
            "Check the datastores of the site in the settings.",
        )


def _file(view: VmView, disk: Disk) -> tuple[str, str]:
    """The file wherever it is seen from: names of datastores repeat, their URLs do not."""
    urls = {store.moref: store.url for store in view.datastores}
    url = urls.get(disk.datastore or "")
    if url:
        return url, disk.file.partition("] ")[2]
    return f"{view.identity.site} {view.identity.vcenter_uuid}", disk.file


CHECKS = (
    replica_has_disks,
    shared_files,
    disk_map,
    partners,
    any_pair,
    untouched,
    same_disk,
    sizes,
    kinds,
    openable,
)
