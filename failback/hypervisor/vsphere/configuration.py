"""Reading a VM's configuration, and turning it into the specification of a new VM."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from failback.contracts.shell import (
    Controller,
    Option,
    Provisioning,
    ShellDisk,
    VmConfiguration,
    VmShell,
)
from failback.contracts.vm import VmIdentity
from failback.errors import OperationUnsupported
from failback.hypervisor.vsphere.api import Ref, vim
from failback.hypervisor.vsphere.devices import KIB, NIC_KINDS, disks_of, nics_of
from failback.hypervisor.vsphere.inventory import read_proven
from failback.hypervisor.vsphere.nics import names_of, read_networks
from failback.hypervisor.vsphere.placement import Place
from failback.hypervisor.vsphere.session import Session

MARK_OPTION = "failback.run"
"""Advanced setting with the run that made the VM: it is there from the VM's first moment on."""

MODELS: dict[str, tuple[str, Any]] = {
    "pvscsi": ("scsi", vim.vm.device.ParaVirtualSCSIController),
    "lsilogic-sas": ("scsi", vim.vm.device.VirtualLsiLogicSASController),
    "lsilogic": ("scsi", vim.vm.device.VirtualLsiLogicController),
    "buslogic": ("scsi", vim.vm.device.VirtualBusLogicController),
    "ahci": ("sata", vim.vm.device.VirtualAHCIController),
    "ide": ("ide", vim.vm.device.VirtualIDEController),
    "nvme": ("nvme", vim.vm.device.VirtualNVMEController),
}

OPTIONS = frozenset(
    {
        "disk.EnableUUID",  # the guest finds its disks by serial number
        "ctkDisallowed",  # an administrator's choice about change tracking
        "hypervisor.cpuid.v0",  # hides the hypervisor: some guests' licences look at it
        "monitor_control.pseudo_perfctr",
        "svga.present",
        "vhv.enable",  # nested virtualisation: guests with containers or hypervisors need it
    }
)
"""Advanced settings that the guest depends on. Others name files, hosts, addresses or slots of the
old VM (`sched.swap.derivedName`, `ethernet0.pciSlotNumber`, `uuid.*`, `migrate.*`): copying them
would tie the new VM to the old one."""

_COPIED_NICS = frozenset(NIC_KINDS) - {"sriov"}
"""A card that is a function of a physical one stands for hardware of its host."""

_PATHS = (
    "config.guestId",
    "config.version",
    "config.firmware",
    "config.bootOptions.efiSecureBootEnabled",
    "config.hardware.numCPU",
    "config.hardware.numCoresPerSocket",
    "config.hardware.memoryMB",
    "config.hardware.device",
    "config.cpuHotAddEnabled",
    "config.memoryHotAddEnabled",
    "config.annotation",
    "config.extraConfig",
    "config.uuid",
)


def configuration(session: Session, vm: VmIdentity) -> VmConfiguration:
    """What a copy of the VM must have. OperationUnsupported where a device has no equal here."""
    found = read_proven(session, vm, (*_PATHS, "network"), None)
    devices = found.get("config.hardware.device") or ()
    names = names_of(read_networks(session, found.get("network") or ()))
    options = {str(o.key): str(o.value) for o in found.get("config.extraConfig") or ()}
    return VmConfiguration(
        guest_id=found.get("config.guestId") or "otherGuest64",
        hardware_version=found.get("config.version") or "",
        firmware=found.get("config.firmware") or "bios",
        secure_boot=bool(found.get("config.bootOptions.efiSecureBootEnabled")),
        cpus=found.get("config.hardware.numCPU") or 1,
        cores_per_socket=found.get("config.hardware.numCoresPerSocket") or 1,
        memory_mb=found.get("config.hardware.memoryMB") or 0,
        cpu_hot_add=bool(found.get("config.cpuHotAddEnabled")),
        memory_hot_add=bool(found.get("config.memoryHotAddEnabled")),
        annotation=(found.get("config.annotation") or "")[:2000],
        controllers=tuple(_controllers(vm, devices)),
        disks=tuple(_disks(devices)),
        nics=nics_of(devices, names),
        options=tuple(
            Option(key=key, value=options[key]) for key in sorted(options) if key in OPTIONS
        ),
        instance_uuid=vm.instance_uuid,
        bios_uuid=found.get("config.uuid") or "",
    )


def instance_uuid(shell: VmShell, mark: str) -> str:
    """Instance UUID of the VM to make: the replica's, or one that follows from run and name."""
    if shell.keep_instance_uuid:
        return shell.configuration.instance_uuid
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"failback:{mark}/{shell.name}"))


