"""Looking ahead: the same findings as preflight, nothing claimed, nothing changed."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import Preflight, PreflightResult, RunRef
from failback.contracts.preview import LookAhead, LookAheadResult
from failback.contracts.start import StartRequest
from failback.contracts.words import PowerState, StepName
from tests.activity.world import MIB, World, random_bytes, write_disk

READS = {
    *("about", "configuration", "find", "get_attribute", "missing_privileges", "place"),
    *("power_mark", "read", "refresh_datastores"),
}


@pytest.fixture
def mapped(world: World) -> World:
    """Disks that the mover can see."""
    for site, vm in ((world.production, world.target), (world.dr, world.replica)):
        for disk in site.vm(vm).disks:
            disk.file = write_disk(world.root / site.name, "disk0", random_bytes(1, MIB))
    return world


def look(world: World, attempt: int = 3, **request: object) -> LookAheadResult:
    argument = LookAhead(
        run=RunRef(run_id="look", replica="web01"),
        step=StepName.PREFLIGHT,
        request=StartRequest.model_validate({"replica": "web01", **request}),
    )
    result: LookAheadResult = world.run("look_ahead", argument, attempt=attempt)
    return result


def preflight(world: World, run_id: str = "run-1", **request: object) -> PreflightResult:
    argument = Preflight(
        run=RunRef(run_id=run_id, replica="web01"),
        step=StepName.PREFLIGHT,
        request=StartRequest.model_validate({"replica": "web01", **request}),
    )
    result: PreflightResult = world.run("preflight", argument, attempt=3)
    return result


def codes(result: PreflightResult) -> list[str]:
    return [finding.code for finding in result.findings]


def test_it_gives_the_plan_that_a_run_then_follows_and_touches_nothing(mapped: World) -> None:
    seen = look(mapped)

    assert mapped.catalog.claims() == ()
    assert set(mapped.production.calls) | set(mapped.dr.calls) <= READS
    assert [run.run_id for run in mapped.catalog.list_runs()] == ["run-1"]
    assert seen.plan is not None
    assert seen.plan.plan_hash
    assert [(disk.address, disk.examined_bytes) for disk in seen.disks] == [("scsi0:0", MIB)]
    assert seen.disks[0].expected_bytes == MIB // 5

    run = preflight(mapped, plan_hash=seen.plan.plan_hash, by="ann")
    assert run.plan == seen.plan
    # Once more: an attempt whose answer was lost must not refuse its own run.
    assert preflight(mapped, plan_hash=seen.plan.plan_hash, by="ann").plan == seen.plan


def test_a_run_with_the_hash_of_another_world_is_refused_and_names_it(mapped: World) -> None:
    seen = look(mapped)
    assert seen.plan is not None
    mapped.production.vm(mapped.target).freeze("snapshot-9", "mine", "")

    refused = preflight(mapped, plan_hash=seen.plan.plan_hash)

    assert refused.plan is None
    assert codes(refused)[0] == "PLAN_DRIFTED"
    assert "snapshots" in refused.findings[0].message
    assert mapped.catalog.claims() == ()


def test_claims_of_a_run_are_a_finding_among_the_others(mapped: World) -> None:
    assert preflight(mapped).plan is not None
    before = mapped.catalog.claims()
    mapped.production.vm(mapped.target).turn(PowerState.ON)

    seen = look(mapped)

    assert set(codes(seen)) == {"CLAIM_HELD", "TARGET_RUNS"}
    assert "run-1" in next(f for f in seen.findings if f.code == "CLAIM_HELD").message
    assert seen.plan is None
    assert mapped.catalog.claims() == before


def test_an_unknown_replica_and_a_site_that_is_away_are_findings(mapped: World) -> None:
    assert codes(look(mapped, replica="nobody")) == ["REPLICA_UNKNOWN"]

    mapped.dr.down = True
    with pytest.raises(ApplicationError):
        look(mapped, attempt=1)
    assert codes(look(mapped, attempt=3)) == ["SITE_UNREACHABLE"]
