"""What the driver does when login, certificate, connection or session fail; against the lab."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import (
    CertificateUntrusted,
    FailbackError,
    LeaseLost,
    LoginRefused,
    OperationFailed,
    PrivilegeMissing,
    SettingsInvalid,
    SiteBusy,
    SiteUnreachable,
    VmAmbiguous,
    VmChanged,
    VmNotFound,
)
from failback.hypervisor.ports import Sites
from failback.hypervisor.vsphere.inventory import vm_ref
from failback.hypervisor.vsphere.properties import read_object
from failback.hypervisor.vsphere.sites import VsphereSite, VsphereSites
from tests.contract.backends import Beats
from tests.contract.conftest import QUICK, SITE, WORLD
from tests.helpers.lab import LabHandle, start_lab

Open = Callable[..., VsphereSite]


@pytest.fixture
def open_site(lab: LabHandle) -> Iterator[Open]:
    opened: list[VsphereSites] = []

    def open_it(**changes: Any) -> VsphereSite:
        sites = VsphereSites([lab.connection(SITE, **changes)], QUICK)
        opened.append(sites)
        return sites.site(SITE)

    yield open_it
    for sites in opened:
        sites.close()


@pytest.fixture
def site(open_site: Open) -> VsphereSite:
    return open_site()


def test_the_driver_is_the_port(lab: LabHandle) -> None:
    with VsphereSites([lab.connection(SITE)]) as sites:
        port: Sites = sites
        assert port.site(SITE).name == SITE
        with pytest.raises(SettingsInvalid, match="no site elsewhere"):
            port.site("elsewhere")
    with pytest.raises(SettingsInvalid, match="Two sites"):
        VsphereSites([lab.connection(SITE), lab.connection(SITE)])


def test_a_wrong_password_is_refused_once_for_all_threads(
    lab: LabHandle, open_site: Open, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password")
    site = open_site(password_file=wrong)
    with ThreadPoolExecutor(8) as pool:
        errors = [future.exception() for future in [pool.submit(site.ping) for _ in range(8)]]
    assert all(isinstance(error, LoginRefused) for error in errors)
    assert lab.control.calls(SITE)["Login"] == 1
    assert "not the password" not in str(errors)


@pytest.mark.parametrize("content", [None, ""])
def test_a_password_file_that_gives_nothing_is_a_setting(
    open_site: Open, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsInvalid, match="password file"):
        open_site(password_file=path).ping()


def test_an_untrusted_certificate_is_refused_also_on_this_machine(open_site: Open) -> None:
    with pytest.raises(CertificateUntrusted, match=SITE):
        open_site(ca_file=None).ping()


def test_a_pinned_certificate_must_be_exactly_that_one(lab: LabHandle, open_site: Open) -> None:
    pin = lab.manifest["sites"][SITE]["certificate_sha256"]
    assert open_site(ca_file=None, thumbprint_sha256=pin).ping()
    # A pin decides alone: an authority that signed the certificate does not overrule it.
    with pytest.raises(CertificateUntrusted, match="thumbprint"):
        open_site(thumbprint_sha256="00" * 32).ping()


def test_verification_is_off_only_when_told_so(open_site: Open) -> None:
    assert open_site(ca_file=None, insecure=True).ping()


def test_a_ca_file_that_is_none_is_a_setting(open_site: Open, tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    for prepare in (lambda: None, lambda: broken.write_text("no certificate")):
        prepare()
        with pytest.raises(SettingsInvalid, match="ca_file"):
            open_site(ca_file=broken).ping()


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://127.0.0.1/sdk"},
        {"url": "127.0.0.1"},
        {"url": "https://user:word@127.0.0.1/sdk"},
        {"thumbprint_sha256": "ab:cd"},
    ],
)
def test_settings_that_cannot_be_right_are_refused(
    open_site: Open, changes: dict[str, str]
) -> None:
    with pytest.raises(SettingsInvalid):
        open_site(**changes)


def test_a_dead_port_is_unreachable_and_nothing_hangs(open_site: Open) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        site = open_site(url=f"https://127.0.0.1:{reserved.getsockname()[1]}/sdk")
        with pytest.raises(SiteUnreachable) as caught:
            site.ping()
    assert caught.value.retryable


def test_a_site_that_comes_back_is_used_again(lab: LabHandle, site: VsphereSite) -> None:
    vm = site.find("off")
    lab.control.post(f"/sites/{SITE}/down")
    with pytest.raises(SiteUnreachable):
        site.read([vm])
    lab.control.post(f"/sites/{SITE}/up")
    assert site.read([vm])[0].identity == vm


def test_reads_and_mutations_outlive_an_expired_session(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    for act in (
        lambda: site.read([vm])[0].power is PowerState.OFF,
        lambda: site.find("on"),
        lambda: site.power_mark(vm),
        lambda: site.missing_privileges([vm], ["System.Read"]) == {vm.moref: ()},
        lambda: site.power_on(vm, beats) is None,
        lambda: site.create_snapshot(vm, "failback/r/x", "r", beats),
        lambda: site.set_attribute(vm, "failback.state", "x", beats) is None,
    ):
        lab.control.post(f"/sites/{SITE}/expire-sessions")
        assert act()
    assert len(site.read([vm])[0].snapshots) == 1


def test_a_mutation_refused_for_its_session_is_sent_again(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    fault = lab.control.fault("not-authenticated", method="CreateSnapshot_Task", count=1)
    site.create_snapshot(vm, "failback/r/x", "r", beats)
    assert lab.control.hits(fault) == 1
    assert len(site.read([vm])[0].snapshots) == 1


def test_eight_threads_renew_one_session_once(lab: LabHandle, site: VsphereSite) -> None:
    vm = site.find("off")
    lab.control.post(f"/sites/{SITE}/expire-sessions")
    before = lab.control.calls(SITE)["Login"]
    with ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda _: site.read([vm])[0], range(64)))
    assert {view.identity for view in views} == {vm}
    assert lab.control.calls(SITE)["Login"] - before <= 2


@pytest.mark.parametrize("kind", ["drop-before", "drop-after", "http-503"])
def test_a_read_is_asked_again(lab: LabHandle, site: VsphereSite, kind: str) -> None:
    vm = site.find("off")
    fault = lab.control.fault(kind, method="RetrievePropertiesEx", count=2)
    assert site.read([vm])[0].identity == vm
    assert lab.control.hits(fault) == 2


@pytest.mark.parametrize("kind", ["drop-after", "drop-before", "http-503"])
def test_a_mutation_is_sent_once_per_attempt(
    lab: LabHandle, site: VsphereSite, beats: Beats, kind: str
) -> None:
    vm = site.find("off")
    before = lab.control.calls(SITE).get("CreateSnapshot_Task", 0)
    lab.control.fault(kind, method="CreateSnapshot_Task", count=1)
    try:
        site.create_snapshot(vm, "failback/r/x", "r", beats)
        found = True
    except SiteUnreachable:
        found = False
    assert found is (kind == "drop-after")
    assert lab.control.calls(SITE)["CreateSnapshot_Task"] - before == 1
    assert len(site.read([vm])[0].snapshots) == found


def test_a_request_timeout_ends_a_call_that_hangs(lab: LabHandle, open_site: Open) -> None:
    site = open_site(request_timeout_s=0.3)
    vm = site.find("off")
    lab.control.fault("hold-before", method="RetrievePropertiesEx", count=0)
    with pytest.raises(SiteUnreachable):
        site.read([vm])
    lab.control.delete("/faults")


def test_the_beat_goes_on_while_a_call_hangs_and_a_lost_lease_ends_the_wait(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    lab.control.fault("hold-before", method="PowerOnVM_Task", count=0)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(site.power_on, vm, beats)
        while beats.count < 3:  # one before it is sent, two while it hangs
            assert not call.done()
            time.sleep(0.01)
        beats.error = LeaseLost("A newer attempt has taken over.")
        with pytest.raises(LeaseLost):
            call.result(timeout=5)
    lab.control.delete("/faults")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("NoPermission", PrivilegeMissing),
        ("FileLocked", SiteBusy),
        ("ResourceInUse", SiteBusy),
        ("MethodDisabled", SiteBusy),
        ("InsufficientResourcesFault", SiteBusy),
        ("HostNotConnected", SiteUnreachable),
        ("NoDiskSpace", OperationFailed),
        ("GenericVmConfigFault", OperationFailed),
        ("InvalidState", OperationFailed),
    ],
)
@pytest.mark.parametrize("kind", ["fault", "task-fault"])
def test_faults_become_our_errors(
    lab: LabHandle,
    site: VsphereSite,
    beats: Beats,
    fault: str,
    expected: type[FailbackError],
    kind: str,
) -> None:
    vm = site.find("off")
    lab.control.fault(kind, method="PowerOnVM_Task", fault=fault, count=0)
    with pytest.raises(expected, match="off") as caught:
        site.power_on(vm, beats)
    assert caught.value.evidence["fault"] == fault
    assert caught.value.remedy


def test_a_task_in_the_way_is_waited_for(lab: LabHandle, site: VsphereSite, beats: Beats) -> None:
    vm = site.find("off")
    lab.control.fault("fault", method="CreateSnapshot_Task", fault="TaskInProgress", count=2)
    assert site.create_snapshot(vm, "failback/r/x", "r", beats)
    lab.control.fault("fault", method="PowerOnVM_Task", fault="TaskInProgress", count=0)
    with pytest.raises(SiteBusy):
        site.power_on(vm, beats)


def test_a_running_task_of_an_earlier_attempt_is_joined(
    lab: LabHandle, site: VsphereSite, open_site: Open, beats: Beats
) -> None:
    vm = site.find("off")
    lab.control.fault("task-delay", method="CreateSnapshot_Task", seconds=1.5, count=1)
    begun, first = Beats(), open_site()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(first.create_snapshot, vm, "failback/r/x", "r", begun)
        while lab.control.calls(SITE).get("CreateSnapshot_Task", 0) == 0 or begun.count < 2:
            time.sleep(0.01)
        begun.error = LeaseLost("A newer attempt has taken over.")
        with pytest.raises(LeaseLost):
            call.result(timeout=10)
    assert site.create_snapshot(vm, "failback/r/x", "r", beats)
    assert lab.control.calls(SITE)["CreateSnapshot_Task"] == 1
    assert len(site.read([vm])[0].snapshots) == 1


def test_settle_waits_for_an_open_task(lab: LabHandle, site: VsphereSite, beats: Beats) -> None:
    vm = site.find("off")
    lab.control.fault("task-delay", method="PowerOnVM_Task", seconds=1.0, count=1)
    on = threading.Thread(target=site.power_on, args=(vm, Beats()))
    on.start()
    while lab.control.calls(SITE).get("PowerOnVM_Task", 0) == 0:
        time.sleep(0.01)
    with pytest.raises(SiteBusy, match="powerOn"):
        site.settle(vm, timedelta(0), beats)
    assert "powerOn" in site.settle(vm, timedelta(seconds=20), beats)
    on.join()
    assert site.read([vm])[0].power is PowerState.ON


def test_tasks_that_the_site_forgets_are_no_failure(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    fault = lab.control.fault("hold-after", method="PowerOnVM_Task", count=1, wait_task=True)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(site.power_on, vm, beats)
        while not lab.control.get(f"/faults/{fault}")["holding"]:
            time.sleep(0.01)
        lab.control.post(f"/sites/{SITE}/purge-tasks")
        lab.control.post(f"/faults/{fault}/release")
        call.result(timeout=20)
    assert site.read([vm])[0].power is PowerState.ON


def test_another_vcenter_under_the_same_settings_is_noticed(site: VsphereSite) -> None:
    vm: VmIdentity = site.find("off").model_copy(update={"vcenter_uuid": "another"})
    with pytest.raises(VmChanged, match="another vCenter"):
        site.read([vm])


def test_the_inventory_root_limits_what_is_found(open_site: Open) -> None:
    assert open_site(inventory_root="/DC0").find("off").name == "off"
    assert open_site(inventory_root="/DC0/vm").find("/DC0/vm/off").name == "off"
    outside = open_site(inventory_root="/DC0/host")
    for name in ("off", "/DC0/vm/off", open_site().find("off").moref):
        with pytest.raises(VmNotFound, match="below /DC0/host"):
            outside.find(name)
    with pytest.raises(SettingsInvalid, match="inventory_root"):
        open_site(inventory_root="/nowhere").find("off")


@pytest.mark.parametrize("page", [1, 2, 3])
def test_changed_areas_are_read_page_by_page(
    lab: LabHandle, site: VsphereSite, beats: Beats, page: int
) -> None:
    vm = site.find("on")
    site.set_change_tracking(vm, True, beats)
    site.create_snapshot(vm, "failback/1/a", "1", beats)
    base = site.snapshot_disks(vm, site.read([vm])[0].snapshots[0].moref)[0]
    for block in (0, 3, 4, 9, 15):
        lab.control.post(
            f"/sites/{SITE}/vms/on/guest/write", disk=0, offset=block * 65536, hex="ff"
        )
    second = site.create_snapshot(vm, "failback/1/b", "1", beats)
    lab.control.post(f"/sites/{SITE}/page-size", extents=page)
    areas = list(
        site.changed_areas(
            vm, second, site.snapshot_disks(vm, second)[0], base.change_id or "", beats
        )
    )
    assert areas == [(0, 65536), (3 * 65536, 131072), (9 * 65536, 65536), (15 * 65536, 65536)]


def test_a_name_that_two_vms_have_is_ambiguous(tmp_path: Path, beats: Beats) -> None:
    with (
        start_lab(WORLD, tmp_path, "--plain") as lab,
        VsphereSites([lab.connection(SITE)], QUICK) as sites,
    ):
        site = sites.site(SITE)
        first, second = site.find("off"), site.find("on")
        session = site._session
        # Names are unique within one folder only.
        parent = read_object(session, vm_ref(second), ("parent",)).get("parent")
        folder = session.mutate(parent, "CreateFolder", "sub", beat=beats)
        session.mutate(folder, "MoveIntoFolder_Task", [vm_ref(second)], beat=beats)
        site.settle(second, timedelta(seconds=10), beats)
        session.mutate(vm_ref(second), "Rename_Task", "off", beat=beats)
        while site.find(second.moref).name != "off":
            time.sleep(0.01)
        with pytest.raises(VmAmbiguous, match=f"{first.moref}.*{second.moref}"):
            site.find("off")
        assert site.find("/DC0/vm/off").moref == first.moref
        assert site.find("/DC0/vm/sub/off").moref == second.moref


def test_a_guest_shutdown_with_a_lost_reply_is_asked_once_more_at_most(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("on")
    lab.control.fault("drop-after", method="ShutdownGuest", count=1)
    with suppress(SiteUnreachable):
        site.shut_down_guest(vm, beats)
    while site.read([vm])[0].power is not PowerState.OFF:
        time.sleep(0.01)
    assert site.shut_down_guest(vm, beats) is False
    assert lab.control.calls(SITE)["ShutdownGuest"] == 1


def test_a_guest_without_tools_is_not_asked(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("on")
    lab.control.fault("fault", method="ShutdownGuest", fault="ToolsUnavailable", count=1)
    assert site.shut_down_guest(vm, beats) is False
    lab.control.fault("fault", method="ShutdownGuest", fault="GenericVmConfigFault", count=1)
    assert site.shut_down_guest(vm, beats) is False
    lab.control.fault("fault", method="ShutdownGuest", fault="NoPermission", count=1)
    with pytest.raises(PrivilegeMissing):
        site.shut_down_guest(vm, beats)
    lab.control.post(f"/sites/{SITE}/vms/on/guest/config", tools=False)
    assert site.shut_down_guest(vm, beats) is False
    assert site.read([vm])[0].power is PowerState.ON
