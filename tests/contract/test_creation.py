"""Making, registering, renaming and deleting VMs: once, and only ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from failback.contracts.placement import DiskPlace, NetworkMap, Placement
from failback.contracts.shell import Controller, ShellDisk, VmConfiguration, VmShell
from failback.contracts.vm import DiskAddress, VmIdentity
from failback.contracts.words import PowerState
from failback.errors import (
    NameTaken,
    OperationFailed,
    PlacementInvalid,
    SiteUnreachable,
    VmChanged,
    VmNotFound,
)
from tests.contract.backends import MIB, Backend, Beats
from tests.contract.differences import DOUBLE

MARK, OTHER = "run-1", "run-2"
NAME = "web (failback in progress)"


def shell(backend: Backend, **changes: object) -> VmShell:
    """A VM like `off`."""
    made = VmShell(
        name=NAME,
        configuration=backend.site.configuration(backend.off),
        placement=backend.placement,
    )
    return made.model_copy(update=changes)


def made(backend: Backend, beats: Beats) -> VmIdentity:
    return backend.site.create_vm(shell(backend), MARK, beats)


def test_a_created_vm_is_like_the_replica(backend: Backend, beats: Beats) -> None:
    wanted = backend.site.configuration(backend.off)

    vm = made(backend, beats)

    view = backend.site.read([vm])[0]
    assert (vm.name, view.power) == (NAME, PowerState.OFF)
    assert [(d.address, d.capacity_bytes) for d in view.disks] == [
        (d.address, d.capacity_bytes) for d in wanted.disks
    ]
    assert [(n.network, n.connected) for n in view.nics] == [("VM Network", False)]
    assert vm.bios_uuid == backend.off.bios_uuid
    assert vm.instance_uuid != backend.off.instance_uuid
    assert backend.site.get_attribute(vm, "failback.job") == MARK
    found = backend.site.configuration(vm)
    same = {"nics", "instance_uuid", "bios_uuid", "annotation"}
    assert found.model_dump(exclude=same) == wanted.model_dump(exclude=same)
    assert beats.count > 0


def test_creating_again_returns_the_same_vm(backend: Backend, beats: Beats) -> None:
    first = made(backend, beats)
    assert made(backend, beats) == first
    # Also after it has got its final name: the mark says whose it is, not the name.
    backend.site.rename_vm(first, "web", "", beats)
    again = made(backend, beats)
    assert again.moref == first.moref


def test_what_was_made_is_found_by_its_mark_and_nothing_else_is(
    backend: Backend, beats: Beats
) -> None:
    wanted = shell(backend)
    assert backend.site.find_made(wanted, MARK, beats) is None

    vm = made(backend, beats)

    found = backend.site.find_made(wanted, MARK, beats)
    assert found is not None and found.moref == vm.moref
    assert backend.site.find_made(wanted, OTHER, beats) is None
    # A VM of the wanted name that somebody else made is not ours.
    assert backend.site.find_made(shell(backend, name="off"), OTHER, beats) is None
    backend.site.rename_vm(vm, "web", "", beats)
    again = backend.site.find_made(wanted, MARK, beats)
    assert again is not None and again.moref == vm.moref
    backend.site.destroy_vm(vm, MARK, beats)
    assert backend.site.find_made(wanted, MARK, beats) is None


def test_eight_callers_make_one_vm(backend: Backend) -> None:
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(made, backend, Beats()) for _ in range(8)]
        assert len({call.result().moref for call in calls}) == 1


def test_a_vm_of_somebody_else_is_left_alone(backend: Backend, beats: Beats) -> None:
    with pytest.raises(NameTaken, match="off"):
        backend.site.create_vm(shell(backend, name="off"), MARK, beats)
    vm = made(backend, beats)
    with pytest.raises(NameTaken):
        backend.site.create_vm(shell(backend), OTHER, beats)
    with pytest.raises(NameTaken):
        backend.site.rename_vm(vm, "off", "", beats)
    for refuse in (backend.site.unregister_vm, backend.site.destroy_vm):
        for mark in (OTHER, ""):
            with pytest.raises(VmChanged, match="mark"):
                refuse(vm, mark, beats)
        with pytest.raises(VmChanged, match="mark"):
            refuse(backend.off, MARK, beats)
    assert backend.site.read([vm, backend.off])


def test_a_vm_without_its_mark_is_nobodys(backend: Backend, beats: Beats) -> None:
    vm = made(backend, beats)
    assert backend.site.clear_mark(vm, OTHER, beats) is False
    assert backend.site.clear_mark(backend.off, MARK, beats) is False
    backend.site.power_on(vm, beats)

    assert backend.site.clear_mark(vm, MARK, beats) is True

    assert backend.site.clear_mark(vm, MARK, beats) is False
    backend.site.power_off(vm, beats)
    for refuse in (backend.site.unregister_vm, backend.site.destroy_vm):
        with pytest.raises(VmChanged, match="mark"):
            refuse(vm, MARK, beats)
    assert backend.site.find_made(shell(backend), MARK, beats) is None
    assert backend.site.get_attribute(vm, "failback.job") == ""


def test_a_vm_that_runs_is_not_deleted(backend: Backend, beats: Beats) -> None:
    vm = made(backend, beats)
    backend.site.power_on(vm, beats)
    for refuse in (backend.site.unregister_vm, backend.site.destroy_vm):
        with pytest.raises(OperationFailed, match="off"):
            refuse(vm, MARK, beats)
    assert backend.site.read([vm])[0].power is PowerState.ON


def test_destroying_twice(backend: Backend, beats: Beats) -> None:
    vm = made(backend, beats)
    assert backend.site.destroy_vm(vm, MARK, beats) is True
    with pytest.raises(VmNotFound):
        backend.site.read([vm])
    assert backend.site.destroy_vm(vm, MARK, beats) is False
    assert backend.site.unregister_vm(vm, MARK, beats) is False


def test_unregistered_and_registered_again(backend: Backend, beats: Beats) -> None:
    vm = made(backend, beats)
    disks = backend.site.read([vm])[0].disks
    assert backend.site.unregister_vm(vm, MARK, beats) is True

    back = backend.site.register_vm(vm.path, NAME, backend.placement, MARK, beats)

    assert back.moref != vm.moref
    assert back.path == vm.path
    assert backend.site.register_vm(vm.path, NAME, backend.placement, MARK, beats) == back
    with pytest.raises(VmChanged, match="run"):
        backend.site.register_vm(vm.path, NAME, backend.placement, OTHER, beats)
    view = backend.site.read([back])[0]
    backend.rule(
        "a registered VM has the disks of its file",
        [(d.address, d.file, d.capacity_bytes) for d in view.disks]
        == [(d.address, d.file, d.capacity_bytes) for d in disks],
    )
    assert backend.site.destroy_vm(back, MARK, beats) is True


def test_a_file_that_is_not_there_cannot_be_registered(backend: Backend, beats: Beats) -> None:
    path = backend.off.path.replace("off", "nothing")
    with pytest.raises((OperationFailed, VmNotFound)):
        backend.site.register_vm(path, "nothing", backend.placement, MARK, beats)


def test_a_place_tells_what_is_missing(backend: Backend, beats: Beats) -> None:
    good = backend.site.place(backend.placement, NAME)
    assert (good.missing, good.taken_by) == ((), "")
    assert all(store.name and store.accessible for store in good.datastores)
    assert backend.site.place(backend.placement, "off").taken_by == backend.off.moref

    bad = backend.placement.model_copy(
        update={
            "datastore": "nowhere",
            "folder": "no folder",
            "networks": (NetworkMap(replica="VM Network", target="no network"),),
        }
    )
    told = {one.kind: one for one in backend.site.place(bad, NAME).missing}
    assert {kind: one.name for kind, one in told.items()} == {
        "datastore": "nowhere",
        "folder": "no folder",
        "network": "no network",
    }
    assert "VM Network" in told["network"].candidates
    with pytest.raises(PlacementInvalid, match="no folder"):
        backend.site.create_vm(shell(backend, placement=bad), MARK, beats)


@pytest.mark.parametrize("kind", ["host", "cluster", "pool"])
def test_a_compute_resource_that_is_missing_is_named(backend: Backend, kind: str) -> None:
    (missing,) = {
        (one.kind, one.name)
        for one in backend.site.place(
            Placement().model_copy(update={kind: "no such"}), NAME
        ).missing
        if one.name
    }
    assert missing == (kind, "no such")


def test_a_network_without_a_map_is_named(backend: Backend, beats: Beats) -> None:
    of = backend.site.configuration(backend.off)
    nics = tuple(nic.model_copy(update={"network": "DR only"}) for nic in of.nics)
    wanted = shell(backend, configuration=of.model_copy(update={"nics": nics}))
    with pytest.raises(PlacementInvalid, match="DR only"):
        backend.site.create_vm(wanted, MARK, beats)
    mapped = backend.placement.model_copy(
        update={"networks": (NetworkMap(replica="DR only", target="VM Network"),)}
    )
    vm = backend.site.create_vm(
        wanted.model_copy(update={"placement": mapped, "connect_nics": True}), MARK, beats
    )
    (nic,) = backend.site.read([vm])[0].nics
    assert (nic.network, nic.connected) == ("VM Network", True)


def test_addresses_are_kept_only_when_asked(backend: Backend, beats: Beats) -> None:
    of = backend.site.configuration(backend.off)
    nics = tuple(nic.model_copy(update={"mac": "00:50:56:11:22:33"}) for nic in of.nics)
    wanted = shell(backend, configuration=of.model_copy(update={"nics": nics}), keep_macs=True)
    (nic,) = backend.site.read([backend.site.create_vm(wanted, MARK, beats)])[0].nics
    assert (nic.mac, nic.address_type) == ("00:50:56:11:22:33", "manual")


def test_cards_are_connected_at_the_end(backend: Backend, beats: Beats) -> None:
    vm = made(backend, beats)
    (nic,) = backend.site.read([vm])[0].nics
    assert not nic.connected
    wanted = nic.model_copy(
        update={"connected": True, "mac": "00:50:56:0a:0b:0c", "address_type": "manual"}
    )
    for _ in range(2):
        backend.site.set_nics(vm, [wanted], beats)
        assert backend.site.read([vm])[0].nics == (wanted,)
    with pytest.raises(PlacementInvalid, match="no such"):
        backend.site.set_nics(vm, [wanted.model_copy(update={"network": "no such"})], beats)
    with pytest.raises(VmChanged):
        backend.site.set_nics(vm, [wanted.model_copy(update={"key": 4711})], beats)


MODELS = [
    ("scsi", "pvscsi"),
    ("scsi", "lsilogic"),
    ("scsi", "lsilogic-sas"),
    ("scsi", "buslogic"),
    ("sata", "ahci"),
    ("ide", "ide"),
    ("nvme", "nvme"),
]


@pytest.mark.parametrize(("kind", "model"), MODELS)
def test_every_kind_of_controller(backend: Backend, beats: Beats, kind: str, model: str) -> None:
    addresses = [
        DiskAddress(controller=kind, bus=bus, unit=unit) for bus in (0, 1) for unit in (0, 1)
    ]
    of = VmConfiguration(
        guest_id="otherLinux64Guest",
        hardware_version="vmx-19",
        firmware="efi",
        cpus=2,
        cores_per_socket=2,
        memory_mb=1024,
        controllers=tuple(Controller(kind=kind, bus=bus, model=model) for bus in (0, 1)),
        disks=tuple(ShellDisk(address=address, capacity_bytes=MIB) for address in addresses),
    )
    vm = backend.site.create_vm(shell(backend, configuration=of), MARK, beats)
    view = backend.site.read([vm])[0]
    assert [disk.address for disk in view.disks] == addresses
    assert (
        (view.firmware, view.cpus) in {("efi", 2), ("bios", 1)}
        if (backend.name == DOUBLE)
        else {("efi", 2)}
    )
    assert backend.site.configuration(vm).controllers == of.controllers


def test_disks_go_where_they_are_told(backend: Backend, beats: Beats) -> None:
    nowhere = backend.placement.model_copy(update={"datastore": "none"})
    (missing,) = backend.site.place(nowhere, NAME).missing
    backend.rule("there is a second datastore", len(missing.candidates) == 2)
    first, last = missing.candidates[0], missing.candidates[-1]
    where = backend.placement.model_copy(
        update={
            "datastore": first.rpartition("/")[2],
            "disks": (DiskPlace(address="scsi0:1", datastore=last.rpartition("/")[2]),),
        }
    )
    vm = backend.site.create_vm(shell(backend, placement=where), MARK, beats)
    stores = [disk.file.partition("]")[0][1:] for disk in backend.site.read([vm])[0].disks]
    assert stores == [where.datastore, where.disks[0].datastore]
    lost = where.model_copy(update={"disks": (DiskPlace(address="scsi0:1", datastore="none"),)})
    with pytest.raises(PlacementInvalid, match="none"):
        backend.site.create_vm(shell(backend, placement=lost, name="other"), MARK, beats)


def test_killed_between_making_and_marking(backend: Backend, beats: Beats) -> None:
    if backend.name == DOUBLE:
        backend.lose_reply("create_vm")
    else:
        backend.break_call("set_attribute")
    with pytest.raises(SiteUnreachable):
        made(backend, beats)
    vm = made(backend, beats)
    assert backend.site.get_attribute(vm, "failback.job") == MARK
    assert backend.site.find(NAME) == vm  # VmAmbiguous if there were two


def test_nvram_is_replaced_as_a_whole(backend: Backend, beats: Beats) -> None:
    vm = made(backend, beats)
    data = bytes(range(256)) * 40
    for _ in range(2):
        backend.site.write_nvram(vm, data, MARK, beats)
        assert backend.site.read_nvram(vm) == data
    backend.site.write_nvram(vm, b"short", MARK, beats)
    assert backend.site.read_nvram(vm) == b"short"
    with pytest.raises(VmChanged, match="mark"):
        backend.site.write_nvram(backend.off, data, MARK, beats)
    for wrong in (b"", bytes((1 << 20) + 1)):
        with pytest.raises(OperationFailed, match="NVRAM"):
            backend.site.write_nvram(vm, wrong, MARK, beats)
    backend.site.destroy_vm(vm, MARK, beats)
    with pytest.raises(VmNotFound):
        backend.site.read_nvram(vm)
