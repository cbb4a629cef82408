"""The plan hash: what changes it, under which name, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from failback.contracts.placement import DatastoreView, PlacementView
from failback.contracts.vm import Nic, Snapshot, VmView
from failback.contracts.words import PowerState, ReplicaState
from failback.preflight.evidence import Evidence
from failback.preflight.plan_hash import PARTS, Known, changed, plan_hash, plan_kept
from tests.unit.test_preflight import disk, evidence, identity

STORE = DatastoreView(moref="d-1", name="fast", free_bytes=1 << 40, capacity_bytes=1 << 41)
NIC = Nic(key=4000, kind="vmxnet3", network="VM Network", mac="00:50:56:00:00:01")
BOTH = {"datastores": (STORE,), "nics": (NIC,), "cpus": 2, "memory_mb": 2048}


def known(**more: Any) -> Known:
    fields: dict[str, Any] = {"replica": BOTH, "target": BOTH, **more}
    return Known(evidence(**fields), identity("production", "vm-3"), ["nightly"])


def of_view(side: str, **change: Any) -> Callable[[Known], Known]:
    """One VM is different."""

    def altered(before: Known) -> Known:
        view: VmView = getattr(before.evidence, side)
        return of_evidence(**{side: view.model_copy(update=change)})(before)

    return altered


def of_evidence(**change: Any) -> Callable[[Known], Known]:
    return lambda before: replace(before, evidence=replace(before.evidence, **change))


def of_request(**change: Any) -> Callable[[Known], Known]:
    def altered(before: Known) -> Known:
        request = before.evidence.request.model_copy(update=change)
        return of_evidence(request=request)(before)

    return altered


def stores(**change: Any) -> tuple[DatastoreView, ...]:
    return (STORE.model_copy(update=change),)


A, B = disk(0, "[dr] a.vmdk"), disk(1, "[dr] b.vmdk")
T = disk(0, "[production] a.vmdk")
MINE = (Snapshot(moref="snapshot-1", name="mine"),)
PLACE = PlacementView(host="esx-1", datastores=(STORE,))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (of_request(verify_whole_disk=True), "the options of the run"),
        (of_evidence(state=ReplicaState.READY), "the catalog's record"),
        (of_evidence(running_jobs=("nightly",)), "the catalog's record"),
        (lambda k: replace(k, jobs=["nightly", "weekly"]), "the catalog's record"),
        (lambda k: replace(k, source=identity("production", "vm-9")), "the catalog's record"),
        (of_view("replica", identity=identity("dr", "vm-8")), "the VM replica itself"),
        (of_view("replica", vtpm=True), "the VM replica itself"),
        (of_view("replica", disks=(A,)), "the VM replica's disks"),
        (
            of_view("replica", disks=(A, B.model_copy(update={"capacity_bytes": 1}))),
            "the VM replica's disks",
        ),
        (of_view("replica", power=PowerState.OFF), "the VM replica's power state"),
        (of_view("replica", tools_running=False), "the VM replica's power state"),
        (of_view("replica", memory_mb=4096), "the VM replica's CPUs or memory"),
        (of_view("replica", nics=(NIC, NIC)), "the VM replica's network cards"),
        (of_view("target", hardware_version="vmx-19"), "the target VM itself"),
        (
            of_view("target", disks=(T.model_copy(update={"file": "[production] a-000001.vmdk"}),)),
            "the target VM's disks",
        ),
        (of_view("target", disks=(T.model_copy(update={"mode": "independent"}),)), "disks"),
        (of_view("target", snapshots=MINE), "the target VM's snapshots"),
        (of_view("target", power=PowerState.ON), "the target VM's power state"),
        (of_view("target", cpus=4), "the target VM's CPUs or memory"),
        (of_view("target", nics=()), "the target VM's network cards"),
        (of_view("replica", tracking_enabled=True), "change tracking"),
        (of_view("target", in_maintenance=True), "the datastores or hosts"),
        (of_view("target", datastores=stores(accessible=False)), "the datastores or hosts"),
        (of_evidence(old_source_unknown="away"), "the old source VM"),
        (of_evidence(placement=PLACE, new_name="home"), "the place of the new VM"),
    ],
)
def test_a_change_is_named(change: Callable[[Known], Known], part: str) -> None:
    before, after = plan_hash(known()), plan_hash(change(known()))

    (named,) = changed(before, after)
    assert part in named


@pytest.mark.parametrize(
    "change",
    [
        lambda k: k,
        of_evidence(now=datetime(2026, 1, 1, tzinfo=UTC)),
        of_request(by="ann", reason="tired", plan_hash="p1-something"),
        of_view("target", datastores=stores(free_bytes=1)),
        of_view("replica", host="another-host", booted_at=datetime(2026, 1, 1, tzinfo=UTC)),
        of_view("replica", disks=(A.model_copy(update={"change_id": "52 a/7"}), B)),
        # Somebody's backup has a snapshot of the running replica right now.
        of_view(
            "replica",
            disks=(A.model_copy(update={"file": "[dr] a-000001.vmdk"}), B),
            snapshots=MINE,
        ),
    ],
)
def test_what_moves_by_itself_changes_nothing(change: Callable[[Known], Known]) -> None:
    assert plan_hash(change(known())) == plan_hash(known())


def test_several_changes_are_all_named_and_the_hash_is_short() -> None:
    before = plan_hash(known())
    after = plan_hash(of_view("target", nics=(), cpus=8)(known()))

    assert len(changed(before, after)) == 2
    assert len(before) <= 128
    assert before == plan_hash(known())
    assert len({name for name, _ in PARTS}) == len(PARTS)


def with_hash(promised: str) -> Evidence:
    return evidence(request={"plan_hash": promised})


def test_a_start_refuses_and_names_what_changed() -> None:
    before, after = plan_hash(known()), plan_hash(of_view("target", snapshots=MINE)(known()))

    assert plan_kept(with_hash(""), after) == ()
    assert plan_kept(with_hash(after), after) == ()
    (finding,) = plan_kept(with_hash(before), after)
    assert finding.code == "PLAN_DRIFTED"
    assert finding.message.endswith("different now: the target VM's snapshots.")
    assert "failback plan web01" in finding.remedy


@pytest.mark.parametrize("cut", [lambda h: h[:-1], lambda h: "p0" + h[2:], lambda h: h.upper()])
def test_half_a_hash_is_none(cut: Callable[[str], str]) -> None:
    now = plan_hash(known())

    (finding,) = plan_kept(with_hash(cut(now)), now)
    assert finding.code == "PLAN_HASH_INVALID"
