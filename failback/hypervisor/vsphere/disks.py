"""Disks that are added to a VM that exists, and taken away with their file."""

from __future__ import annotations

from typing import Any

from failback.contracts.vm import Disk, DiskAddress, VmIdentity
from failback.errors import OperationFailed, VmChanged
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere.api import Ref, vim
from failback.hypervisor.vsphere.devices import KIB, controller_kind, device_of, disks_of
from failback.hypervisor.vsphere.inventory import read_proven, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.properties import Read
from failback.hypervisor.vsphere.tasks import Tasks

DEVICES = "config.hardware.device"


def add_disk(
    tasks: Tasks, vm: VmIdentity, address: DiskAddress, capacity: int, file: str, beat: Beat
) -> int:
    """Add an empty thin disk of so many bytes in a new file; returns its key.

    Idempotent because a disk of exactly this file is taken for the one added, and the change names
    the version of the VM that it saw.
    """

    def added() -> Disk | None:
        return _of_file(_read(tasks, vm, beat), file)

    def add() -> tuple[Ref, str, tuple[object, ...]]:
        found = _read(tasks, vm, beat)
        devices = found.get(DEVICES) or ()
        if any(disk.address == address for disk in disks_of(devices)):
            raise VmChanged(f"{vm} has another disk at {address} now.", "Plan the failback anew.")
        device = vim.vm.device.VirtualDisk(
            key=-1,
            controllerKey=_controller(vm, devices, address),
            unitNumber=address.unit,
            capacityInKB=-(-capacity // KIB),
            capacityInBytes=capacity,
            backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
                fileName=file, diskMode="persistent", thinProvisioned=True
            ),
        )
        change = vim.vm.device.VirtualDeviceSpec(
            operation="add", fileOperation="create", device=device
        )
        version = found.get("config.changeVersion")
        spec = vim.vm.ConfigSpec(deviceChange=[change], changeVersion=version)
        return vm_ref(vm), "ReconfigVM_Task", (spec,)

    job = Job(Operation.RECONFIGURE, f"add disk {address} to", add, lambda: added() is not None)
    tasks.make_true(vm, job, beat)
    disk = added()
    assert disk is not None
    return disk.key


def remove_disk(tasks: Tasks, vm: VmIdentity, file: str, beat: Beat) -> bool:
    """Take away the disk of exactly this file, with the file. False: it was gone.

    Idempotent because a disk that is gone counts as removed.
    """

    def there() -> Disk | None:
        return _of_file(_read(tasks, vm, beat), file)

    def remove() -> tuple[Ref, str, tuple[object, ...]]:
        found = _read(tasks, vm, beat)
        disk = _of_file(found, file)
        assert disk is not None
        change = vim.vm.device.VirtualDeviceSpec(
            operation="remove",
            fileOperation="destroy",
            device=device_of(found.get(DEVICES) or (), disk.key),
        )
        version = found.get("config.changeVersion")
        spec = vim.vm.ConfigSpec(deviceChange=[change], changeVersion=version)
        return vm_ref(vm), "ReconfigVM_Task", (spec,)

    job = Job(Operation.RECONFIGURE, "take a disk away from", remove, lambda: there() is None)
    return tasks.make_true(vm, job, beat)


def _read(tasks: Tasks, vm: VmIdentity, beat: Beat) -> Read:
    return read_proven(tasks.session, vm, (DEVICES, "config.changeVersion"), beat)


def _of_file(found: Read, file: str) -> Disk | None:
    return next((d for d in disks_of(found.get(DEVICES) or ()) if d.file == file), None)


def _controller(vm: VmIdentity, devices: Any, address: DiskAddress) -> int:
    wanted = (address.controller, address.bus)
    for device in devices:
        if (controller_kind(device), getattr(device, "busNumber", None)) == wanted:
            return int(device.key)
    raise OperationFailed(
        f"{vm} has no controller {address.controller}{address.bus} for a disk.",
        "Add the controller in the vSphere Client, then send retry.",
    )
