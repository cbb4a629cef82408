"""Reconfiguring a VM: change tracking, CPUs and memory, disk size."""

from __future__ import annotations

import math

from failback.contracts.vm import VmIdentity
from failback.errors import OperationFailed, OperationUnsupported, VmChanged
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere.api import Ref, vim
from failback.hypervisor.vsphere.devices import KIB, capacity_bytes, device_of
from failback.hypervisor.vsphere.inventory import read_proven, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.tasks import Tasks


def set_change_tracking(tasks: Tasks, vm: VmIdentity, enabled: bool, beat: Beat) -> bool:
    """Switch change tracking; returns whether a change was needed.

    Idempotent because the current setting is read first and the change names the version it saw.
    """
    setting = ("config.changeTrackingEnabled",)

    def change() -> tuple[Ref, str, tuple[object, ...]]:
        paths = ("config.changeVersion", "capability.changeTrackingSupported")
        found = read_proven(tasks.session, vm, paths, beat)
        if enabled and not found.get(paths[1]):
            raise OperationUnsupported(
                f"{vm} cannot track changes.", "Its hardware version must be 7 or newer."
            )
        # The site refuses with ConcurrentAccess when somebody else has changed the VM meanwhile.
        spec = vim.vm.ConfigSpec(changeTrackingEnabled=enabled, changeVersion=found.get(paths[0]))
        return vm_ref(vm), "ReconfigVM_Task", (spec,)

    job = Job(
        Operation.RECONFIGURE,
        f"switch change tracking {'on' if enabled else 'off'} for",
        change,
        lambda: bool(read_proven(tasks.session, vm, setting, beat).get(setting[0])) is enabled,
    )
    return tasks.make_true(vm, job, beat)


def set_hardware(tasks: Tasks, vm: VmIdentity, cpus: int, memory_mb: int, beat: Beat) -> bool:
    """Give a VM that is off so many CPUs and so much memory; returns whether a change was needed.

    Idempotent because the current hardware is read first and the change names the version it saw.
    """
    count, memory, cores = (
        f"config.hardware.{name}" for name in ("numCPU", "memoryMB", "numCoresPerSocket")
    )

    def change() -> tuple[Ref, str, tuple[object, ...]]:
        found = read_proven(tasks.session, vm, (cores, "config.changeVersion"), beat)
        version = found.get("config.changeVersion")
        spec = vim.vm.ConfigSpec(numCPUs=cpus, memoryMB=memory_mb, changeVersion=version)
        per_socket = int(found.get(cores) or 1)
        if cpus % per_socket:
            # Sockets have equally many cores, or the site refuses.
            spec.numCoresPerSocket = math.gcd(cpus, per_socket)
        return vm_ref(vm), "ReconfigVM_Task", (spec,)

    def done() -> bool:
        found = read_proven(tasks.session, vm, (count, memory), beat)
        return (found.get(count), found.get(memory)) == (cpus, memory_mb)

    job = Job(Operation.RECONFIGURE, "set the CPUs and memory of", change, done)
    return tasks.make_true(vm, job, beat)


def grow_disk(
    tasks: Tasks, vm: VmIdentity, disk_key: int, capacity_bytes_wanted: int, beat: Beat
) -> None:
    """Grow a disk to at least this capacity.

    Idempotent because a disk that is large enough is left alone.
    """

    def look() -> tuple[Ref, str | None]:
        found = read_proven(
            tasks.session, vm, ("config.hardware.device", "config.changeVersion"), beat
        )
        disk = device_of(found.get("config.hardware.device") or (), disk_key)
        if not isinstance(disk, vim.vm.device.VirtualDisk):
            raise VmChanged(f"{vm} has no disk {disk_key} any more.", "Plan the failback anew.")
        return disk, found.get("config.changeVersion")

    def grow() -> tuple[Ref, str, tuple[object, ...]]:
        disk, version = look()
        if getattr(disk.backing, "parent", None) is not None:
            raise OperationFailed(
                f"Disk {disk_key} of {vm} cannot grow while the VM has snapshots.",
                "Remove the snapshots first.",
            )
        kib = -(-capacity_bytes_wanted // KIB)
        disk.capacityInKB, disk.capacityInBytes = kib, kib * KIB
        edit = vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)
        spec = vim.vm.ConfigSpec(deviceChange=[edit], changeVersion=version)
        return vm_ref(vm), "ReconfigVM_Task", (spec,)

    job = Job(
        Operation.RECONFIGURE,
        f"grow disk {disk_key} of",
        grow,
        lambda: capacity_bytes(look()[0]) >= capacity_bytes_wanted,
    )
    tasks.make_true(vm, job, beat)
