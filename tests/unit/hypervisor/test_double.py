"""Fault injection of the in-memory double."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import OperationFailed, SettingsInvalid, SiteBusy, SiteUnreachable, VmAmbiguous
from failback.hypervisor.testing import FakeSite, FakeSites
from failback.hypervisor.vsphere.keeping import Keeper

MIB = 1 << 20


def beat() -> None:
    """Nothing to renew."""


@pytest.fixture
def site() -> FakeSite:
    return FakeSites().add("production")


@pytest.fixture
def vm(site: FakeSite) -> VmIdentity:
    return site.add_vm("web", [bytearray(MIB)], PowerState.ON)


def test_the_nth_call_fails_as_often_as_told(site: FakeSite, vm: VmIdentity) -> None:
    site.fail("read", SiteUnreachable("cut"), nth=2, times=2)
    site.read([vm])
    for _ in range(2):
        with pytest.raises(SiteUnreachable):
            site.read([vm])
    site.read([vm])
    assert site.calls.count("read") == 4


def test_idle_sessions_are_kept_also_after_trouble() -> None:
    site = FakeSite("dr")
    site.fail("keep_alive", SiteUnreachable("The wire was cut."))
    keeper = Keeper([site], every_s=0.001)
    deadline = time.monotonic() + 60
    while site.calls.count("keep_alive") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    keeper.close()
    assert "keeper" not in {thread.name for thread in threading.enumerate()}


def test_applied_means_that_only_the_reply_is_lost(site: FakeSite, vm: VmIdentity) -> None:
    site.fail("power_off", SiteUnreachable("cut"), applied=True)
    with pytest.raises(SiteUnreachable):
        site.power_off(vm, beat)
    assert site.read([vm])[0].power is PowerState.OFF
    site.fail("create_snapshot", SiteUnreachable("cut"), applied=False)
    with pytest.raises(SiteUnreachable):
        site.create_snapshot(vm, "a", "mark", beat)
    assert site.read([vm])[0].snapshots == ()


def test_a_site_that_is_down_answers_nothing(site: FakeSite, vm: VmIdentity) -> None:
    site.down = True
    with pytest.raises(SiteUnreachable):
        site.read([vm])
    site.down = False
    assert site.read([vm])


def test_a_revert_brings_the_bytes_back(site: FakeSite, vm: VmIdentity) -> None:
    disk = site.vm(vm).disks[0]
    disk.data[:4] = b"good"
    snapshot = site.create_snapshot(vm, "a", "mark", beat)
    disk.data[:4] = b"evil"
    site.revert_to_snapshot(vm, snapshot, "mark", beat)
    assert disk.data[:4] == b"good"


def test_a_hard_power_off_resets_tracking_and_a_shutdown_does_not(
    site: FakeSite, vm: VmIdentity
) -> None:
    site.set_change_tracking(vm, True, beat)

    def tracking() -> str:
        return (site.read([vm])[0].disks[0].change_id or "").partition("/")[0]

    first = tracking()
    assert site.shut_down_guest(vm, beat)
    assert tracking() == first
    site.power_on(vm, beat)
    site.power_off(vm, beat)
    assert tracking() != first


def test_what_people_do_beside_us_can_be_played(site: FakeSite, vm: VmIdentity) -> None:
    mine = site.vm(vm)
    mine.open_task = "backup"
    with pytest.raises(SiteBusy, match="backup"):
        site.settle(vm, timedelta(0), beat)
    mine.turn(PowerState.OFF)
    mine.question = "copied or moved?"
    with pytest.raises(OperationFailed, match="copied or moved"):
        site.power_on(vm, beat)
    mine.changes["fault_tolerant"] = True
    assert site.read([vm])[0].fault_tolerant
    mine.missing_privileges = frozenset({"a"})
    assert site.missing_privileges([vm], ["a", "b"]) == {vm.moref: ("a",)}
    site.add_vm("web")
    with pytest.raises(VmAmbiguous):
        site.find("web")
    with pytest.raises(SettingsInvalid):
        FakeSites().site("nowhere")