def specification(shell: VmShell, place: Place, mark: str) -> Any:
    """What CreateVM_Task needs to make the VM in this place."""
    of = shell.configuration
    options = {option.key: option.value for option in of.options if option.key in OPTIONS}
    # A VM that comes from elsewhere would be asked at its first start whether it was moved.
    options |= {MARK_OPTION: mark, "uuid.action": "keep"}
    profile = shell.placement.storage_policy
    spec = vim.vm.ConfigSpec(
        name=shell.name,
        guestId=of.guest_id,
        version=of.hardware_version or None,
        firmware=of.firmware,
        numCPUs=of.cpus,
        numCoresPerSocket=of.cores_per_socket,
        memoryMB=of.memory_mb,
        cpuHotAddEnabled=of.cpu_hot_add,
        memoryHotAddEnabled=of.memory_hot_add,
        annotation=of.annotation,
        instanceUuid=instance_uuid(shell, mark) or None,
        uuid=(of.bios_uuid or None) if shell.keep_bios_uuid else None,
        files=vim.vm.FileInfo(vmPathName=f"[{place.datastore.name}]"),
        extraConfig=[vim.option.OptionValue(key=k, value=v) for k, v in sorted(options.items())],
        deviceChange=list(_device_changes(shell, place)),
        vmProfile=[vim.vm.DefinedProfileSpec(profileId=profile)] if profile else [],
    )
    if of.secure_boot:
        spec.bootOptions = vim.vm.BootOptions(efiSecureBootEnabled=True)
    return spec


def _device_changes(shell: VmShell, place: Place) -> Iterator[Any]:
    keys: dict[tuple[str, int], int] = {}
    for number, controller in enumerate(shell.configuration.controllers):
        key = keys[controller.kind, controller.bus] = -100 - number
        yield _add(_controller_device(controller, key))
    for number, disk in enumerate(shell.configuration.disks):
        address = disk.address
        device = _disk_device(shell, place, disk)
        device.key = -1000 - number
        device.controllerKey = keys[address.controller, address.bus]
        yield _add(device, fileOperation="create", profile=_profile(shell))
    for number, nic in enumerate(shell.configuration.nics):
        if nic.kind not in _COPIED_NICS:
            raise OperationUnsupported(
                f"Network card {nic.key} is of a kind that cannot be made anew: {nic.kind}.",
                "Give the replica a vmxnet3 card in its place.",
            )
        device = NIC_KINDS[nic.kind](
            key=-5000 - number,
            backing=place.network(nic.network).backing(),
            addressType="manual" if shell.keep_macs and nic.mac else "assigned",
            connectable=vim.vm.device.VirtualDevice.ConnectInfo(
                startConnected=shell.connect_nics and nic.connected,
                allowGuestControl=True,
                connected=False,
            ),
        )
        if shell.keep_macs and nic.mac:
            device.macAddress = nic.mac
        yield _add(device)


def _profile(shell: VmShell) -> list[Any]:
    policy = shell.placement.storage_policy
    return [vim.vm.DefinedProfileSpec(profileId=policy)] if policy else []


def _add(device: Any, **more: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device, **more)


def _controller_device(controller: Controller, key: int) -> Any:
    kind, model = MODELS[controller.model]
    device = model(key=key, busNumber=controller.bus)
    if kind == "scsi":
        device.sharedBus = "noSharing"
    return device


def _disk_device(shell: VmShell, place: Place, disk: ShellDisk) -> Any:
    provisioning = shell.provisioning or disk.provisioning
    store = place.disks.get(str(disk.address), place.datastore)
    kib = -(-disk.capacity_bytes // KIB)
    return vim.vm.device.VirtualDisk(
        unitNumber=disk.address.unit,
        capacityInKB=kib,
        capacityInBytes=kib * KIB,
        backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName=f"[{store.name}]",
            datastore=store.ref,
            diskMode="persistent",
            thinProvisioned=provisioning is Provisioning.THIN,
            eagerlyScrub=provisioning is Provisioning.EAGER,
        ),
    )


def _controllers(vm: VmIdentity, devices: Iterable[Ref]) -> Iterator[Controller]:
    listed = list(devices)
    used = {getattr(device, "controllerKey", None) for device in listed if _is_disk(device)}
    for device in listed:
        if device.key not in used:
            continue
        for model, (kind, cls) in MODELS.items():
            if isinstance(device, cls):
                yield Controller(kind=kind, bus=device.busNumber, model=model)
                break
        else:
            raise OperationUnsupported(
                f"{vm} has a disk controller of a kind that cannot be made anew: "
                f"{type(device).__name__.rpartition('.')[2]}.",
                "Move its disks to a SCSI, SATA, IDE or NVMe controller.",
            )


def _disks(devices: Iterable[Ref]) -> Iterator[ShellDisk]:
    listed = list(devices)
    backings = {device.key: device.backing for device in listed if _is_disk(device)}
    for disk in disks_of(listed):
        backing = backings[disk.key]
        kind = Provisioning.THICK
        if getattr(backing, "thinProvisioned", None):
            kind = Provisioning.THIN
        elif getattr(backing, "eagerlyScrub", None):
            kind = Provisioning.EAGER
        yield ShellDisk(address=disk.address, capacity_bytes=disk.capacity_bytes, provisioning=kind)


def _is_disk(device: Ref) -> bool:
    return isinstance(device, vim.vm.device.VirtualDisk)
