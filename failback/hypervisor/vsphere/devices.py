"""Disks out of a list of virtual devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from failback.contracts.vm import Disk, DiskAddress
from failback.hypervisor.vsphere.api import vim

KIB = 1024


def disks_of(devices: Iterable[Any]) -> tuple[Disk, ...]:
    """Every virtual disk, by address: an edit moves a device to the end of vSphere's list."""
    listed = list(devices)
    controllers = {device.key: device for device in listed if hasattr(device, "busNumber")}
    disks = [
        _disk(device, controllers.get(device.controllerKey))
        for device in listed
        if isinstance(device, vim.vm.device.VirtualDisk)
    ]
    return tuple(sorted(disks, key=lambda d: (d.address.controller, d.address.bus, d.address.unit)))


def device_of(devices: Iterable[Any], key: int) -> Any:
    """The device of this key, None when there is none."""
    return next((device for device in devices if device.key == key), None)


def capacity_bytes(device: Any) -> int:
    """Capacity; sites older than 5.5 give only KiB."""
    return int(device.capacityInBytes or device.capacityInKB * KIB)


def _disk(device: Any, controller: Any) -> Disk:
    backing = device.backing
    parent = getattr(backing, "parent", None)
    return Disk(
        key=device.key,
        address=DiskAddress(
            controller=_controller_kind(controller),
            bus=controller.busNumber if controller is not None else -1,
            unit=device.unitNumber if device.unitNumber is not None else -1,
        ),
        file=getattr(backing, "fileName", None) or getattr(backing, "deviceName", None) or "",
        capacity_bytes=capacity_bytes(device),
        change_id=getattr(backing, "changeId", None) or None,
        parent_file=parent.fileName if parent is not None else None,
        mode=getattr(backing, "diskMode", None) or "persistent",
        refusals=tuple(_refusals(backing, controller)),
    )


def _controller_kind(controller: Any) -> str:
    kinds = (
        ("scsi", vim.vm.device.VirtualSCSIController),
        ("sata", vim.vm.device.VirtualSATAController),
        ("ide", vim.vm.device.VirtualIDEController),
        ("nvme", vim.vm.device.VirtualNVMEController),
    )
    for name, kind in kinds:
        if isinstance(controller, kind):
            return name
    return "unknown"


def _refusals(backing: Any, controller: Any) -> Iterable[str]:
    if str(getattr(backing, "diskMode", None) or "").startswith("independent"):
        yield "independent"
    if getattr(backing, "compatibilityMode", None) == "physicalMode":
        yield "physical-rdm"
    # A shared SCSI bus lets another VM write the disk just as multi-writer does.
    bus = getattr(controller, "sharedBus", None)
    if getattr(backing, "sharing", None) == "sharingMultiWriter" or bus in {
        "virtualSharing",
        "physicalSharing",
    }:
        yield "multi-writer"
    # Only the disk's own key: a VM with a virtual TPM has a key too, its disks may be plain.
    if getattr(backing, "keyId", None) is not None:
        yield "encrypted"
