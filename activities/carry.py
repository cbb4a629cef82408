"""Adding to the target what was added to the replica, and taking it away again."""

from __future__ import annotations

from dataclasses import dataclass

from activities.edge import Attempt
from activities.snapshots import require_off, second_copy_found, stop_second_copy
from failback.catalog.repository import Catalog
from failback.contracts.operations import CarryOverHardware, CarryOverResult
from failback.contracts.plan import CarriedDisk
from failback.contracts.vm import DiskPair
from failback.errors import VmNotFound
from failback.hypervisor.ports import Site, Sites


@dataclass(frozen=True)
class CarryActivities:
    """Changes of the target's hardware."""

    sites: Sites
    catalog: Catalog

    def carry_over(self, argument: CarryOverHardware, attempt: Attempt) -> CarryOverResult:
        """Give the target more CPUs, memory, cards and disks, or what it had before.

        Idempotent because CPUs and memory are states that are read first, a card that the target
        did not have before is taken for this step's own, and a disk bears the run in its file name.
        """
        site = self.sites.site(argument.target.site)
        if argument.back:
            return self._back(site, argument, attempt)
        target, carry = argument.target, argument.carry
        require_off(site.read([target])[0], "what it wrote is then overwritten")
        site.set_hardware(target, carry.cpus, carry.memory_mb, attempt.beat)
        keys = list(carry.nic_keys_before)
        for card in carry.nics:
            keys.append(site.add_nic(target, card, keys, attempt.beat))
        added = len(keys) - len(carry.nic_keys_before)
        pairs = tuple(self._add_disk(site, argument, disk, attempt) for disk in carry.disks)
        return CarryOverResult(
            evidence=f"{target} has {carry.cpus} CPUs and {carry.memory_mb} MB, "
            f"{added} network cards and {len(pairs)} disks added",
            # Read again: only what is there now may be written.
            disks=site.read([target])[0].disks if pairs else (),
            pairs=pairs,
        )

    def _add_disk(
        self, site: Site, argument: CarryOverHardware, disk: CarriedDisk, attempt: Attempt
    ) -> DiskPair:
        file = disk_file(argument.run.run_id, disk)
        size = disk.capacity_bytes
        key = site.add_disk(argument.target, disk.address, size, file, attempt.beat)
        return DiskPair(
            address=disk.address,
            replica_key=disk.replica_key,
            target_key=key,
            capacity_bytes=size,
            target_capacity_bytes=size,
        )

    def _back(self, site: Site, argument: CarryOverHardware, attempt: Attempt) -> CarryOverResult:
        """Network cards bear no mark, so none is removed here: they go with the revert to the
        protective snapshot, without which they are not carried over. Disks are removed before it:
        a revert would only detach them and leave their files behind."""
        target, carry = argument.target, argument.carry
        beat, alarm = attempt.beat, ""
        try:
            view = site.read([target])[0]
        except VmNotFound:
            # Whether the target may be missing is asked where its content is restored.
            return CarryOverResult(
                evidence=f"{target} is gone, with what was carried over",
                alarm=second_copy_found(self.catalog, argument),
            )
        if carry.disks and argument.reverted_next:
            # Its content is reverted next, so nothing is lost that would be kept. What reverts it
            # finds it off, and could not tell that it ran.
            alarm = stop_second_copy(site, self.catalog, argument, view, attempt)
        elif carry.disks or not argument.reverted_next:
            require_off(view, "what it wrote then stays")
        files = [disk_file(argument.run.run_id, disk) for disk in carry.disks]
        removed = sum(site.remove_disk(target, file, beat) for file in files)
        if argument.reverted_next:
            return CarryOverResult(
                evidence=f"{removed} disks removed; the rest goes with the revert to the target "
                "protective snapshot",
                alarm=alarm,
            )
        site.set_hardware(target, carry.cpus_before, carry.memory_mb_before, attempt.beat)
        return CarryOverResult(
            evidence=f"{target} has {carry.cpus_before} CPUs and {carry.memory_mb_before} MB again"
        )


def disk_file(run_id: str, disk: CarriedDisk) -> str:
    """File of an added disk: the run in its name is its mark."""
    address = str(disk.address).replace(":", "-")
    between = " " if disk.folder.endswith("]") else "/"
    return f"{disk.folder}{between}failback-{run_id}-{address}.vmdk"
