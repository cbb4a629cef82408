"""Preflight changes nothing but claims, and gives them back; drift and probes only read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import (
    CheckDrift,
    Preflight,
    PreflightResult,
    Probe,
    ProtectTarget,
    RunRef,
    TargetGuard,
)
from failback.contracts.placement import DatastoreView
from failback.contracts.policies import WorkloadProbe
from failback.contracts.start import StartRequest
from failback.contracts.words import Outcome, PowerState, ProbeKind, ReplicaState, StepName
from tests.activity.world import MIB, World, random_bytes, write_disk


def preflight(world: World, run_id: str = "run-1", **request: object) -> PreflightResult:
    argument = Preflight(
        run=RunRef(run_id=run_id, replica="web01"),
        step=StepName.PREFLIGHT,
        request=StartRequest.model_validate({"replica": "web01", **request}),
    )
    result: PreflightResult = world.run("preflight", argument, attempt=3)
    return result


@pytest.fixture
def mapped(world: World) -> World:
    """Disks that the mover can see."""
    for site, vm in ((world.production, world.target), (world.dr, world.replica)):
        for disk in site.vm(vm).disks:
            disk.file = write_disk(world.root / site.name, "disk0", random_bytes(1, MIB))
    return world


def test_a_healthy_pair_gets_a_plan_and_keeps_its_claims(mapped: World) -> None:
    first, second = preflight(mapped), preflight(mapped)

    assert first == second
    assert first.plan is not None
    assert [str(pair.address) for pair in first.plan.pairs] == ["scsi0:0"]
    assert first.plan.replica_power is PowerState.ON
    assert {claim.object.split(":")[0] for claim in mapped.catalog.claims()} == {"replica", "vm"}
    assert len(mapped.catalog.claims()) == 3


def test_tracking_that_an_earlier_cleanup_has_yet_to_give_back_is_not_lost(mapped: World) -> None:
    """The next run claims the target first; that cleanup waits for it and so cannot tell."""
    vm = mapped.production.vm(mapped.target)
    vm.track(True, 7)
    # Without a snapshot: the disks stay in the files that the mover sees.
    protect = ProtectTarget(**mapped.head(), target=mapped.target, pairs=(), snapshot=False)
    preflight(mapped)
    mapped.run("protect_target", protect)
    mapped.catalog.set_state(
        "run-1", "web01", ReplicaState.FAILBACK, allowed_from=(ReplicaState.FAILOVER,)
    )
    mapped.catalog.close_commit("run-1", "web01", None, datetime.now(UTC))
    mapped.catalog.mark_failover("web01")
    assert vm.tracking is False

    plan = preflight(mapped, "run-2").plan

    assert plan is not None and plan.target_tracking
    made = preflight(mapped, "run-2", destination="new", new_vm={"name": "home"}).plan
    assert made is not None and not made.target_tracking


def test_an_attempt_that_comes_late_does_not_open_again_what_a_newer_one_refused(
    mapped: World,
) -> None:
    mapped.production.vm(mapped.target).turn(PowerState.ON)
    argument = Preflight(
        run=RunRef(run_id="run-1", replica="web01"),
        step=StepName.PREFLIGHT,
        request=StartRequest(replica="web01"),
    )
    scheduling = {"activity_id": "2000001"}
    newer = mapped.run("preflight", argument, attempt=2, **scheduling)
    assert [finding.code for finding in newer.findings] == ["TARGET_RUNS"]

    with pytest.raises(ApplicationError, match="scheduled after"):
        mapped.run("preflight", argument, attempt=1, **scheduling)

    assert mapped.catalog.get_run("run-1").outcome is Outcome.REFUSED
    assert mapped.catalog.claims() == ()
    # The same one again, because its answer was lost, is another matter.
    again = mapped.run("preflight", argument, attempt=3, **scheduling)
    assert again.findings == newer.findings


def test_disks_that_name_different_disks_are_refused_unless_accepted(mapped: World) -> None:
    for site, guid in (("production", b"p" * 16), ("dr", b"d" * 16)):
        with (mapped.root / site / "vm" / "disk0-flat.vmdk").open("r+b") as file:
            file.seek(512)
            file.write(b"EFI PART".ljust(56, b"\0") + guid + bytes(20))

    refused = preflight(mapped)
    assert [finding.code for finding in refused.findings] == ["DISK_MISMATCH"]
    accepted = preflight(mapped, run_id="run-2", accept_pair=["scsi0:0"])
    assert [finding.code for finding in accepted.findings] == ["DISK_MISMATCH_ACCEPTED"]
    assert accepted.plan is not None
    assert accepted.plan.pairs[0].accepted


def test_free_space_is_asked_anew_before_a_run_is_refused_for_it(mapped: World) -> None:
    store = DatastoreView(moref="datastore-1", name="ds-production", free_bytes=1)
    vm = mapped.production.vm(mapped.target)
    vm.changes["datastores"] = (store,)
    for disk in vm.disks:
        disk.datastore = store.moref
    vm.after_refresh["datastores"] = (store.model_copy(update={"free_bytes": 1 << 40}),)

    assert preflight(mapped).findings == ()
    assert mapped.production.calls.count("refresh_datastores") == 1
    assert mapped.production.calls.count("read") == 2
    vm.after_refresh["datastores"] = (store,)
    assert [f.code for f in preflight(mapped, run_id="run-3").findings] == ["CLAIM_HELD"]


def test_a_refusal_gives_the_claims_back(mapped: World) -> None:
    mapped.production.vm(mapped.target).turn(PowerState.ON)

    result = preflight(mapped)

    assert result.plan is None
    assert [finding.code for finding in result.findings] == ["TARGET_RUNS"]
    assert mapped.catalog.claims() == ()


def test_a_second_run_of_the_same_replica_is_refused_and_takes_nothing(mapped: World) -> None:
    assert preflight(mapped).plan is not None
    before = mapped.catalog.claims()

    result = preflight(mapped, "run-2")

    assert [finding.code for finding in result.findings] == ["CLAIM_HELD"]
    assert "run-1" in result.findings[0].message
    assert mapped.catalog.claims() == before


def test_an_unknown_replica_is_refused(world: World) -> None:
    argument = Preflight(
        run=RunRef(run_id="run-9", replica="nobody"),
        step=StepName.PREFLIGHT,
        request=StartRequest(replica="nobody"),
    )

    result = world.run("preflight", argument)

    assert [finding.code for finding in result.findings] == ["REPLICA_UNKNOWN"]


def test_an_unreachable_site_is_refused_after_a_few_tries(world: World) -> None:
    world.dr.down = True
    argument = Preflight(**world.head(StepName.PREFLIGHT), request=StartRequest(replica="web01"))

    with pytest.raises(ApplicationError):
        world.run("preflight", argument, attempt=1)
    result = world.run("preflight", argument, attempt=3)

    assert [finding.code for finding in result.findings] == ["SITE_UNREACHABLE"]
    assert world.catalog.claims() == ()


def test_disks_that_the_mover_cannot_see_are_refused(world: World) -> None:
    result = preflight(world)

    assert {finding.code for finding in result.findings} == {"DISK_NOT_OPENABLE"}
    assert world.catalog.get_replica("web01").state is ReplicaState.FAILOVER


def guard(world: World) -> TargetGuard:
    view = world.production.vm(world.target).view()
    return TargetGuard(
        target=world.target,
        snapshot=view.current_snapshot,
        power_mark=world.production.power_mark(world.target),
        files=tuple(disk.file for disk in view.disks),
    )


def drift(world: World, before: PreflightResult, held: TargetGuard) -> str:
    assert before.plan is not None
    argument = CheckDrift(**world.head(StepName.CHECK_DRIFT), plan=before.plan, guard=held)
    try:
        return str(world.run("check_drift", argument).evidence)
    except ApplicationError as error:
        return f"{error.type}: {error.message}"


def test_an_untouched_pair_has_not_drifted(mapped: World) -> None:
    assert drift(mapped, preflight(mapped), guard(mapped)) == "both VMs are as planned"


def test_a_target_whose_power_ons_nobody_can_read_is_warned_of_and_has_not_drifted(
    mapped: World,
) -> None:
    mapped.production.tells_power_ons = False
    before = preflight(mapped)

    assert [(one.code, one.object) for one in before.findings] == [
        ("POWER_ONS_UNREADABLE", str(mapped.target))
    ]
    assert drift(mapped, before, guard(mapped)) == "both VMs are as planned"


@pytest.mark.parametrize("touch", ["ran", "runs", "snapshot", "disk"])
def test_a_target_touched_behind_our_back_is_noticed(mapped: World, touch: str) -> None:
    before, held = preflight(mapped), guard(mapped)
    vm = mapped.production.vm(mapped.target)
    if touch in ("ran", "runs"):
        vm.turn(PowerState.ON)
        if touch == "ran":
            vm.turn(PowerState.OFF)
    elif touch == "snapshot":
        mapped.production.create_snapshot(mapped.target, "somebody's", "", lambda: None)
    else:
        vm.disks[0].file = "[ds-production] other.vmdk"

    assert drift(mapped, before, held).startswith("VmChanged: TARGET_DRIFTED")


def test_a_replica_disk_that_grew_is_noticed(mapped: World) -> None:
    before, held = preflight(mapped), guard(mapped)
    mapped.dr.vm(mapped.replica).disks[0].data.extend(bytes(MIB))

    assert drift(mapped, before, held).startswith("ReplicaGrown: REPLICA_DRIFTED")


def test_a_probe_says_whether_the_sites_answer(world: World) -> None:
    argument = Probe(**world.head(StepName.SETTLE), sites=("production", "dr"))

    assert world.run("probe", argument).reachable is True
    world.dr.down = True
    assert world.run("probe", argument).reachable is False


@pytest.mark.parametrize(
    ("replica", "target", "fine"),
    [
        (PowerState.OFF, PowerState.ON, True),
        (PowerState.ON, PowerState.ON, False),
        (PowerState.UNKNOWN, PowerState.ON, False),
        (PowerState.OFF, PowerState.UNKNOWN, False),
    ],
)
def test_a_probe_of_vms_wants_every_power_state_known(
    world: World, replica: PowerState, target: PowerState, fine: bool
) -> None:
    world.dr.vm(world.replica).power = replica
    world.production.vm(world.target).power = target

    argument = Probe(
        **world.head(StepName.AWAIT_DECISION),
        sites=("production", "dr"),
        must_be_off=(world.replica,),
        power_known=(world.target,),
    )

    assert world.run("probe", argument).reachable is fine


@pytest.mark.parametrize("tools", [True, False])
def test_a_probe_asks_the_workload_too(world: World, tools: bool) -> None:
    vm = world.production.vm(world.target)
    vm.power, vm.tools = PowerState.ON, tools
    argument = Probe(
        **world.head(StepName.AWAIT_DECISION),
        sites=("production",),
        target=world.target,
        probes=(WorkloadProbe(kind=ProbeKind.TOOLS),),
    )

    result = world.run("probe", argument)

    assert result.reachable is tools
    assert tools or "the guest tools of web01" in result.evidence
