"""Hardware that is added to a VM, and goes again with a revert."""

from __future__ import annotations

import pytest

from failback.contracts.vm import DiskAddress
from failback.errors import PlacementInvalid, VmChanged
from tests.contract.backends import MIB, Backend, Beats

MARK = "run run-1"
DISK = DiskAddress(controller="scsi", bus=0, unit=5)


def test_a_revert_takes_added_hardware_away(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    before = site.read([vm])[0]
    (card,) = before.nics
    snapshot = site.create_snapshot(vm, "failback/1/target", MARK, beats)

    assert site.set_hardware(vm, before.cpus + 2, before.memory_mb + 1024, beats) is True
    assert site.set_hardware(vm, before.cpus + 2, before.memory_mb + 1024, beats) is False
    first = site.add_nic(vm, card, [card.key], beats)
    second = site.add_nic(vm, card, [card.key, first], beats)
    after = site.read([vm])[0]
    assert (after.cpus, after.memory_mb) == (before.cpus + 2, before.memory_mb + 1024)
    assert [nic.key for nic in after.nics] == [card.key, first, second]
    assert {(nic.kind, nic.network) for nic in after.nics} == {(card.kind, card.network)}
    assert len({nic.mac for nic in after.nics if nic.mac}) in (2, 3)

    site.revert_to_snapshot(vm, snapshot, MARK, beats)
    back = site.read([vm])[0]
    backend.rule(
        "a revert restores the hardware",
        (back.cpus, back.memory_mb, back.nics) == (before.cpus, before.memory_mb, before.nics),
    )


def test_a_card_needs_a_network_that_is_there(backend: Backend, beats: Beats) -> None:
    (card,) = backend.site.read([backend.off])[0].nics
    elsewhere = card.model_copy(update={"network": "no such"})
    with pytest.raises(PlacementInvalid, match="no such"):
        backend.site.add_nic(backend.off, elsewhere, [card.key], beats)


def test_an_added_disk_is_found_by_its_file_and_goes_with_it(
    backend: Backend, beats: Beats
) -> None:
    site, vm = backend.site, backend.off
    site.create_snapshot(vm, "failback/1/target", MARK, beats)
    before = site.read([vm])[0].disks
    folder = before[0].file.rpartition("/")[0]
    file, address = f"{folder}/failback-run-1-scsi0-5.vmdk", DISK

    key = site.add_disk(vm, address, 2 * MIB, file, beats)
    assert site.add_disk(vm, address, 2 * MIB, file, beats) == key
    (added,) = (disk for disk in site.read([vm])[0].disks if disk.key == key)
    assert (added.address, added.file, added.capacity_bytes) == (address, file, 2 * MIB)
    assert added.parent_file is None
    with pytest.raises(VmChanged, match="scsi0:5"):
        site.add_disk(vm, address, 2 * MIB, f"{folder}/other.vmdk", beats)

    assert site.remove_disk(vm, file, beats) is True
    assert site.remove_disk(vm, file, beats) is False
    after = site.read([vm])[0].disks
    assert [(disk.key, disk.file) for disk in after] == [(disk.key, disk.file) for disk in before]
    # Its file is gone too: the same name can be taken again.
    site.add_disk(vm, address, MIB, file, beats)


def test_a_revert_detaches_an_added_disk(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    snapshot = site.create_snapshot(vm, "failback/1/target", MARK, beats)
    folder = site.read([vm])[0].disks[0].file.rpartition("/")[0]
    site.add_disk(vm, DISK, MIB, f"{folder}/failback-run-1-scsi0-5.vmdk", beats)

    site.revert_to_snapshot(vm, snapshot, MARK, beats)

    left = [disk.address for disk in site.read([vm])[0].disks]
    backend.rule("a revert restores the hardware", DISK not in left)
