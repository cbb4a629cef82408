"""Disks out of a list of virtual devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from failback.contracts.vm import Disk, DiskAddress, Nic
from failback.hypervisor.vsphere.api import moref, vim

KIB = 1024

NIC_KINDS: dict[str, Any] = {
    "vmxnet3": vim.vm.device.VirtualVmxnet3,
    "vmxnet2": vim.vm.device.VirtualVmxnet2,
    "e1000e": vim.vm.device.VirtualE1000e,
    "e1000": vim.vm.device.VirtualE1000,
    "pcnet32": vim.vm.device.VirtualPCNet32,
    "sriov": vim.vm.device.VirtualSriovEthernetCard,
}


def disks_of(devices: Iterable[Any], stored: Mapping[int, int] | None = None) -> tuple[Disk, ...]:
    """Every virtual disk, by address: an edit moves a device to the end of vSphere's list.

    `stored`: room each takes, by device key.
    """
    listed = list(devices)
    controllers = {device.key: device for device in listed if hasattr(device, "busNumber")}
    disks = [
        _disk(device, controllers.get(device.controllerKey), (stored or {}).get(device.key))
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


def _disk(device: Any, controller: Any, stored: int | None) -> Disk:
    backing = device.backing
    parent = getattr(backing, "parent", None)
    return Disk(
        key=device.key,
        address=DiskAddress(
            controller=controller_kind(controller),
            bus=controller.busNumber if controller is not None else -1,
            unit=device.unitNumber if device.unitNumber is not None else -1,
        ),
        file=getattr(backing, "fileName", None) or getattr(backing, "deviceName", None) or "",
        capacity_bytes=capacity_bytes(device),
        change_id=getattr(backing, "changeId", None) or None,
        parent_file=parent.fileName if parent is not None else None,
        datastore=moref(store) if (store := getattr(backing, "datastore", None)) else None,
        stored_bytes=stored,
        linked=_linked(backing),
        mode=getattr(backing, "diskMode", None) or "persistent",
        refusals=tuple(_refusals(backing, controller)),
    )


def stored_bytes(disks: Iterable[Any] | None, files: Iterable[Any] | None) -> dict[int, int]:
    """Room each disk takes with all files of its chain, by device key: from `layoutEx`."""
    sizes = {file.key: int(file.size or 0) for file in files or ()}
    return {
        disk.key: sum(sizes.get(key, 0) for unit in disk.chain or () for key in unit.fileKey or ())
        for disk in disks or ()
    }


def has_vtpm(devices: Iterable[Any]) -> bool:
    """Whether there is a virtual TPM: what it holds is in the encrypted NVRAM."""
    return any(isinstance(device, vim.vm.device.VirtualTPM) for device in devices)


def passed_through(devices: Iterable[Any]) -> tuple[str, ...]:
    """Labels of devices of the host."""
    kinds = (vim.vm.device.VirtualPCIPassthrough, vim.vm.device.VirtualSriovEthernetCard)
    return tuple(
        str(device.deviceInfo.label if device.deviceInfo else device.key)
        for device in devices
        if isinstance(device, kinds)
    )


def _linked(backing: Any) -> bool:
    """Whether the chain goes on in another folder: a linked clone stands on its parent's files."""
    child, parent = backing, getattr(backing, "parent", None)
    while parent is not None:
        if _folder(parent) != _folder(child):
            return True
        child, parent = parent, getattr(parent, "parent", None)
    return False


def _folder(backing: Any) -> str:
    return str(backing.fileName).rpartition("/")[0]


def controller_kind(controller: Any) -> str:
    """Our word for the controller's kind, `unknown` for one that we do not know."""
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


def nics_of(devices: Iterable[Any], names: Mapping[str, str]) -> tuple[Nic, ...]:
    """The network cards; `names` are of networks, by moref and port group key."""
    return tuple(
        Nic(
            key=device.key,
            kind=nic_kind(device),
            network=_network_name(device.backing, names),
            mac=device.macAddress or "",
            address_type=device.addressType or "assigned",
            connected=device.connectable is None or bool(device.connectable.startConnected),
        )
        for device in devices
        if isinstance(device, vim.vm.device.VirtualEthernetCard)
    )


def nic_kind(device: Any) -> str:
    """Our word for the card's kind, `unknown` for one that we cannot make."""
    # Newer kinds inherit from older ones, so only the type itself says which it is.
    return next((name for name, cls in NIC_KINDS.items() if type(device) is cls), "unknown")


def _network_name(backing: Any, names: Mapping[str, str]) -> str:
    port = getattr(backing, "port", None)
    if port is not None:
        return names.get(port.portgroupKey or "", port.portgroupKey or "")
    network = getattr(backing, "network", None)
    if network is not None and moref(network) in names:
        return names[moref(network)]
    return str(getattr(backing, "deviceName", None) or "")
