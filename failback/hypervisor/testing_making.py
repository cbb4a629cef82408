"""The double's part that makes, moves and deletes VMs."""

from __future__ import annotations

from collections.abc import Sequence

from failback.contracts.placement import DatastoreView, Misplaced, Placement, PlacementView
from failback.contracts.shell import Controller, ShellDisk, VmConfiguration, VmShell
from failback.contracts.vm import DiskAddress, Nic, VmIdentity
from failback.contracts.words import PowerState
from failback.errors import (
    NameTaken,
    OperationFailed,
    PlacementInvalid,
    VmChanged,
    VmNotFound,
)
from failback.hypervisor.ports import Beat
from failback.hypervisor.testing_site import Steering
from failback.hypervisor.testing_vm import FakeDisk, FakeVm

NVRAM_LIMIT = 1 << 20


class Making(Steering):
    """One site; hosts, folders, datastores and networks are the sets of names in `inventory`."""

    def configuration(self, vm: VmIdentity) -> VmConfiguration:
        with self.call("configuration"):
            found = self.vm(vm)
            disks = [disk.view() for disk in found.disks]
            of = found.configuration or VmConfiguration(
                guest_id="otherLinux64Guest", hardware_version="vmx-19", cpus=1, memory_mb=1024
            )
            kinds = {(d.address.controller, d.address.bus): "pvscsi" for d in disks}
            return of.model_copy(
                update={
                    "controllers": of.controllers
                    or tuple(Controller(kind=k, bus=b, model=m) for (k, b), m in kinds.items()),
                    "disks": tuple(
                        ShellDisk(address=d.address, capacity_bytes=d.capacity_bytes) for d in disks
                    ),
                    "nics": tuple(found.nics),
                    "cpus": found.cpus,
                    "memory_mb": found.memory_mb,
                    "instance_uuid": found.identity.instance_uuid,
                    "bios_uuid": found.identity.bios_uuid,
                }
            )

    def place(self, where: Placement, name: str) -> PlacementView:
        with self.call("place"):
            missing = self._missing(where)
            taken = [] if missing else self._bearers(name, where.folder or "vm")
            return PlacementView(
                missing=missing,
                host=where.host,
                datastores=tuple(
                    DatastoreView(
                        moref=f"datastore-{store}",
                        name=store,
                        capacity_bytes=1 << 40,
                        free_bytes=1 << 40,
                    )
                    for store in sorted(self._stores(where))
                ),
                taken_by=taken[0].identity.moref if taken else "",
            )

    def create_vm(self, shell: VmShell, mark: str, beat: Beat) -> VmIdentity:
        """Idempotent because a VM of this name that bears the mark is returned."""
        with self.call("create_vm"):
            self._require(shell.placement, [nic.network for nic in shell.configuration.nics])
            folder = shell.placement.folder or "vm"
            renamed = [v for v in self.vms.values() if v.made_as == (mark, shell.name)]
            for vm in renamed or self._bearers(shell.name, folder):
                if vm.mark != mark:
                    raise NameTaken(f"{vm.identity} bears that name already.", "Choose another.")
                return vm.identity
            beat()
            disks = [bytearray(disk.capacity_bytes) for disk in shell.configuration.disks]
            made = self.vm(self.add_vm(shell.name, disks))
            stores = {one.address: one.datastore for one in shell.placement.disks}
            for disk, wanted in zip(made.disks, shell.configuration.disks, strict=True):
                disk.address = wanted.address
                store = stores.get(str(wanted.address), shell.placement.datastore)
                if store:
                    disk.file = f"[{store}] {disk.file.partition('] ')[2]}"
            of = shell.configuration
            made.configuration, made.mark, made.folder = of, mark, folder
            made.made_as = (mark, shell.name)
            made.changes = {"firmware": of.firmware}
            made.cpus, made.memory_mb = of.cpus, of.memory_mb
            made.attributes["failback.job"] = mark
            networks = {pair.replica: pair.target for pair in shell.placement.networks}
            made.nics = [
                Nic(
                    key=4000 + number,
                    kind=nic.kind,
                    network=networks.get(nic.network, nic.network),
                    mac=nic.mac if shell.keep_macs else f"00:50:56:00:00:{number:02x}",
                    address_type="manual" if shell.keep_macs and nic.mac else "assigned",
                    connected=shell.connect_nics and nic.connected,
                )
                for number, nic in enumerate(of.nics)
            ]
            if shell.keep_bios_uuid and of.bios_uuid:
                made.identity = made.identity.model_copy(update={"bios_uuid": of.bios_uuid})
            return made.identity

    def find_made(self, shell: VmShell, mark: str, beat: Beat) -> VmIdentity | None:
        with self.call("find_made"):
            made = [v for v in self.vms.values() if v.made_as == (mark, shell.name)]
            return made[0].identity if made else None

    def register_vm(
        self, path: str, name: str, where: Placement, mark: str, beat: Beat
    ) -> VmIdentity:
        """Idempotent because a VM registered from this file is returned."""
        with self.call("register_vm"):
            self._require(where, [])
            for vm in self.vms.values():
                if vm.identity.path == path:
                    if vm.attributes.get("failback.job", "") not in ("", mark):
                        raise VmChanged(f"{vm.identity} is another run's.", "End that first.")
                    vm.attributes["failback.job"] = mark
                    return vm.identity
            beat()
            if path not in self.unregistered:
                raise OperationFailed(f"There is no file {path}.", "Check the path.")
            vm = self.unregistered.pop(path)
            update = {"moref": f"vm-{self.next_number()}", "name": name}
            vm.identity = vm.identity.model_copy(update=update)
            vm.attributes = {"failback.job": mark}
            self.vms[vm.identity.moref] = vm
            return vm.identity

    def unregister_vm(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        """Idempotent because a VM that is gone counts as unregistered."""
        with self.call("unregister_vm"):
            found = self._ours_and_off(vm, mark)
            if found is None:
                return False
            beat()
            self.unregistered[found.identity.path] = self.vms.pop(vm.moref)
            return True

    def destroy_vm(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        """Idempotent because a VM that is gone counts as destroyed."""
        with self.call("destroy_vm"):
            if self._ours_and_off(vm, mark) is None:
                return False
            beat()
            del self.vms[vm.moref]
            return True

    def clear_mark(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        """Idempotent because the mark is looked at first."""
        with self.call("clear_mark"):
            found = self.vm(vm)
            if not mark or mark not in (found.mark, found.attributes.get("failback.job")):
                return False
            beat()
            found.mark, found.made_as = "", ("", "")
            found.attributes["failback.job"] = ""
            return True

    def rename_vm(self, vm: VmIdentity, name: str, folder: str, beat: Beat) -> None:
        """Idempotent because name and folder are read first."""
        with self.call("rename_vm"):
            found = self.vm(vm)
            if folder and folder not in self.inventory["folder"]:
                raise PlacementInvalid(f"There is no folder {folder}.", "Correct its name.")
            folder = folder or found.folder
            if any(other is not found for other in self._bearers(name, folder)):
                raise NameTaken(f"{name} is taken in {folder}.", "Choose another name.")
            if (found.identity.name, found.folder) != (name, folder):
                beat()
                found.identity = found.identity.model_copy(update={"name": name})
                found.folder = folder

    def set_nics(self, vm: VmIdentity, cards: Sequence[Nic], beat: Beat) -> None:
        """Idempotent because the same cards are set again."""
        with self.call("set_nics"):
            found = self.vm(vm)
            for card in cards:
                at = next((i for i, nic in enumerate(found.nics) if nic.key == card.key), None)
                if at is None:
                    raise VmChanged(f"{vm} has no network card {card.key}.", "Plan anew.")
                if card.network not in self.inventory["network"]:
                    raise PlacementInvalid(f"There is no network {card.network}.", "Correct it.")
                beat()
                mac = card.mac if card.address_type == "manual" else found.nics[at].mac
                found.nics[at] = card.model_copy(update={"mac": mac})

    def add_nic(self, vm: VmIdentity, card: Nic, known: Sequence[int], beat: Beat) -> int:
        """Idempotent because a card that is not known and fits is taken for the one added."""
        with self.call("add_nic"):
            found = self.vm(vm)
            for nic in found.nics:
                if nic.key not in known and (nic.kind, nic.network) == (card.kind, card.network):
                    return nic.key
            if card.network not in self.inventory["network"]:
                raise PlacementInvalid(f"There is no network {card.network}.", "Correct it.")
            beat()
            key = max([3999, *(nic.key for nic in found.nics)]) + 1
            mac = f"00:50:56:00:01:{key % 256:02x}"
            found.nics.append(
                card.model_copy(update={"key": key, "mac": mac, "address_type": "assigned"})
            )
            return key

    def set_hardware(self, vm: VmIdentity, cpus: int, memory_mb: int, beat: Beat) -> bool:
        """Idempotent because the current hardware is read first."""
        with self.call("set_hardware"):
            found = self.vm(vm)
            if (found.cpus, found.memory_mb) == (cpus, memory_mb):
                return False
            if found.power is not PowerState.OFF:
                raise OperationFailed(f"{vm} is not off.", "Power it off first.")
            beat()
            found.cpus, found.memory_mb = cpus, memory_mb
            return True

    def add_disk(
        self, vm: VmIdentity, address: DiskAddress, capacity_bytes: int, file: str, beat: Beat
    ) -> int:
        """Idempotent because a disk of this file is taken for the one added."""
        with self.call("add_disk"):
            found = self.vm(vm)
            views = [disk.view() for disk in found.disks]
            for disk in views:
                if disk.file == file:
                    return disk.key
                if disk.address == address:
                    raise VmChanged(f"{vm} has another disk at {address} now.", "Plan anew.")
            beat()
            key = max([1999, *(disk.key for disk in views)]) + 1
            added = FakeDisk(key, address.unit, file, bytearray(capacity_bytes), address=address)
            found.disks.append(added)
            return key

    def remove_disk(self, vm: VmIdentity, file: str, beat: Beat) -> bool:
        """Idempotent because a disk that is gone counts as removed."""
        with self.call("remove_disk"):
            found = self.vm(vm)
            kept = [disk for disk in found.disks if disk.file != file]
            if len(kept) == len(found.disks):
                return False
            beat()
            found.disks[:] = kept
            return True

    def read_nvram(self, vm: VmIdentity) -> bytes:
        with self.call("read_nvram"):
            data = self.vm(vm).nvram
            if not data:
                raise VmNotFound(f"{vm} has no NVRAM file.", "It gets one at its first start.")
            return data

    def write_nvram(self, vm: VmIdentity, data: bytes, mark: str, beat: Beat) -> None:
        """Idempotent because the whole file is replaced with the same bytes."""
        with self.call("write_nvram"):
            if not 0 < len(data) <= NVRAM_LIMIT:
                raise OperationFailed(f"{len(data)} bytes are no NVRAM.", "It has up to 1 MiB.")
            found = self._ours_and_off(vm, mark)
            if found is None:
                raise VmNotFound(f"{vm} is gone.", "Plan anew.")
            beat()
            found.nvram = data

    def _missing(self, where: Placement) -> tuple[Misplaced, ...]:
        wanted = [(kind, getattr(where, kind)) for kind in self.inventory if kind != "network"]
        wanted += [("datastore", disk.datastore) for disk in where.disks]
        wanted += [("network", pair.target) for pair in where.networks]
        return tuple(
            Misplaced(kind=kind, name=name, candidates=tuple(sorted(self.inventory[kind])))
            for kind, name in wanted
            if name and name not in self.inventory[kind]
        )

    def _require(self, where: Placement, networks: Sequence[str]) -> None:
        for one in self._missing(where):
            raise PlacementInvalid(f"There is no {one.kind} {one.name}.", "Correct its name.")
        mapped = {pair.replica for pair in where.networks} | self.inventory["network"]
        for network in networks:
            if network not in mapped:
                raise PlacementInvalid(f"There is no network {network}.", "Map it to another.")

    def _stores(self, where: Placement) -> set[str]:
        chosen = {where.datastore or min(self.inventory["datastore"])}
        return (chosen | {disk.datastore for disk in where.disks}) & self.inventory["datastore"]

    def _bearers(self, name: str, folder: str) -> list[FakeVm]:
        return [v for v in self.vms.values() if (v.identity.name, v.folder) == (name, folder)]

    def _ours_and_off(self, vm: VmIdentity, mark: str) -> FakeVm | None:
        try:
            found = self.vm(vm)
        except VmNotFound:
            return None
        if not mark or mark not in (found.mark, found.attributes.get("failback.job")):
            raise VmChanged(f"{vm} does not carry the mark of this run.", "Check who made it.")
        if found.power is not PowerState.OFF:
            raise OperationFailed(f"{vm} is not off.", "Power it off first.")
        return found
