"""What has changed at a replica since its run was planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from failback.contracts.plan import Carry, RunPlan
from failback.contracts.shell import VmConfiguration
from failback.contracts.vm import DiskAddress, DiskPair, VmView
from failback.preflight.checks.disks import DISK_REFUSALS


@dataclass(frozen=True)
class Drift:
    """One change, as the end of a sentence about the replica."""

    what: str
    grown: bool = False
    """A disk is larger, and nothing else is wrong with it."""


def drifts(plan: RunPlan, replica: VmView, left_behind: Collection[str]) -> tuple[Drift, ...]:
    """Disks that are gone, new, of another size or of a kind that cannot be failed back.

    Args:
        left_behind: addresses of disks that stay on DR, as asked.
    """
    there = {disk.address: disk for disk in replica.disks}
    paired = {pair.address for pair in plan.pairs}
    found = []
    for pair in plan.pairs:
        disk = there.get(pair.address)
        if disk is None:
            found.append(Drift(f"disk {pair.address} is gone"))
            continue
        found += [Drift(f"disk {pair.address} {_kind(reason)}") for reason in disk.refusals]
        if disk.capacity_bytes != pair.capacity_bytes:
            found.append(
                Drift(
                    f"disk {pair.address} had {pair.capacity_bytes} bytes when the run began and "
                    f"has {disk.capacity_bytes} now",
                    grown=disk.capacity_bytes > pair.capacity_bytes,
                )
            )
    return (
        *found,
        *(
            Drift(f"disk {disk.address} was added, so its data would be lost")
            for disk in replica.disks
            if disk.address not in paired and str(disk.address) not in left_behind
        ),
    )


def hardware_drifts(replica: VmConfiguration, made: VmConfiguration) -> tuple[Drift, ...]:
    """What a VM that was made like the replica lacks of it now. CPUs and memory are not asked for:
    they are given to it once the replica is off."""
    found = [
        Drift(f"{what} is {theirs} at the replica and {ours} at the VM that was made")
        for what, theirs, ours in (
            ("firmware", replica.firmware, made.firmware),
            ("secure boot", replica.secure_boot, made.secure_boot),
            ("cores per socket", replica.cores_per_socket, made.cores_per_socket),
            ("CPU hot add", replica.cpu_hot_add, made.cpu_hot_add),
            ("memory hot add", replica.memory_hot_add, made.memory_hot_add),
        )
        if theirs != ours
    ]
    cards = [Counter(nic.kind for nic in one.nics) for one in (replica, made)]
    for kind in sorted(cards[0].keys() | cards[1].keys()):
        if cards[0][kind] != cards[1][kind]:
            text = f"{cards[0][kind]} network cards {kind} at the replica, {cards[1][kind]} at it"
            found.append(Drift(text))
    return tuple(found)


def _kind(reason: str) -> str:
    return DISK_REFUSALS.get(reason, reason)


def grown(plan: RunPlan, replica: VmView) -> RunPlan:
    """The plan with the sizes that the replica's disks have now; a disk that was added to the
    target by the run is a wish again, as it was before."""
    sizes = {disk.address: disk.capacity_bytes for disk in replica.disks}
    carry = _carry(plan.carry, sizes) if plan.carry is not None else None
    added = {disk.address for disk in carry.disks} if carry is not None else set()
    pairs = tuple(_pair(pair, sizes) for pair in plan.pairs if pair.address not in added)
    return plan.model_copy(update={"pairs": pairs, "carry": carry})


def _pair(pair: DiskPair, sizes: dict[DiskAddress, int]) -> DiskPair:
    size = sizes.get(pair.address, pair.capacity_bytes)
    target = max(size, pair.target_capacity_bytes)
    return pair.model_copy(update={"capacity_bytes": size, "target_capacity_bytes": target})


def _carry(carry: Carry, sizes: dict[DiskAddress, int]) -> Carry:
    disks = tuple(
        disk.model_copy(update={"capacity_bytes": sizes.get(disk.address, disk.capacity_bytes)})
        for disk in carry.disks
    )
    return carry.model_copy(update={"disks": disks})
