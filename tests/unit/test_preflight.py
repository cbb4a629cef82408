"""Every check of preflight: a table of what is wrong and the code that says so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.placement import DatastoreView, Misplaced, PlacementView
from failback.contracts.start import DiskMapping, NewVm, StartRequest
from failback.contracts.vm import Disk, DiskAddress, Nic, Snapshot, VmIdentity, VmView
from failback.contracts.words import PowerState, ReplicaState, Severity
from failback.preflight.carry import carried
from failback.preflight.checks import CHECKS, check
from failback.preflight.checks.places import needs, tight
from failback.preflight.checks.vms import MAX_SNAPSHOTS
from failback.preflight.evidence import Evidence
from failback.preflight.forecast import disks

GIB = 1024**3


def identity(site: str, moref: str) -> VmIdentity:
    return VmIdentity(
        site=site,
        vcenter_uuid=f"uuid-{site}",
        moref=moref,
        name=f"web01-{site}",
        instance_uuid=f"i-{moref}",
        bios_uuid=f"b-{moref}",
        path=f"/DC0/vm/web01-{site}",
    )


def disk(unit: int, file: str, capacity: int = GIB, **more: Any) -> Disk:
    return Disk(
        key=2000 + unit,
        address=DiskAddress(controller="scsi", bus=0, unit=unit),
        file=file,
        capacity_bytes=capacity,
        **more,
    )


def view(site: str, moref: str, **more: Any) -> VmView:
    fields: dict[str, Any] = {
        "identity": identity(site, moref),
        "power": PowerState.ON if site == "dr" else PowerState.OFF,
        "tools_running": True,
        "disks": (disk(0, f"[{site}] a.vmdk"), disk(1, f"[{site}] b.vmdk")),
    }
    return VmView(**{**fields, **more})


def evidence(
    replica: dict[str, Any] | None = None,
    target: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    **more: Any,
) -> Evidence:
    return Evidence(
        request=StartRequest(replica="web01", **(request or {})),
        state=more.pop("state", ReplicaState.FAILOVER),
        replica=view("dr", "vm-7", **(replica or {})),
        target=view("production", "vm-3", **(target or {})),
        **more,
    )


def test_a_healthy_pair_has_no_findings() -> None:
    assert check(evidence()) == ()


NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ONE_STORE: dict[str, Any] = {
    "datastores": (
        DatastoreView(moref="d-1", name="nfs", url="ds:///vmfs/volumes/one/", free_bytes=1 << 60),
    )
}


def mapping(replica: str, target: str) -> DiskMapping:
    return DiskMapping(replica=replica, target=target)


def stored(**more: Any) -> dict[str, Any]:
    """A VM whose two disks of 1 GiB lie on one datastore."""
    fields: dict[str, Any] = {"moref": "d-1", "name": "fast", "free_bytes": 1 << 40, **more}
    return {
        "datastores": (DatastoreView(**fields),),
        "disks": tuple(disk(unit, f"[fast] {unit}.vmdk", datastore="d-1") for unit in (0, 1)),
    }


def missing(kind: str, name: str) -> PlacementView:
    return PlacementView(missing=(Misplaced(kind=kind, name=name, candidates=("a", "b")),))


SNAPSHOT = Snapshot(moref="snapshot-1", name="mine")
SMALL = (disk(0, "[production] a.vmdk", GIB // 2), disk(1, "[production] b.vmdk"))
LINKED = (disk(0, "[dr] a.vmdk", linked=True), disk(1, "[dr] b.vmdk"))
SHIFTED = (disk(3, "[production] a.vmdk"),)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("REPLICA_STATE", {"state": ReplicaState.READY}),
        ("REPLICA_STATE", {"state": ReplicaState.FAILBACK}),
        ("JOB_RUNNING", {"running_jobs": ("nightly",)}),
        ("SAME_VM", {"target": {"identity": identity("dr", "vm-7")}}),
        (
            "SHARED_DISK_FILE",
            {"target": {"identity": identity("dr", "vm-9"), "disks": (disk(0, "[dr] a.vmdk"),)}},
        ),
        ("VM_TEMPLATE", {"target": {"is_template": True}}),
        ("VM_CONNECTION", {"target": {"connection_state": "orphaned"}}),
        ("FAULT_TOLERANCE", {"replica": {"fault_tolerant": True}}),
        ("HOST_MAINTENANCE", {"target": {"in_maintenance": True}}),
        ("VM_QUESTION", {"replica": {"question": "Copied or moved?"}}),
        ("SNAPSHOT_DEPTH", {"target": {"snapshots": (SNAPSHOT,) * MAX_SNAPSHOTS}}),
        ("REPLICA_WITHOUT_DISKS", {"replica": {"disks": ()}}),
        ("REPLICA_NEVER_RAN", {"replica": {"power": PowerState.OFF, "ever_ran": False}}),
        ("DISK_WITHOUT_PARTNER", {"target": {"disks": (disk(0, "[production] a.vmdk"),)}}),
        ("DISKS_DO_NOT_PAIR", {"target": {"disks": SHIFTED}}),
        ("TARGET_SMALLER", {"target": {"disks": SMALL}}),
        (
            "TARGET_SMALLER",
            {
                "target": {"disks": SMALL, "snapshots": (SNAPSHOT,)},
                "request": {"grow_target": True},
            },
        ),
        *(
            ("DISK_KIND", {"target": {"disks": (disk(0, "[p] a", refusals=(kind,)),)}})
            for kind in ("independent", "physical-rdm", "multi-writer", "encrypted")
        ),
        ("DISK_NOT_OPENABLE", {"unopenable": {"[dr] a.vmdk": "no such datastore"}}),
        ("PRIVILEGE_MISSING", {"missing_privileges": {"web01": ("VirtualMachine.X",)}}),
        ("TARGET_RUNS", {"target": {"power": PowerState.ON}}),
        ("VM_SUSPENDED", {"replica": {"power": PowerState.SUSPENDED}}),
        (
            "SHARED_DISK_FILE",
            {
                "replica": {"disks": (disk(0, "[nfs] x/a.vmdk", datastore="d-1"),), **ONE_STORE},
                "target": {"disks": (disk(0, "[other] x/a.vmdk", datastore="d-1"),), **ONE_STORE},
            },
        ),
        ("DISK_MAP", {"request": {"disk_map": (mapping("scsi0:0", "scsi0:7"),)}}),
        ("DISK_MAP", {"request": {"disk_map": (mapping("scsi0:7", "scsi0:0"),)}}),
        (
            "DISK_MAP",
            {"request": {"disk_map": tuple(mapping(f"scsi0:{n}", "scsi0:0") for n in (0, 1))}},
        ),
        # A target disk that is mapped to is no partner for the disk at its address any more.
        (
            "DISK_WITHOUT_PARTNER",
            {"request": {"disk_map": (mapping("scsi0:0", "scsi0:1"),)}},
        ),
        ("DISK_MISMATCH", {"labels": {"scsi0:1": ("GPT a", "GPT b")}}),
        ("SCHEDULE_PAST", {"now": NOON, "switch_at": NOON - timedelta(minutes=1)}),
        ("DATASTORE_MAINTENANCE", {"target": stored(in_maintenance=True)}),
        ("DATASTORE_INACCESSIBLE", {"replica": stored(accessible=False)}),
        ("NO_ROOM", {"target": stored(free_bytes=GIB // 4)}),
        ("NO_ROOM", {"replica": stored(free_bytes=GIB // 4)}),
        (
            "NO_ROOM",
            {
                "target": stored(free_bytes=GIB // 2),
                "tracked_bytes": {"scsi0:0": GIB // 2, "scsi0:1": 4096},
            },
        ),
        ("PLACEMENT_MISSING", {"placement": missing("folder", "old")}),
        ("PLACEMENT_MISSING", {"placement": missing("cluster", "")}),
        ("NETWORK_MISSING", {"placement": missing("network", "VLAN 7")}),
        ("HOST_MAINTENANCE", {"placement": PlacementView(host="h1", host_in_maintenance=True)}),
        ("NAME_TAKEN", {"placement": PlacementView(taken_by="vm-9"), "new_name": "web01"}),
    ],
)
def test_what_is_wrong_is_refused_with_object_and_remedy(code: str, wrong: dict[str, Any]) -> None:
    findings = [f for f in check(evidence(**wrong)) if f.severity is Severity.REFUSE]

    match = [finding for finding in findings if finding.code == code]
    assert match, findings
    assert all(f.object and f.message.endswith((".", "!", "?", "e")) and f.remedy for f in match)


@pytest.mark.parametrize(
    ("code", "odd"),
    [
        ("TOOLS_NOT_RUNNING", {"replica": {"tools_running": False}}),
        ("POWER_ONS_UNREADABLE", {"power_ons_unread": (identity("production", "vm-3"),)}),
        ("POWER_ONS_UNREADABLE", {"power_ons_unread": (identity("dr", "vm-7"),)}),
        ("FOREIGN_SNAPSHOTS", {"target": {"snapshots": (SNAPSHOT,)}}),
        ("CONSOLIDATION_NEEDED", {"target": {"consolidation_needed": True}}),
        ("ROOM_SCARCE", {"target": stored(free_bytes=GIB)}),
        ("VTPM", {"replica": {"vtpm": True}}),
        ("PASSTHROUGH", {"target": {"passthrough": ("PCI device 0",)}}),
        ("LINKED_CLONE", {"replica": {"disks": LINKED}}),
        ("IN_VAPP", {"target": {"in_vapp": True}}),
        (
            "NETWORK_DRIFT",
            {"replica": {"nics": (Nic(key=4000, kind="vmxnet3", network="LAN"),)}},
        ),
        (
            "DISK_MISMATCH_ACCEPTED",
            {
                "labels": {"scsi0:1": ("GPT a", "MBR 1")},
                "request": {"accept_pair": ("scsi0:1",)},
            },
        ),
        ("TARGET_NOT_PROTECTED", {"request": {"protect_target": False}}),
        ("CONFIGURATION_DRIFT", {"replica": {"memory_mb": 4096}}),
        ("TARGET_GROWS", {"target": {"disks": SMALL}, "request": {"grow_target": True}}),
        ("TARGET_DISK_UNTOUCHED", {"replica": {"disks": (disk(0, "[dr] a.vmdk"),)}}),
        (
            "DISK_LEFT_BEHIND",
            {
                "target": {"disks": (disk(0, "[production] a.vmdk"),)},
                "request": {"leave_behind": ("scsi0:1",)},
            },
        ),
    ],
)
def test_what_is_odd_is_only_warned_about(code: str, odd: dict[str, Any]) -> None:
    findings = check(evidence(**odd))

    assert [finding.code for finding in findings] == [code]
    assert findings[0].severity is Severity.WARN


@pytest.mark.parametrize(
    ("odd", "request_"),
    [
        ({"target": {"power": PowerState.ON}}, {"accept_target_overwrite": True}),
        ({"replica": {"power": PowerState.SUSPENDED}}, {"accept_suspended": True}),
    ],
)
def test_consent_lifts_the_refusal(odd: dict[str, Any], request_: dict[str, Any]) -> None:
    assert check(evidence(**odd, request=request_)) == ()


MORE: dict[str, Any] = {"cpus": 4, "memory_mb": 4096}
LESS: dict[str, Any] = {"cpus": 2, "memory_mb": 2048}


def card(number: int, network: str = "VM Network", kind: str = "vmxnet3") -> Nic:
    return Nic(key=4000 + number, kind=kind, network=network)


def carrying(*kinds: str, **more: Any) -> dict[str, Any]:
    return {"request": {"carry_over": kinds, **more}}


CARRY = ("cpu", "memory", "nics", "disks")
ON_NVME = disk(7, "[dr] n.vmdk").model_copy(
    update={"address": DiskAddress(controller="nvme", bus=0, unit=7)}
)
ONE = (disk(0, "[fast] web/a.vmdk", datastore="d-1"),)


@pytest.mark.parametrize(
    ("odd", "codes"),
    [
        ({"replica": MORE, "target": LESS}, ["CONFIGURATION_DRIFT"]),
        (
            {"replica": MORE, "target": LESS, **carrying("cpu")},
            ["CONFIGURATION_DRIFT", "CARRIED_OVER"],
        ),
        ({"replica": MORE, "target": LESS, **carrying("cpu", "memory")}, ["CARRIED_OVER"]),
        # A target that is larger than the replica keeps what it has.
        (
            {"replica": LESS, "target": MORE, **carrying("cpu")},
            ["CONFIGURATION_DRIFT", "CARRY_OVER_NOTHING"],
        ),
        (carrying("disks"), ["CARRY_OVER_NOTHING"]),
        ({"replica": {"nics": (card(0),)}, **carrying("nics")}, ["CARRIED_OVER"]),
        (
            {"replica": {"nics": (card(0, kind="sriov"),)}, **carrying("nics")},
            ["CARRY_OVER_UNSUPPORTED", "CARRIED_OVER"],
        ),
        (
            {"replica": {"nics": (card(0),)}, **carrying("nics", protect_target=False)},
            ["CARRY_OVER_UNSUPPORTED", "TARGET_NOT_PROTECTED", "CARRIED_OVER"],
        ),
        (
            {
                "replica": {"nics": (card(0),)},
                "lacking_networks": (Misplaced(kind="network", name="VM Network"),),
                **carrying("nics"),
            },
            ["NETWORK_MISSING", "CARRIED_OVER"],
        ),
        (
            {"target": {"disks": (disk(0, "[production] a.vmdk"),)}, **carrying("disks")},
            ["CARRIED_OVER"],
        ),
        (
            {"target": {"disks": (disk(0, "[production] a.vmdk"),)}, **carrying("cpu")},
            ["DISK_WITHOUT_PARTNER", "CARRY_OVER_NOTHING"],
        ),
        # The second disk's place is taken by the partner of the first.
        (
            {
                "target": {"disks": (disk(1, "[production] b.vmdk"),)},
                **carrying("disks", disk_map=(mapping("scsi0:0", "scsi0:1"),)),
            },
            ["CARRY_OVER_UNSUPPORTED", "CARRIED_OVER"],
        ),
        (
            {"replica": {"disks": (disk(0, "[dr] a.vmdk"), ON_NVME)}, **carrying("disks")},
            ["CARRY_OVER_UNSUPPORTED", "TARGET_DISK_UNTOUCHED", "CARRIED_OVER"],
        ),
        (
            {"target": {**stored(free_bytes=1), "disks": ONE}, **carrying("disks")},
            ["NO_ROOM", "CARRIED_OVER"],
        ),
        ({"target": {"disks": SMALL}, **carrying("disks")}, ["TARGET_GROWS"]),
    ],
)
def test_what_was_added_to_the_replica_is_carried_over_only_when_asked(
    odd: dict[str, Any], codes: list[str]
) -> None:
    assert [finding.code for finding in check(evidence(**odd))] == codes


def test_what_is_carried_over_is_more_and_never_less() -> None:
    replica = {"cpus": 4, "memory_mb": 1024, "nics": (card(2, "dr-lan"), card(0))}
    target = {"cpus": 2, "memory_mb": 2048, "nics": (card(0),)}
    networks = {"placement": {"networks": [{"replica": "dr-lan", "target": "lan"}]}}
    carry = carried(
        evidence(replica, target, {"carry_over": CARRY, "new_vm": NewVm.model_validate(networks)})
    )

    assert carry is not None
    assert (carry.cpus, carry.cpus_before) == (4, 2)
    assert (carry.memory_mb, carry.memory_mb_before) == (2048, 2048)
    assert [(nic.key, nic.network) for nic in carry.nics] == [(4002, "lan")]
    assert carry.nic_keys_before == (4000,)
    assert carry.disks == ()
    assert carried(evidence(replica, target)) is None


def test_a_carried_disk_needs_room_and_is_forecast_whole() -> None:
    e = evidence(target={**stored(), "disks": ONE}, request={"carry_over": ("disks",)})

    assert [(need, worst) for _, need, worst in needs(e)] == [(GIB + GIB // 5, 2 * GIB)]
    assert [(one.address, one.expected_bytes) for one in disks(e)][1] == ("scsi0:1", GIB)
    (added,) = (carried(e) or pytest.fail("nothing is carried")).disks
    assert (str(added.address), added.replica_key, added.folder) == ("scsi0:1", 2001, "[fast] web")


def test_morefs_and_names_of_two_vcenters_may_be_equal() -> None:
    same = evidence(target={"identity": identity("production", "vm-7")})

    assert check(same) == ()


def test_only_pairs_at_the_same_address_are_paired() -> None:
    pairs = evidence(target={"disks": (disk(1, "[p] b.vmdk"), disk(2, "[p] c.vmdk"))}).pairs()

    assert [str(pair.address) for pair in pairs] == ["scsi0:1"]


def test_a_mapped_disk_goes_to_the_disk_it_is_mapped_to() -> None:
    swapped = (mapping("scsi0:0", "scsi0:1"), mapping("scsi0:1", "scsi0:0"))
    e = evidence(request={"disk_map": swapped})

    assert [(str(p.address), p.replica_key, p.target_key) for p in e.pairs()] == [
        ("scsi0:0", 2000, 2001),
        ("scsi0:1", 2001, 2000),
    ]
    assert check(e) == ()


def test_an_accepted_pair_says_so_to_the_movers() -> None:
    pairs = evidence(request={"accept_pair": ("scsi0:1",)}).pairs()

    assert [pair.accepted for pair in pairs] == [False, True]


def test_room_is_summed_per_datastore_and_tells_the_worst_case() -> None:
    e = evidence(target=stored(free_bytes=GIB // 4), request={"expected_change_percent": 50})

    ((store, expected, worst),) = needs(e)
    assert (store.name, expected, worst) == ("fast", GIB, 2 * GIB)
    (finding,) = [f for f in check(e) if f.code == "NO_ROOM"]
    assert "about 1.0 GiB are needed (50 % of its disks" in finding.message
    assert "at worst 2.0 GiB" in finding.message
    assert "has 256.0 MiB free" in finding.message
    assert tight(e) == (("production", store),)
    assert tight(evidence(target=stored())) == ()


def test_every_check_is_registered_once() -> None:
    assert len(set(CHECKS)) == len(CHECKS) > 30


def test_the_guide_names_every_code_and_no_other() -> None:
    root = Path(__file__).parents[2]
    code = re.compile(r'(?:refuse|warn)\(\s*"([A-Z_]+)"')
    sources = (root / "failback" / "preflight").rglob("*.py")
    raised = {found for path in sources for found in code.findall(path.read_text())}
    raised |= {"PLACEMENT_MISSING", "NETWORK_MISSING"}  # chosen by kind
    errors = {
        "DOWNTIME_OVER_BUDGET",  # workflows/planned.py
        "REPLICA_UNKNOWN",
        "OPERATION_UNSUPPORTED",
        "VM_NOT_FOUND",
        "VM_CHANGED",
        "VM_AMBIGUOUS",
        "CLAIM_HELD",
        "SITE_UNREACHABLE",
        "SITE_BUSY",
        "CATALOG_UNAVAILABLE",
    }
    guide = (root / "docs" / "preflight.md").read_text()
    cells = re.findall(r"^\| ([A-Z_, ]+) \|", guide, flags=re.MULTILINE)
    told = {one for cell in cells for one in cell.split(", ")}

    assert len(raised) > 40
    assert told == raised | errors
