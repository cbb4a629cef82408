"""What real sites hold besides plain VMs: the driver sees it, and preflight says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.shell import VmShell
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity, VmView
from failback.contracts.words import ReplicaState
from failback.errors import OperationUnsupported
from failback.hypervisor.vsphere.sites import VsphereSite, VsphereSites
from failback.preflight.checks import check
from failback.preflight.collect import Ask, collect
from tests.contract.backends import MIB, Beats
from tests.contract.conftest import QUICK, SITE
from tests.helpers.lab import LabHandle, start_lab


@pytest.fixture
def sites(lab: LabHandle) -> Iterator[VsphereSites]:
    with VsphereSites([lab.connection(SITE)], QUICK) as made:
        yield made


@pytest.fixture
def site(sites: VsphereSites) -> VsphereSite:
    return sites.site(SITE)


def view(site: VsphereSite, name: str = "off") -> VmView:
    return site.read([site.find(name)])[0]


def codes(sites: VsphereSites, site: VsphereSite) -> set[str]:
    """What preflight finds for replica `on` and target `off`, both of one site."""
    ask = Ask(StartRequest(replica="web"), ReplicaState.FAILOVER, site.find("on"), site.find("off"))
    (evidence,) = collect(sites, [ask], lambda: None)
    return {finding.code for finding in check(evidence)}


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({"template": True}, "VM_TEMPLATE"),
        ({"connection_state": "orphaned"}, "VM_CONNECTION"),
        ({"connection_state": "inaccessible"}, "VM_CONNECTION"),
        ({"consolidation_needed": True}, "CONSOLIDATION_NEEDED"),
        ({"fault_tolerance": True}, "FAULT_TOLERANCE"),
        ({"vtpm": True}, "VTPM"),
        ({"passthrough": True}, "PASSTHROUGH"),
        ({"disk_mode": "independent_persistent"}, "DISK_KIND"),
        ({"disk_mode": "independent_nonpersistent"}, "DISK_KIND"),
        ({"sharing": "sharingMultiWriter"}, "DISK_KIND"),
        ({"encrypted": True}, "DISK_KIND"),
        ({"rdm": "physicalMode"}, "DISK_KIND"),
        ({"linked_to": "[ds-one] gold/gold.vmdk"}, "LINKED_CLONE"),
    ],
)
def test_what_a_vm_is_like(
    lab: LabHandle, sites: VsphereSites, site: VsphereSite, condition: dict[str, Any], code: str
) -> None:
    before = codes(sites, site)
    assert code not in before

    lab.control.post(f"/sites/{SITE}/vms/off/condition", **condition)

    assert codes(sites, site) - before == {code}


def test_a_virtual_rdm_is_a_disk_like_others(
    lab: LabHandle, sites: VsphereSites, site: VsphereSite
) -> None:
    before = codes(sites, site)
    lab.control.post(f"/sites/{SITE}/vms/off/condition", rdm="virtualMode")
    assert codes(sites, site) == before


def test_maintenance(lab: LabHandle, sites: VsphereSites, site: VsphereSite) -> None:
    lab.control.post(f"/sites/{SITE}/host", maintenance=True)
    assert "HOST_MAINTENANCE" in codes(sites, site)
    lab.control.post(f"/sites/{SITE}/host", maintenance=False)
    for mode in ("enteringMaintenance", "inMaintenance"):
        lab.control.post(f"/sites/{SITE}/datastore", maintenance=mode)
        assert "DATASTORE_MAINTENANCE" in codes(sites, site)
        assert "HOST_MAINTENANCE" not in codes(sites, site)
    lab.control.post(f"/sites/{SITE}/datastore", maintenance="normal", accessible=False)
    assert "DATASTORE_INACCESSIBLE" in codes(sites, site)


def test_room_is_read_where_the_disks_are(
    lab: LabHandle, sites: VsphereSites, site: VsphereSite
) -> None:
    lab.control.post(f"/sites/{SITE}/datastore", free_bytes=1000)
    assert "NO_ROOM" in codes(sites, site)
    (store,) = view(site).datastores
    assert (store.name, store.free_bytes) == ("ds-one", 1000)
    assert {disk.datastore for disk in view(site).disks} == {store.moref}
    assert all((disk.stored_bytes or 0) > 0 for disk in view(site).disks)


def test_a_role_that_is_not_enough(lab: LabHandle, sites: VsphereSites, site: VsphereSite) -> None:
    lab.control.post(
        f"/sites/{SITE}/deny", privileges=["VirtualMachine.State.RevertToSnapshot", "Datastore.X"]
    )
    assert "PRIVILEGE_MISSING" in codes(sites, site)
    both = [site.find("on"), site.find("off")]
    asked = ["VirtualMachine.State.RevertToSnapshot", "VirtualMachine.Interact.PowerOn"]
    assert site.missing_privileges(both, asked) == {vm.moref: (asked[0],) for vm in both}


def test_an_old_release(lab: LabHandle, site: VsphereSite) -> None:
    lab.control.post(f"/sites/{SITE}/about", api_version="6.5")
    with pytest.raises(OperationUnsupported, match=r"API 6\.5, which is too old"):
        site.find("off")


def test_a_vm_with_another_reference_is_not_taken_for_the_old_one(
    lab: LabHandle, site: VsphereSite
) -> None:
    old: VmIdentity = site.find("off")
    lab.control.post(f"/sites/{SITE}/vms/off/reregister")
    new = site.find("off")
    assert (new.moref != old.moref, new.instance_uuid, new.path) == (
        True,
        old.instance_uuid,
        old.path,
    )


def test_a_vcenter_that_restarts(lab: LabHandle, site: VsphereSite, tmp_path: Path) -> None:
    before = view(site)
    lab.control.post(f"/sites/{SITE}/restart")
    assert view(site) == before


def test_the_boot_entries_of_an_efi_vm_go_to_the_other_site(tmp_path: Path, beats: Beats) -> None:
    world = {
        "sites": [
            {"name": "dr", "vms": [{"name": "web", "disks": [{"size_bytes": MIB}]}]},
            {"name": "production", "vms": []},
        ]
    }
    with (
        start_lab(world, tmp_path) as lab,
        VsphereSites((lab.connection(name) for name in lab.sites), QUICK) as both,
    ):
        dr, production = both.site("dr"), both.site("production")
        of = dr.configuration(dr.find("web")).model_copy(update={"firmware": "efi"})
        replica = dr.create_vm(VmShell(name="replica", configuration=of), "run-0", beats)
        entries = bytes(range(256)) * 256
        dr.write_nvram(replica, entries, "run-0", beats)

        made = production.create_vm(
            VmShell(name="web", configuration=dr.configuration(replica)), "run-1", beats
        )
        production.write_nvram(made, dr.read_nvram(replica), "run-1", beats)

        assert production.read_nvram(made) == entries
        assert production.read([made])[0].firmware == "efi"
        assert made.vcenter_uuid != replica.vcenter_uuid
        # A session that has ended is renewed before the file is asked for.
        lab.control.post("/sites/production/expire-sessions")
        assert production.read_nvram(made) == entries
