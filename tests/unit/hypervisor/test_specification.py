"""The specification of a VM to create: what is copied, what is left, what is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from failback.contracts.placement import NetworkMap, Placement
from failback.contracts.shell import (
    Controller,
    Option,
    Provisioning,
    ShellDisk,
    VmConfiguration,
    VmShell,
)
from failback.contracts.vm import DiskAddress, Nic
from failback.errors import OperationUnsupported, PlacementInvalid
from failback.hypervisor.vsphere.api import ref
from failback.hypervisor.vsphere.configuration import instance_uuid, specification
from failback.hypervisor.vsphere.nics import Network
from failback.hypervisor.vsphere.placement import Place, Store

MARK = "run-1"
FAST = Store(ref("Datastore", "datastore-1"), "fast")
SLOW = Store(ref("Datastore", "datastore-2"), "slow")
LAN = Network(ref("Network", "network-1"), "LAN")
GROUP = Network(ref("dvs.DistributedVirtualPortgroup", "dvportgroup-9"), "VLAN 7", "dvp-9", "sw-1")
PLACE = Place(
    folder=ref("Folder", "group-v1"),
    pool=ref("ResourcePool", "resgroup-1"),
    host=None,
    datastore=FAST,
    disks={"nvme0:0": SLOW},
    networks={"DR": GROUP},
    here={"LAN": LAN, "VLAN 7": GROUP},
)
OF = VmConfiguration(
    guest_id="windows2019srv_64Guest",
    hardware_version="vmx-19",
    firmware="efi",
    secure_boot=True,
    cpus=4,
    cores_per_socket=2,
    memory_mb=8192,
    memory_hot_add=True,
    controllers=(
        Controller(kind="scsi", bus=0, model="pvscsi"),
        Controller(kind="nvme", bus=0, model="nvme"),
    ),
    disks=(
        ShellDisk(
            address=DiskAddress(controller="scsi", bus=0, unit=3),
            capacity_bytes=1 << 30,
            provisioning=Provisioning.EAGER,
        ),
        ShellDisk(
            address=DiskAddress(controller="nvme", bus=0, unit=0), capacity_bytes=(1 << 20) + 512
        ),
    ),
    nics=(
        Nic(key=4000, kind="vmxnet3", network="LAN", mac="00:50:56:01:02:03"),
        Nic(key=4001, kind="e1000e", network="DR", connected=False),
    ),
    options=(
        Option(key="disk.EnableUUID", value="TRUE"),
        Option(key="sched.swap.derivedName", value="/vmfs/volumes/dr/web01.vswp"),
    ),
    instance_uuid="50 dr",
    bios_uuid="42 dr",
)


def spec(**changes: Any) -> Any:
    return specification(VmShell(name="web01", configuration=OF, **changes), PLACE, MARK)


def devices(made: Any, kind: str) -> list[Any]:
    return [c.device for c in made.deviceChange if kind in type(c.device).__name__]


def test_what_the_guest_knows_is_copied() -> None:
    made = spec()

    assert (made.name, made.guestId, made.version, made.firmware) == (
        "web01",
        "windows2019srv_64Guest",
        "vmx-19",
        "efi",
    )
    assert (made.numCPUs, made.numCoresPerSocket, made.memoryMB) == (4, 2, 8192)
    assert (made.cpuHotAddEnabled, made.memoryHotAddEnabled) == (False, True)
    assert made.bootOptions.efiSecureBootEnabled
    assert made.uuid == "42 dr"
    assert made.files.vmPathName == "[fast]"


def test_settings_that_belong_to_the_old_vm_are_left() -> None:
    options = {option.key: option.value for option in spec().extraConfig}

    assert options == {"disk.EnableUUID": "TRUE", "failback.run": MARK, "uuid.action": "keep"}


def test_the_instance_uuid_follows_from_run_and_name_unless_kept() -> None:
    shell = VmShell(name="web01", configuration=OF)

    assert instance_uuid(shell, MARK) == instance_uuid(shell, MARK) == spec().instanceUuid
    assert instance_uuid(shell, "run-2") != instance_uuid(shell, MARK)
    other = shell.model_copy(update={"name": "web02"})
    assert instance_uuid(other, MARK) != instance_uuid(shell, MARK)
    assert spec(keep_instance_uuid=True).instanceUuid == "50 dr"
    assert spec(keep_bios_uuid=False).uuid is None


def test_disks_hang_where_they_hung_and_lie_where_they_are_told() -> None:
    made = spec()
    one, two = devices(made, "VirtualDisk")
    scsi, nvme = devices(made, "SCSIController") + devices(made, "NVMEController")

    assert (one.controllerKey, one.unitNumber) == (scsi.key, 3)
    assert (two.controllerKey, two.unitNumber) == (nvme.key, 0)
    assert (one.backing.fileName, two.backing.fileName) == ("[fast]", "[slow]")
    # vSphere counts in KiB: what is no whole number of them is rounded up, never down.
    assert (one.capacityInBytes, two.capacityInBytes) == (1 << 30, (1 << 20) + 1024)
    keys = [change.device.key for change in made.deviceChange]
    assert len(set(keys)) == len(keys)
    assert all(key < 0 for key in keys)


@pytest.mark.parametrize(
    ("chosen", "thin", "eager"),
    [
        (None, [False, True], [True, False]),
        (Provisioning.THIN, [True, True], [False, False]),
        (Provisioning.THICK, [False, False], [False, False]),
        (Provisioning.EAGER, [False, False], [True, True]),
    ],
)
def test_room_is_taken_as_asked(
    chosen: Provisioning | None, thin: list[bool], eager: list[bool]
) -> None:
    backings = [disk.backing for disk in devices(spec(provisioning=chosen), "VirtualDisk")]

    assert [backing.thinProvisioned for backing in backings] == thin
    assert [backing.eagerlyScrub for backing in backings] == eager


def test_a_storage_policy_goes_to_the_vm_and_each_disk() -> None:
    made = spec(placement=Placement(storage_policy="policy-7"))

    assert [one.profileId for one in made.vmProfile] == ["policy-7"]
    for change in made.deviceChange:
        wanted = ["policy-7"] if "VirtualDisk" in type(change.device).__name__ else []
        assert [one.profileId for one in change.profile or []] == wanted
    assert list(spec().vmProfile) == []


def test_networks_are_mapped_and_silent_until_asked() -> None:
    lan, group = devices(spec(), "Vmxnet3") + devices(spec(), "E1000e")

    assert (lan.backing.deviceName, lan.addressType, lan.macAddress) == ("LAN", "assigned", None)
    assert (group.backing.port.portgroupKey, group.backing.port.switchUuid) == ("dvp-9", "sw-1")
    assert not lan.connectable.startConnected
    (asked,) = devices(spec(connect_nics=True, keep_macs=True), "Vmxnet3")
    assert (asked.addressType, asked.macAddress) == ("manual", "00:50:56:01:02:03")
    assert asked.connectable.startConnected
    # A card that was not connected at the replica is not connected here either.
    (unplugged,) = devices(spec(connect_nics=True), "E1000e")
    assert not unplugged.connectable.startConnected


def test_a_network_that_is_nowhere_is_named_with_what_there_is() -> None:
    of = OF.model_copy(update={"nics": (Nic(key=1, kind="vmxnet3", network="gone"),)})
    shell = VmShell(
        name="x",
        configuration=of,
        placement=Placement(networks=(NetworkMap(replica="a", target="b"),)),
    )
    with pytest.raises(PlacementInvalid, match=r"no network gone .* LAN, VLAN 7"):
        specification(shell, PLACE, MARK)


@pytest.mark.parametrize("kind", ["sriov", "unknown"])
def test_a_card_that_stands_for_hardware_is_not_copied(kind: str) -> None:
    of = OF.model_copy(update={"nics": (Nic(key=4002, kind=kind, network="LAN"),)})
    with pytest.raises(OperationUnsupported, match=f"card 4002 .* made anew: {kind}"):
        specification(VmShell(name="x", configuration=of), PLACE, MARK)
