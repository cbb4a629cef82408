"""Change tracking, disk size and attributes."""

from __future__ import annotations

import pytest

from failback.errors import OperationFailed, TrackingUnusable, VmChanged
from tests.contract.backends import MIB, Backend, Beats
from tests.helpers.lab import ControlRefused

MARK = "run run-1"
BLOCK = 64 * 1024


def test_tracking_is_switched_once(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    assert site.read([vm])[0].tracking_supported
    assert site.set_change_tracking(vm, True, beats) is True
    assert site.set_change_tracking(vm, True, beats) is False
    view = site.read([vm])[0]
    assert view.tracking_enabled
    backend.rule("a tracked disk has a change id", all(d.change_id for d in view.disks))
    assert site.set_change_tracking(vm, False, beats) is True
    assert site.set_change_tracking(vm, False, beats) is False
    assert not site.read([vm])[0].tracking_enabled


def test_changed_areas_are_what_was_written_between_two_snapshots(
    backend: Backend, beats: Beats
) -> None:
    site, vm = backend.site, backend.on
    site.set_change_tracking(vm, True, beats)
    first = site.create_snapshot(vm, "failback/1/a", MARK, beats)
    base = site.snapshot_disks(vm, first)[0]
    site.remove_snapshot(vm, "failback/1/a", MARK, beats)
    try:
        backend.write(3 * BLOCK + 17, b"failback" * 4)
        backend.write(10 * BLOCK, b"x" * (BLOCK + 1))
        written = True
    except ControlRefused:
        written = False
    backend.rule("a guest can write", written)
    second = site.create_snapshot(vm, "failback/1/b", MARK, beats)
    now = site.snapshot_disks(vm, second)[0]
    if not written:
        with pytest.raises(TrackingUnusable, match="trusted"):
            list(site.changed_areas(vm, second, now, base.change_id or "", beats))
        return
    assert base.change_id
    blocks = {
        block
        for offset, length in site.changed_areas(vm, second, now, base.change_id, beats)
        for block in range(offset // BLOCK, (offset + length + BLOCK - 1) // BLOCK)
    }
    assert blocks >= {3, 10, 11}
    assert blocks <= set(range(MIB // BLOCK))
    assert 5 not in blocks


def test_a_change_id_of_another_tracking_is_not_trusted(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    site.set_change_tracking(vm, True, beats)
    snapshot = site.create_snapshot(vm, "failback/1/a", MARK, beats)
    disk = site.snapshot_disks(vm, snapshot)[0]
    for since in ("52 00 00/1", "", "nonsense"):
        with pytest.raises(TrackingUnusable):
            list(site.changed_areas(vm, snapshot, disk, since, beats))
    untracked = disk.model_copy(update={"change_id": None})
    with pytest.raises(TrackingUnusable):
        list(site.changed_areas(vm, snapshot, untracked, "52 00 00/1", beats))


def test_a_disk_grows_once_and_never_shrinks(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    key = site.read([vm])[0].disks[1].key
    for wanted in (2 * MIB, 2 * MIB, MIB):
        site.grow_disk(vm, key, wanted, beats)
        view = site.read([vm])[0]
        assert [d.capacity_bytes for d in view.disks] == [MIB, 2 * MIB]
    assert beats.count >= 1


def test_a_disk_that_is_not_there_cannot_grow(backend: Backend, beats: Beats) -> None:
    with pytest.raises(VmChanged, match="9999"):
        backend.site.grow_disk(backend.off, 9999, MIB, beats)


def test_a_disk_under_a_snapshot_cannot_grow(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    site.create_snapshot(vm, "failback/1/a", MARK, beats)
    key = site.read([vm])[0].disks[0].key
    try:
        site.grow_disk(vm, key, 2 * MIB, beats)
        refused = False
    except OperationFailed:
        refused = True
    backend.rule("a disk cannot grow under a snapshot", refused)


def test_attributes_are_set_overwritten_and_cleared(backend: Backend, beats: Beats) -> None:
    site = backend.site
    assert site.get_attribute(backend.off, "failback.state") == ""
    for value in ("incomplete run-1", "incomplete run-1", "other", ""):
        site.set_attribute(backend.off, "failback.state", value, beats)
        assert site.get_attribute(backend.off, "failback.state") == value
    site.set_attribute(backend.on, "failback.state", "mine", beats)
    site.set_attribute(backend.on, "failback.other", "second", beats)
    assert site.get_attribute(backend.on, "failback.state") == "mine"
    assert site.get_attribute(backend.on, "failback.other") == "second"
    assert site.get_attribute(backend.off, "failback.state") == ""
