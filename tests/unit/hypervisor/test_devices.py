"""Disks out of virtual devices: addresses, refusals, order."""

from __future__ import annotations

from typing import Any

import pytest

from failback.hypervisor.vsphere.api import vim
from failback.hypervisor.vsphere.devices import disks_of

device = vim.vm.device


def disk(controller: Any, unit: int, backing: Any = None, **fields: Any) -> Any:
    return device.VirtualDisk(
        key=2000 + unit,
        controllerKey=controller.key,
        unitNumber=unit,
        capacityInKB=1024,
        capacityInBytes=fields.pop("capacityInBytes", 1 << 20),
        backing=backing or flat(),
    )


def flat(**fields: Any) -> Any:
    backing = device.VirtualDisk.FlatVer2BackingInfo(fileName="[ds] vm/vm.vmdk")
    backing.diskMode = "persistent"
    for name, value in fields.items():
        setattr(backing, name, value)
    return backing


SCSI = device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")


@pytest.mark.parametrize(
    ("controller", "address"),
    [
        (SCSI, "scsi0:3"),
        (
            device.VirtualLsiLogicSASController(key=1001, busNumber=1, sharedBus="noSharing"),
            "scsi1:3",
        ),
        (device.VirtualAHCIController(key=15000, busNumber=0), "sata0:3"),
        (device.VirtualIDEController(key=201, busNumber=1), "ide1:3"),
        (device.VirtualNVMEController(key=31000, busNumber=0), "nvme0:3"),
    ],
)
def test_an_address_is_controller_bus_and_unit(controller: Any, address: str) -> None:
    assert str(disks_of([disk(controller, 3), controller])[0].address) == address


def test_order_is_by_address_not_by_list() -> None:
    second, first = disk(SCSI, 1), disk(SCSI, 0)
    assert [found.key for found in disks_of([SCSI, second, first])] == [2000, 2001]


def test_a_chain_and_its_change_id_show() -> None:
    parent = flat()
    leaf = flat(parent=parent, changeId="52 de c0/7", fileName="[ds] vm/vm-000001.vmdk")
    found = disks_of([SCSI, disk(SCSI, 0, leaf)])[0]
    assert found.parent_file == "[ds] vm/vm.vmdk"
    assert found.file == "[ds] vm/vm-000001.vmdk"
    assert found.change_id == "52 de c0/7"


def test_capacity_falls_back_to_kibibytes() -> None:
    assert disks_of([SCSI, disk(SCSI, 0, capacityInBytes=None)])[0].capacity_bytes == 1 << 20


def rdm(mode: str) -> Any:
    return device.VirtualDisk.RawDiskMappingVer1BackingInfo(
        fileName="[ds] vm/rdm.vmdk", compatibilityMode=mode, diskMode="persistent"
    )


@pytest.mark.parametrize(
    ("backing", "refusals"),
    [
        (flat(), ()),
        (flat(diskMode="independent_persistent"), ("independent",)),
        (flat(diskMode="independent_nonpersistent"), ("independent",)),
        (flat(sharing="sharingMultiWriter"), ("multi-writer",)),
        (flat(sharing="sharingNone"), ()),
        (flat(keyId=vim.encryption.CryptoKeyId(keyId="k")), ("encrypted",)),
        (rdm("physicalMode"), ("physical-rdm",)),
        (rdm("virtualMode"), ()),
    ],
)
def test_refusals_name_what_cannot_be_failed_back(backing: Any, refusals: tuple[str, ...]) -> None:
    assert disks_of([SCSI, disk(SCSI, 0, backing)])[0].refusals == refusals


def test_a_shared_bus_is_a_shared_disk() -> None:
    shared = device.VirtualLsiLogicController(key=1000, busNumber=0, sharedBus="physicalSharing")
    assert disks_of([shared, disk(shared, 0)])[0].refusals == ("multi-writer",)
