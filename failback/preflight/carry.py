"""What was added to the replica since the failover, and what of it a request carries over."""

from __future__ import annotations

from failback.contracts.plan import CarriedDisk, Carry
from failback.contracts.vm import Disk, Nic
from failback.contracts.words import CarryOver
from failback.preflight.evidence import Evidence


def added_nics(e: Evidence) -> tuple[Nic, ...]:
    """The replica's cards beyond as many as the target has: new ones come last."""
    return tuple(sorted(e.replica.nics, key=lambda nic: nic.key)[len(e.target.nics) :])


def new_disks(e: Evidence) -> tuple[Disk, ...]:
    """Replica disks without partner that are not to be left behind."""
    left = e.request.leave_behind
    return tuple(disk for disk in e.without_partner() if str(disk.address) not in left)


def carried(e: Evidence) -> Carry | None:
    """What is carried over; None: nothing, or nothing was asked for. A VM that is still to be made
    gets the replica's hardware anyway, and a target that has more than the replica keeps it."""
    asked, ours, theirs = set(e.request.carry_over), e.replica, e.target
    if e.makes_target or not asked:
        return None
    cpus = max(ours.cpus, theirs.cpus) if CarryOver.CPU in asked else theirs.cpus
    memory = max(ours.memory_mb, theirs.memory_mb) if CarryOver.MEMORY in asked else None
    networks = {one.replica: one.target for one in e.request.new_vm.placement.networks}
    nics = tuple(
        nic.model_copy(update={"network": networks.get(nic.network, nic.network)})
        for nic in (added_nics(e) if CarryOver.NICS in asked else ())
    )
    wanted = new_disks(e) if CarryOver.DISKS in asked and theirs.disks else ()
    disks = tuple(
        CarriedDisk(
            address=disk.address,
            replica_key=disk.key,
            capacity_bytes=disk.capacity_bytes,
            folder=folder_of(theirs.disks[0].file),
        )
        for disk in wanted
    )
    found = Carry(
        cpus=cpus,
        memory_mb=theirs.memory_mb if memory is None else memory,
        cpus_before=theirs.cpus,
        memory_mb_before=theirs.memory_mb,
        nics=nics,
        nic_keys_before=tuple(nic.key for nic in theirs.nics),
        disks=disks,
    )
    same = (found.cpus, found.memory_mb) == (theirs.cpus, theirs.memory_mb)
    return None if same and not nics and not disks else found


def folder_of(file: str) -> str:
    """`[datastore] folder` of a file; `[datastore]` where it lies in none."""
    return file.rpartition("/")[0] or f"{file.partition(']')[0]}]"
