"""Snapshots: made once, found by exact name, touched only with the mark."""

from __future__ import annotations

import pytest

from failback.contracts.words import PowerState
from failback.errors import SnapshotAmbiguous, SnapshotMissing, VmChanged
from tests.contract.backends import Backend, Beats
from tests.helpers.lab import ControlRefused

NAME = "failback/run-1/target"
MARK = "run-1"
TEXT = "failback, run run-1"


def test_created_twice_is_one_snapshot(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    first = site.create_snapshot(vm, NAME, TEXT, beats)
    assert site.create_snapshot(vm, NAME, TEXT, beats) == first
    view = site.read([vm])[0]
    assert [(s.moref, s.name, s.description, s.parent) for s in view.snapshots] == [
        (first, NAME, TEXT, None)
    ]
    assert view.current_snapshot == first
    assert view.snapshots[0].created_at is not None


def test_names_match_exactly_and_chains_show_their_parents(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    first = site.create_snapshot(vm, NAME, TEXT, beats)
    second = site.create_snapshot(vm, NAME + "-2", TEXT, beats)
    view = site.read([vm])[0]
    assert {s.moref: s.parent for s in view.snapshots} == {first: None, second: first}
    assert len(view.snapshot_named(NAME)) == 1


def test_a_snapshot_freezes_the_disks_under_their_old_names(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    before = site.read([vm])[0].disks
    snapshot = site.create_snapshot(vm, NAME, TEXT, beats)
    after = site.read([vm])[0].disks
    frozen = site.snapshot_disks(vm, snapshot)
    assert [d.file for d in frozen] == [d.file for d in before]
    assert [(d.key, d.address) for d in frozen] == [(d.key, d.address) for d in before]
    backend.rule(
        "a snapshot moves the disks to new files",
        all(
            a.file != b.file and a.parent_file == b.file for a, b in zip(after, before, strict=True)
        ),
    )


def test_removed_twice_is_gone(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    site.create_snapshot(vm, NAME, TEXT, beats)
    assert site.remove_snapshot(vm, NAME, MARK, beats) is True
    assert site.remove_snapshot(vm, NAME, MARK, beats) is False
    view = site.read([vm])[0]
    assert view.snapshots == ()
    assert view.current_snapshot is None
    assert all(disk.parent_file is None for disk in view.disks)


def test_children_stay_when_their_parent_is_removed(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    site.create_snapshot(vm, NAME, TEXT, beats)
    child = site.create_snapshot(vm, "somebody's", "not ours", beats)
    assert site.remove_snapshot(vm, NAME, MARK, beats) is True
    assert [s.moref for s in site.read([vm])[0].snapshots] == [child]


def test_a_snapshot_without_the_mark_is_left_alone(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    other = site.create_snapshot(vm, NAME, "somebody else's", beats)
    beats.count = 0
    with pytest.raises(VmChanged, match="mark"):
        site.remove_snapshot(vm, NAME, MARK, beats)
    with pytest.raises(VmChanged, match="mark"):
        site.revert_to_snapshot(vm, other, MARK, beats)
    with pytest.raises(VmChanged, match="mark"):
        site.remove_snapshot(vm, NAME, "", beats)
    assert [s.moref for s in site.read([vm])[0].snapshots] == [other]
    assert beats.count == 0


def test_two_of_one_name_are_ambiguous(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    site.create_snapshot(vm, NAME, TEXT, beats)
    try:
        backend.foreign_snapshot(vm, NAME, TEXT)
        made = True
    except ControlRefused:
        made = False
    backend.rule("a snapshot of somebody else can be made", made)
    if made:
        with pytest.raises(SnapshotAmbiguous, match="snapshots"):
            site.create_snapshot(vm, NAME, TEXT, beats)
        with pytest.raises(SnapshotAmbiguous):
            site.remove_snapshot(vm, NAME, MARK, beats)


def test_revert_twice_gives_the_frozen_state(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    snapshot = site.create_snapshot(vm, NAME, TEXT, beats)
    site.power_on(vm, beats)
    site.revert_to_snapshot(vm, snapshot, MARK, beats)
    site.revert_to_snapshot(vm, snapshot, MARK, beats)
    view = site.read([vm])[0]
    assert view.current_snapshot == snapshot
    backend.rule("a revert restores the power state", view.power is PowerState.OFF)


def test_a_snapshot_that_is_gone_is_missing(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    snapshot = site.create_snapshot(vm, NAME, TEXT, beats)
    site.remove_snapshot(vm, NAME, MARK, beats)
    with pytest.raises(SnapshotMissing, match=snapshot):
        site.revert_to_snapshot(vm, snapshot, MARK, beats)
    with pytest.raises(SnapshotMissing, match=snapshot):
        site.snapshot_disks(vm, snapshot)


def test_a_snapshot_of_another_vm_is_missing_here(backend: Backend, beats: Beats) -> None:
    snapshot = backend.site.create_snapshot(backend.on, NAME, TEXT, beats)
    with pytest.raises(SnapshotMissing):
        backend.site.revert_to_snapshot(backend.off, snapshot, MARK, beats)
    with pytest.raises(SnapshotMissing):
        backend.site.snapshot_disks(backend.off, snapshot)
