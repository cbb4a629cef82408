"""What a real site does that a friendly one does not: questions, restarts, new morefs, hosts
without vCenter, old releases, denied privileges, merges that last; against the lab."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import (
    OperationFailed,
    OperationUnsupported,
    PrivilegeMissing,
    SettingsInvalid,
    SiteBusy,
    SiteUnreachable,
    TrackingUnusable,
    VmAmbiguous,
    VmChanged,
    VmNotFound,
)
from failback.hypervisor.vsphere.api import vim
from failback.hypervisor.vsphere.inventory import vm_ref
from failback.hypervisor.vsphere.session import KEPT_S, Session
from failback.hypervisor.vsphere.sites import VsphereSite, VsphereSites
from tests.contract.backends import Backend, Beats
from tests.contract.conftest import QUICK, SITE
from tests.helpers.lab import LabHandle

DEADLINE_S = 60


@pytest.fixture
def site(lab: LabHandle) -> Iterator[VsphereSite]:
    with VsphereSites([lab.connection(SITE)], QUICK) as sites:
        yield sites.site(SITE)


def on_vm(lab: LabHandle, vm: str, verb: str, **body: Any) -> Any:
    return lab.control.post(f"/sites/{SITE}/vms/{vm}/{verb}", **body)


def on_site(lab: LabHandle, verb: str, **body: Any) -> Any:
    return lab.control.post(f"/sites/{SITE}/{verb}", **body)


def until(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Questions


@pytest.mark.parametrize(
    "choices",
    [
        ["Cancel", "I Moved It", "I Copied It"],
        ["button.uuid.cancel", "button.uuid.movedTheVM", "button.uuid.copiedTheVM"],
        ["Abbrechen", "Verschoben", "Kopiert"],
    ],
)
def test_moved_or_copied_is_answered_in_any_language(
    lab: LabHandle, site: VsphereSite, beats: Beats, choices: list[str]
) -> None:
    vm = site.find("off")
    on_vm(lab, "off", "question", text="?", choices=choices)
    site.power_on(vm, beats)
    assert site.read([vm])[0].power is PowerState.ON
    assert lab.control.calls(SITE)["AnswerVM"] == 1


def test_another_question_is_named_with_its_choices_and_answered_by_id(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    on_vm(lab, "off", "question", message_id="msg.disk.odd", text="Odd?", choices=["No", "Yes"])
    with pytest.raises(OperationFailed, match=r"msg\.disk\.odd.*Odd\?.*0 No, 1 Yes") as caught:
        site.power_on(vm, beats)
    assert caught.value.evidence["message"] == "msg.disk.odd"
    assert not caught.value.retryable
    for wrong, match in ((("msg.other", "1"), "not msg.other"), (("msg.disk.odd", "7"), "0 No")):
        with pytest.raises(OperationFailed, match=match):
            site.answer_question(vm, *wrong, beats)
    assert "AnswerVM" not in lab.control.calls(SITE)
    assert site.answer_question(vm, "msg.disk.odd", "Yes", beats) is True
    # The power-on that asked is still running: it is joined, not sent again.
    site.power_on(vm, beats)
    assert site.read([vm])[0].power is PowerState.ON
    assert lab.control.calls(SITE)["PowerOnVM_Task"] == 1
    assert site.answer_question(vm, "msg.disk.odd", "Yes", beats) is False


@pytest.mark.parametrize("kind", ["drop-before", "drop-after"])
def test_an_answer_without_reply_is_looked_up(
    lab: LabHandle, site: VsphereSite, beats: Beats, kind: str
) -> None:
    vm = site.find("off")
    on_vm(lab, "off", "question", message_id="msg.disk.odd", text="Odd?", choices=["No", "Yes"])
    with pytest.raises(OperationFailed):
        site.power_on(vm, beats)
    lab.control.fault(kind, method="AnswerVM", count=1)
    with suppress(SiteUnreachable):
        site.answer_question(vm, "msg.disk.odd", "1", beats)
    site.answer_question(vm, "msg.disk.odd", "1", beats)
    site.power_on(vm, beats)
    assert site.read([vm])[0].power is PowerState.ON


def test_no_question_no_answer(backend: Backend, beats: Beats) -> None:
    assert backend.site.answer_question(backend.off, "msg.uuid.altered", "1", beats) is False
    assert beats.count == 0


# Finding again


def offers_search(backend: Backend) -> bool:
    try:
        backend.site.find_again(backend.off)
        offered = True
    except OperationUnsupported:
        offered = False
    backend.rule("a VM can be found by uuid", offered)
    return offered


def test_a_vm_that_stayed_is_found_again(backend: Backend) -> None:
    if not offers_search(backend):
        return
    assert backend.site.find_again(backend.off) == backend.off
    elsewhere = backend.off.model_copy(update={"moref": "vm-424242"})
    assert backend.site.find_again(elsewhere) == backend.off
    # Two of three tell: another VM may have taken the instance UUID.
    taken = backend.off.model_copy(update={"instance_uuid": "50000000-0000-0000-0000-000000000000"})
    assert backend.site.find_again(taken) == backend.off


def test_a_vm_that_is_nowhere_is_not_found(backend: Backend) -> None:
    if not offers_search(backend):
        return
    nowhere = {"instance_uuid": "50000000-0000-0000-0000-000000000000"}
    other = {"bios_uuid": "42000000-0000-0000-0000-000000000000", **nowhere}
    with pytest.raises(VmNotFound, match="off"):
        backend.site.find_again(backend.off.model_copy(update=other))


def test_a_vm_registered_anew_has_another_moref(lab: LabHandle, site: VsphereSite) -> None:
    vm = site.find("off")
    on_vm(lab, "off", "reregister")
    with pytest.raises((VmNotFound, VmChanged)):
        site.read([vm])
    again = site.find_again(vm)
    assert again.moref != vm.moref
    assert (again.bios_uuid, again.path) == (vm.bios_uuid, vm.path)
    assert site.read([again])[0].identity == again


def test_a_uuid_that_another_vm_bears_proves_nothing(site: VsphereSite) -> None:
    off, on = site.find("off"), site.find("on")
    with pytest.raises(VmChanged, match="another VM"):
        site.find_again(off.model_copy(update={"instance_uuid": on.instance_uuid, "path": "gone"}))
    # Instance UUID and BIOS UUID of one VM, BIOS UUID and path of the other.
    both = {"instance_uuid": on.instance_uuid, "path": on.path}
    assert site.find_again(off.model_copy(update=both)) == on


def test_two_vms_that_fit_are_ambiguous(lab: LabHandle, site: VsphereSite, beats: Beats) -> None:
    off, on = site.find("off"), site.find("on")
    session = site._session
    # A copy has the BIOS UUID of what it was copied from.
    spec = vim.vm.ConfigSpec(uuid=off.bios_uuid)
    session.mutate(vm_ref(on), "ReconfigVM_Task", spec, beat=beats)
    until(lambda: site.find("on").bios_uuid == off.bios_uuid)
    with pytest.raises(VmAmbiguous, match="on "):
        site.find_again(off.model_copy(update={"instance_uuid": on.instance_uuid}))


# What the site is


def test_a_site_says_what_it_is(backend: Backend) -> None:
    about = backend.site.about()
    assert about.vcenter
    assert about.uuid
    assert about.product
    assert about.api_version.split(".")[0].isdigit()


@pytest.mark.parametrize(("version", "supported"), [("6.5", False), ("6.7.3", True), ("9.0", True)])
def test_old_releases_are_refused_by_name(
    lab: LabHandle, site: VsphereSite, version: str, supported: bool
) -> None:
    on_site(lab, "about", api_version=version)
    if supported:
        assert site.about().api_version == version
        return
    with pytest.raises(OperationUnsupported, match=r"API 6\.5, which is too old: API 6\.7 to 9"):
        site.ping()


def test_a_host_without_vcenter_works(lab: LabHandle, site: VsphereSite, beats: Beats) -> None:
    before = site.find("off")
    on_site(lab, "about", host=True)
    assert "ESXi" in site.ping()
    about = site.about()
    assert not about.vcenter
    assert about.uuid.startswith("host:")
    vm = site.find("off")
    assert vm.vcenter_uuid == about.uuid
    # What was registered through the vCenter is not taken for the same.
    with pytest.raises(VmChanged, match="another vCenter"):
        site.read([before])
    # There are no custom attributes: the mark is in the VM's file.
    assert site.get_attribute(vm, "failback.state") == ""
    for value in ("incomplete run-1", ""):
        site.set_attribute(vm, "failback.state", value, beats)
        site.set_attribute(vm, "failback.state", value, beats)
        assert site.get_attribute(vm, "failback.state") == value
    assert lab.control.calls(SITE)["ReconfigVM_Task"] == 2
    snapshot = site.create_snapshot(vm, "failback/r/x", "r", beats)
    site.power_on(vm, beats)
    site.revert_to_snapshot(vm, snapshot, "r", beats)
    assert site.remove_snapshot(vm, "failback/r/x", "r", beats)
    # Its events cannot be asked for here: doubt, never a guess.
    assert site.power_mark(vm) is None


def test_records_of_a_host_by_its_sites_name_stay_good(lab: LabHandle, site: VsphereSite) -> None:
    on_site(lab, "about", host=True)
    vm = site.find("off").model_copy(update={"vcenter_uuid": f"host:{SITE}"})
    assert site.read([vm])[0].power is PowerState.OFF


@pytest.mark.parametrize("fault", ["NotSupported", "MethodNotFound"])
def test_a_host_that_tells_no_privileges_is_no_dead_end(
    lab: LabHandle, site: VsphereSite, fault: str
) -> None:
    vm = site.find("off")
    lab.control.fault("fault", method="HasPrivilegeOnEntities", fault=fault, count=1)
    assert site.missing_privileges([vm], ["VirtualMachine.Interact.PowerOn"]) == {vm.moref: ()}


# Privileges


def test_missing_privileges_are_told_for_many_vms_at_once_and_named_on_use(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    off, on = site.find("off"), site.find("on")
    lacking = "VirtualMachine.Interact.PowerOn"
    on_site(lab, "deny", privileges=[lacking])
    before = lab.control.calls(SITE).get("HasPrivilegeOnEntities", 0)
    asked = [lacking, "VirtualMachine.State.CreateSnapshot"]
    assert site.missing_privileges([off, on], asked) == {
        off.moref: (lacking,),
        on.moref: (lacking,),
    }
    assert lab.control.calls(SITE)["HasPrivilegeOnEntities"] - before == 1
    with pytest.raises(PrivilegeMissing, match=f"lacks {lacking} on {off.moref}") as caught:
        site.power_on(off, beats)
    assert lacking in caught.value.remedy


# Sessions


def test_a_vcenter_that_restarts_is_used_again(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    snapshot = site.create_snapshot(vm, "failback/r/x", "r", beats)
    on_site(lab, "restart")
    assert site.create_snapshot(vm, "failback/r/x", "r", beats) == snapshot
    site.power_on(vm, beats)
    assert site.read([vm])[0].power is PowerState.ON


def test_a_restart_in_the_middle_of_a_task_is_looked_up(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    lab.control.fault("task-delay", method="CreateSnapshot_Task", seconds=0.5, count=1)
    with ThreadPoolExecutor(1) as pool:
        call: Future[str] = pool.submit(site.create_snapshot, vm, "failback/r/x", "r", beats)
        until(lambda: lab.control.calls(SITE).get("CreateSnapshot_Task"))
        on_site(lab, "restart")
        with suppress(SiteUnreachable, SiteBusy):
            call.result(timeout=DEADLINE_S)
    until(lambda: site.read([vm])[0].snapshots)
    assert site.create_snapshot(vm, "failback/r/x", "r", beats)
    assert len(site.read([vm])[0].snapshots) == 1


def test_an_idle_session_gets_a_sign_of_life(lab: LabHandle) -> None:
    now = 0.0
    session = Session(lab.connection(SITE), clock=lambda: now)
    assert session.keep_alive() is False  # nobody is logged in: nothing to keep
    session.login()
    for passed, sent in ((KEPT_S - 1, False), (1, True), (KEPT_S - 1, False)):
        now += passed
        assert session.keep_alive() is sent
    assert lab.control.calls(SITE)["CurrentTime"] == 1
    on_site(lab, "expire-sessions")
    now += KEPT_S
    # Too late: the login is renewed.
    assert session.keep_alive() is True
    assert lab.control.calls(SITE)["Login"] == 2
    session.close()


# Power


@pytest.mark.parametrize("kind", ["fault", "task-fault"])
@pytest.mark.parametrize("fault", ["FileLocked", "MethodDisabled"])
def test_what_somebody_holds_for_a_moment_is_waited_for(
    lab: LabHandle, site: VsphereSite, beats: Beats, kind: str, fault: str
) -> None:
    vm = site.find("off")
    rule = lab.control.fault(kind, method="PowerOnVM_Task", fault=fault, count=2)
    site.power_on(vm, beats)
    assert lab.control.hits(rule) == 2
    assert site.read([vm])[0].power is PowerState.ON


def test_a_disk_that_stays_locked_ends_the_wait(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    on_vm(lab, "off", "lock", disk=0, locked=True)
    with pytest.raises(SiteBusy, match="FileLocked") as caught:
        site.power_on(vm, beats)
    assert caught.value.retryable
    on_vm(lab, "off", "lock", disk=0, locked=False)
    site.power_on(vm, beats)


def test_a_guest_that_ignores_the_request_stays_on(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("on")
    on_vm(lab, "on", "guest/config", ignore_shutdown=True)
    assert site.shut_down_guest(vm, beats) is True
    assert site.read([vm])[0].power is PowerState.ON
    site.power_off(vm, beats)
    assert site.read([vm])[0].power is PowerState.OFF


# Snapshots and reconfiguration


def test_a_snapshot_waits_for_the_removal_before_it(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    site.create_snapshot(vm, "failback/r/1", "r", beats)
    lab.control.fault("task-delay", method="RemoveSnapshot_Task", seconds=1.0, count=1)
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(site.remove_snapshot, vm, "failback/r/1", "r", Beats())
        until(lambda: lab.control.calls(SITE).get("RemoveSnapshot_Task"))
        made = site.create_snapshot(vm, "failback/r/2", "r", beats)
        assert removal.result(timeout=DEADLINE_S) is True
    # It was sent once, after the merge, and never refused.
    assert lab.control.calls(SITE)["CreateSnapshot_Task"] == 2
    assert [s.moref for s in site.read([vm])[0].snapshots] == [made]


def test_a_chain_that_is_too_deep_is_a_sentence(
    lab: LabHandle, site: VsphereSite, beats: Beats
) -> None:
    vm = site.find("off")
    lab.control.fault("task-fault", method="CreateSnapshot_Task", fault="TooManySnapshotLevels")
    with pytest.raises(OperationFailed, match="TooManySnapshotLevels") as caught:
        site.create_snapshot(vm, "failback/r/x", "r", beats)
    assert "Remove older snapshots" in caught.value.remedy
    assert lab.control.calls(SITE)["CreateSnapshot_Task"] == 1


def test_disks_left_to_merge_are_seen_in_the_view(lab: LabHandle, site: VsphereSite) -> None:
    vm = site.find("off")
    assert not site.read([vm])[0].consolidation_needed
    on_vm(lab, "off", "condition", consolidation_needed=True)
    assert site.read([vm])[0].consolidation_needed


@pytest.mark.parametrize("kind", ["fault", "task-fault"])
def test_a_vm_changed_meanwhile_is_read_again(
    lab: LabHandle, site: VsphereSite, beats: Beats, kind: str
) -> None:
    vm = site.find("off")
    rule = lab.control.fault(kind, method="ReconfigVM_Task", fault="ConcurrentAccess", count=2)
    assert site.set_change_tracking(vm, True, beats) is True
    assert lab.control.hits(rule) == 2
    assert lab.control.calls(SITE)["ReconfigVM_Task"] == 3
    assert site.read([vm])[0].tracking_enabled


@pytest.mark.parametrize("fault", ["FileFault", "MethodNotFound", "InvalidArgument", "NotFound"])
def test_changes_that_cannot_be_asked_for_are_compared_instead(
    lab: LabHandle, site: VsphereSite, beats: Beats, fault: str
) -> None:
    vm: VmIdentity = site.find("off")
    site.set_change_tracking(vm, True, beats)
    first = site.create_snapshot(vm, "failback/r/1", "r", beats)
    disk = site.snapshot_disks(vm, first)[0]
    second = site.create_snapshot(vm, "failback/r/2", "r", beats)
    now = site.snapshot_disks(vm, second)[0]
    lab.control.fault("fault", method="QueryChangedDiskAreas", fault=fault, count=1)
    with pytest.raises(TrackingUnusable, match=fault):
        list(site.changed_areas(vm, second, now, disk.change_id or "", beats))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("HostNotReachable", SiteUnreachable),
        ("HostCommunication", SiteUnreachable),
        ("InvalidHostState", OperationFailed),
        ("InvalidDatastoreState", OperationFailed),
        ("InaccessibleDatastore", OperationFailed),
        ("RestrictedVersion", OperationUnsupported),
        ("HostAccessRestrictedToManagementServer", OperationUnsupported),
    ],
)
def test_faults_of_hosts_and_datastores_say_what_to_do(
    lab: LabHandle, site: VsphereSite, beats: Beats, fault: str, expected: type[Exception]
) -> None:
    vm = site.find("off")
    lab.control.fault("fault", method="CreateSnapshot_Task", fault=fault, count=0)
    with pytest.raises(expected, match=fault):
        site.create_snapshot(vm, "failback/r/x", "r", beats)


def test_the_inventory_root_is_looked_at_when_the_site_is_asked_who_it_is(
    lab: LabHandle, tmp_path: Path
) -> None:
    with (
        VsphereSites([lab.connection(SITE, inventory_root="/nowhere")], QUICK) as sites,
        pytest.raises(SettingsInvalid, match=r"has no inventory object /nowhere.*inventory_root"),
    ):
        sites.site(SITE).ping()
