"""The driver at a real site: what the contract tests do, on one marked VM, leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import TrackingUnusable, VmChanged
from failback.preflight.privileges import checked_on_vm, of_production
from tests.vcenter.conftest import view_of

pytestmark = pytest.mark.vcenter

Beat = Callable[[], None]
NAME, MARK = "failback/real/x", "failback-real"


def test_the_site_answers_and_is_supported(real: Any) -> None:
    about = real.about()
    print(f"\n{real.ping()}, {'vCenter' if about.vcenter else 'host'} {about.uuid}")
    assert about.uuid


def test_the_account_may_do_what_a_run_needs(real: Any, vm: VmIdentity) -> None:
    assert real.missing_privileges([vm], checked_on_vm(of_production())) == {vm.moref: ()}


def test_the_vm_is_found_by_name_moref_and_again(real: Any, vm: VmIdentity) -> None:
    assert real.find(vm.moref) == vm
    assert real.find_again(vm) == vm
    assert real.find_again(vm.model_copy(update={"moref": "vm-999999999"})) == vm


def test_its_view_is_whole(real: Any, vm: VmIdentity) -> None:
    view = view_of(real, vm)
    assert view.disks
    assert view.memory_mb
    assert view.cpus
    assert view.host
    assert all(disk.capacity_bytes for disk in view.disks)


def test_a_snapshot_is_made_once_reverted_twice_and_removed_twice(
    real: Any, vm: VmIdentity, beat: Beat
) -> None:
    before = view_of(real, vm)
    snapshot = real.create_snapshot(vm, NAME, MARK, beat)
    try:
        assert real.create_snapshot(vm, NAME, MARK, beat) == snapshot
        frozen = real.snapshot_disks(vm, snapshot)
        assert [disk.address for disk in frozen] == [disk.address for disk in before.disks]
        with pytest.raises(VmChanged):
            real.remove_snapshot(vm, NAME, "somebody else", beat)
        for _ in range(2):
            real.revert_to_snapshot(vm, snapshot, MARK, beat)
            assert view_of(real, vm).current_snapshot == snapshot
    finally:
        assert real.remove_snapshot(vm, NAME, MARK, beat) is True
    assert real.remove_snapshot(vm, NAME, MARK, beat) is False
    after = view_of(real, vm)
    assert after.snapshots == ()
    assert not after.consolidation_needed


def test_power_goes_on_and_off_and_leaves_its_mark(real: Any, vm: VmIdentity, beat: Beat) -> None:
    before = real.power_mark(vm)
    try:
        for _ in range(2):
            real.power_on(vm, beat)
            assert view_of(real, vm).power is PowerState.ON
        assert before is None or real.power_mark(vm) != before
    finally:
        real.power_off(vm, beat)
    real.power_off(vm, beat)
    assert view_of(real, vm).power is PowerState.OFF


def test_changed_areas_are_told_or_refused(real: Any, vm: VmIdentity, beat: Beat) -> None:
    was = view_of(real, vm).tracking_enabled
    real.set_change_tracking(vm, True, beat)
    names = [f"{NAME}/{number}" for number in (1, 2)]
    try:
        base = real.snapshot_disks(vm, real.create_snapshot(vm, names[0], MARK, beat))[0]
        second = real.create_snapshot(vm, names[1], MARK, beat)
        now = real.snapshot_disks(vm, second)[0]
        try:
            areas = list(real.changed_areas(vm, second, now, base.change_id or "", beat))
        except TrackingUnusable as error:
            print(f"\n{error}")
        else:
            # Nobody has written in between.
            assert areas == []
    finally:
        for name in names:
            real.remove_snapshot(vm, name, MARK, beat)
        real.set_change_tracking(vm, was, beat)
    assert view_of(real, vm).tracking_enabled is was


def test_a_mark_is_set_and_cleared(real: Any, vm: VmIdentity, beat: Beat) -> None:
    for value in ("incomplete real", ""):
        real.set_attribute(vm, "failback.state", value, beat)
        assert real.get_attribute(vm, "failback.state") == value


def test_nothing_is_left_running_on_the_vm(real: Any, vm: VmIdentity, beat: Beat) -> None:
    real.settle(vm, timedelta(minutes=5), beat)
    view = view_of(real, vm)
    assert view.power is PowerState.OFF
    assert view.snapshots == ()
