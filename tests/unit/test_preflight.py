"""Every check of preflight: a table of what is wrong and the code that says so."""

from __future__ import annotations

from typing import Any

import pytest

from failback.contracts.start import StartRequest
from failback.contracts.vm import Disk, DiskAddress, Snapshot, VmIdentity, VmView
from failback.contracts.words import PowerState, ReplicaState, Severity
from failback.preflight.checks import MAX_SNAPSHOTS, check
from failback.preflight.evidence import Evidence

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


SNAPSHOT = Snapshot(moref="snapshot-1", name="mine")
SMALL = (disk(0, "[production] a.vmdk", GIB // 2), disk(1, "[production] b.vmdk"))
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
        ("REPLICA_NEVER_RAN", {"replica_ever_ran": False}),
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
        ("FOREIGN_SNAPSHOTS", {"target": {"snapshots": (SNAPSHOT,)}}),
        ("CONSOLIDATION_NEEDED", {"target": {"consolidation_needed": True}}),
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


def test_morefs_and_names_of_two_vcenters_may_be_equal() -> None:
    same = evidence(target={"identity": identity("production", "vm-7")})

    assert check(same) == ()


def test_only_pairs_at_the_same_address_are_paired() -> None:
    pairs = evidence(target={"disks": (disk(1, "[p] b.vmdk"), disk(2, "[p] c.vmdk"))}).pairs()

    assert [str(pair.address) for pair in pairs] == ["scsi0:1"]
