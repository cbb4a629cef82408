"""The state and the closing transactions, twice and in the wrong order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.catalog.ledger import SqlLedgerStore
from failback.contracts.operations import CloseRun, RunRef, SetReplicaState
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.words import Outcome, PowerState, ReplicaState, StepName
from failback.disks.ledger import LedgerIdentity, SegmentRecord
from failback.disks.plan import TransferPlan
from tests.activity.world import MIB, RUN, World


def mark(world: World, to: ReplicaState) -> SetReplicaState:
    return SetReplicaState(
        **world.head(StepName.MARK_FAILBACK),
        to=to,
        allowed_from=(ReplicaState.FAILOVER, ReplicaState.FAILBACK),
        verified_target=world.target,
    )


def close(world: World, outcome: Outcome, **more: Any) -> CloseRun:
    return CloseRun(**world.head(StepName.COMMIT), outcome=outcome, replica=world.replica, **more)


def test_marking_twice_is_one_mark(world: World) -> None:
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))

    assert world.catalog.get_replica("web01").state is ReplicaState.FAILBACK
    attributes = world.production.vm(world.target).attributes
    assert attributes["failback.state"] == "failed back run-1"


def test_committing_twice_is_one_commit(world: World) -> None:
    world.catalog.claim("run-1", ["replica:web01"])
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.dr.vm(world.replica).turn(PowerState.OFF)

    world.run("close_run", close(world, Outcome.COMMITTED, protective_snapshot="snapshot-7"))
    world.dr.down = True
    world.run("close_run", close(world, Outcome.COMMITTED, protective_snapshot="snapshot-7"))

    assert world.catalog.get_replica("web01").state is ReplicaState.READY
    assert world.catalog.claims() == ()
    points = world.catalog.replica_detail("web01").restore_points
    assert [point.snapshot for point in points] == ["snapshot-7"]


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        (PowerState.ON, PowerState.ON, "Commit is refused while old .* is on"),
        (PowerState.OFF, PowerState.UNKNOWN, "web01 .* is of an unknown power state"),
        (PowerState.OFF, PowerState.ON, ""),
    ],
)
def test_a_commit_wants_to_know_what_runs(
    world: World, source: PowerState, target: PowerState, why: str
) -> None:
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.dr.vm(world.replica).turn(PowerState.OFF)
    other = world.production.add_vm("old", [bytearray(512)], source)
    world.production.vm(world.target).power = target
    argument = close(world, Outcome.COMMITTED, must_be_off=(other,), power_known=(world.target,))

    if not why:
        world.run("close_run", argument)
        assert world.catalog.get_replica("web01").state is ReplicaState.READY
        return
    with pytest.raises(ApplicationError, match=why) as caught:
        world.run("close_run", argument)
    unknown = target is PowerState.UNKNOWN
    assert caught.value.type == ("VmDisconnected" if unknown else "SplitBrain")
    assert world.catalog.get_replica("web01").state is ReplicaState.FAILBACK


def takes_place(world: World) -> dict[str, Any]:
    """What a commit says where a VM that the run made takes the source VM's place."""
    made = world.production.add_vm("home (failback in progress)", [bytearray(512)], PowerState.ON)
    vm = world.production.vm(made)
    vm.identity = made.model_copy(update={"name": "home"})
    more = {"final_name": "home", "power_known": (made,), "must_be_off": (world.target,)}
    return {"target": made, "old_source": world.target, **more}


@pytest.mark.parametrize("how", ["site", "host", "deleted", "another"])
@pytest.mark.parametrize("name", ["home (failback in progress)", "vm-102"])
def test_a_target_in_anothers_place_that_nobody_can_ask_is_committed_by_a_persons_word(
    world: World, how: str, name: str
) -> None:
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.dr.vm(world.replica).turn(PowerState.OFF)
    argument = close(world, Outcome.COMMITTED, **takes_place(world))
    made = world.production.vms["vm-102"]
    match how:
        case "site":
            world.production.down = True
        case "host":
            made.changes["connection_state"] = "disconnected"
        case "deleted":
            del world.production.vms["vm-102"]
        case "another":
            made.identity = made.identity.model_copy(update={"instance_uuid": "another"})

    attested = argument.model_copy(update={"attest_off": (name, "web01")})
    with pytest.raises(ApplicationError, match="attest_off"):
        world.run("close_run", argument)
    world.run("close_run", attested)

    replica = world.catalog.get_replica("web01")
    assert replica.state is ReplicaState.READY
    assert (replica.source.moref, replica.source.name) == ("vm-102", "home")


@pytest.mark.parametrize("place", ["its own", "another's"])
def test_a_commit_that_is_durable_asks_no_site_again(world: World, place: str) -> None:
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.dr.vm(world.replica).turn(PowerState.OFF)
    more = takes_place(world) if place == "another's" else {"target": world.target}
    argument = close(world, Outcome.COMMITTED, **more)
    world.run("close_run", argument)
    world.production.down = world.dr.down = True

    world.run("close_run", argument)

    source = world.catalog.get_replica("web01").source
    assert source.name == ("home" if place == "another's" else "web01")


@pytest.mark.parametrize("field", ["must_be_off", "power_known"])
def test_a_vm_whose_host_is_gone_at_the_commit_is_answered_for_by_a_person(
    world: World, field: str
) -> None:
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.dr.vm(world.replica).turn(PowerState.OFF)
    other = world.production.add_vm("old", [bytearray(512)], PowerState.OFF)
    vm = world.production.vm(other)
    vm.changes = {"power": PowerState.UNKNOWN}
    argument = close(world, Outcome.COMMITTED, **{field: (other,)})
    attested = argument.model_copy(update={"attest_off": (other.ref,)})

    with pytest.raises(ApplicationError, match=f"attest_off with '{other.ref}'"):
        world.run("close_run", argument)
    if field == "must_be_off":
        vm.changes = {"power": PowerState.ON}
        with pytest.raises(ApplicationError, match=r"while old .* is on") as caught:
            world.run("close_run", attested)
        assert caught.value.details[0]["evidence"]["runs"] == other.ref
        vm.changes = {"power": PowerState.UNKNOWN}
    world.run("close_run", attested)
    assert world.catalog.get_replica("web01").state is ReplicaState.READY


@pytest.mark.parametrize("power", [PowerState.ON, PowerState.OFF, None])
def test_an_undo_tells_at_its_end_of_an_old_source_that_runs_although_it_was_declared_off(
    world: World, power: PowerState | None
) -> None:
    """`None`: its site is still away, and nobody knows better."""
    other = world.production.add_vm("old", [bytearray(512)], power or PowerState.ON)
    world.production.down = power is None
    argument = close(world, Outcome.UNDONE, must_be_off=(other,), attest_off=(other.ref,))

    first = world.run("close_run", argument)
    again = world.run("close_run", argument)

    told = [one.message for one in world.catalog.alarms("run-1")]
    assert first.alarm == again.alarm == ("".join(told) if power is PowerState.ON else "")
    assert len(told) == (power is PowerState.ON)


def test_an_old_source_whose_site_is_gone_is_answered_for_by_a_person(world: World) -> None:
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.dr.vm(world.replica).turn(PowerState.OFF)
    other = world.production.add_vm("old", [bytearray(512)], PowerState.OFF)
    world.production.down = True
    argument = close(world, Outcome.COMMITTED, must_be_off=(other,))

    with pytest.raises(ApplicationError) as caught:
        world.run("close_run", argument)
    assert caught.value.type == "SiteUnreachable"
    attested = argument.model_copy(update={"attest_off": ("old",)})
    world.run("close_run", attested)
    assert world.catalog.get_replica("web01").state is ReplicaState.READY


@pytest.mark.parametrize("field", ["must_be_off", "power_known"])
def test_a_vm_that_was_deleted_before_the_commit_is_answered_for_by_a_person(
    world: World, field: str
) -> None:
    """In COMMITTING there is no undo: without an answer the run would stand there for ever."""
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    world.dr.vm(world.replica).turn(PowerState.OFF)
    other = world.production.add_vm("old", [bytearray(512)], PowerState.OFF)
    del world.production.vms[other.moref]
    argument = close(world, Outcome.COMMITTED, **{field: (other,)})

    with pytest.raises(ApplicationError, match="attest_off") as caught:
        world.run("close_run", argument)
    assert caught.value.type == "VmNotFound"
    world.run("close_run", argument.model_copy(update={"attest_off": ("old",)}))
    assert world.catalog.get_replica("web01").state is ReplicaState.READY


def test_the_catalog_keeps_who_asked_for_an_undo_and_why(world: World) -> None:
    request = Request(by="ann", reason="the application does not start")

    world.run("close_run", close(world, Outcome.UNDONE, request=request))

    run = world.catalog.get_run("run-1")
    assert (run.by, run.reason) == ("ann", "the application does not start")


def test_closing_a_run_removes_the_ledger_of_runs_that_ended_long_ago(world: World) -> None:
    old = RunRef(run_id="run-0", replica="web01")
    ledger = SqlLedgerStore(world.catalog)
    for run in (old, RUN):
        plan_id = f"{run.run_id}/scsi0:0/1"
        ledger.save(plan_id, "disk", LedgerIdentity("s", "t"), TransferPlan(MIB, MIB))
        ledger.open(plan_id, "one").commit([SegmentRecord(0, MIB, 0, 0, 0, ())])
    world.catalog.open_run("run-0", "failback/web01", "web01", StartRequest(replica="web01"))
    world.catalog.close_refused("run-0", datetime.now(UTC) - timedelta(days=31))

    world.run("close_run", close(world, Outcome.UNDONE))

    assert len(ledger.finished("run-0/scsi0:0/1")) == 0
    assert len(ledger.finished("run-1/scsi0:0/1")) == 1


@pytest.mark.parametrize("trouble", ["on", "unreadable"])
def test_commit_is_refused_while_the_replica_is_not_proven_off(world: World, trouble: str) -> None:
    world.run("set_replica_state", mark(world, ReplicaState.FAILBACK))
    if trouble == "unreadable":
        world.dr.down = True

    with pytest.raises(ApplicationError) as caught:
        world.run("close_run", close(world, Outcome.COMMITTED))

    assert caught.value.type == ("SplitBrain" if trouble == "on" else "SiteUnreachable")
    assert world.catalog.get_replica("web01").state is ReplicaState.FAILBACK


def test_an_undone_run_cannot_be_committed(world: World) -> None:
    world.dr.vm(world.replica).turn(PowerState.OFF)
    world.run("close_run", close(world, Outcome.UNDONE))
    world.run("close_run", close(world, Outcome.UNDONE))

    with pytest.raises(ApplicationError) as caught:
        world.run("close_run", close(world, Outcome.COMMITTED))

    assert caught.value.type == "StateConflict"


@pytest.mark.parametrize("run_id", ["run-1", "never-recorded"])
def test_an_undo_before_preflight_has_ended_leaves_no_claims(world: World, run_id: str) -> None:
    world.catalog.claim("run-1", ["replica:web01"])
    argument = close(world, Outcome.UNDONE, began=False).model_copy(
        update={"run": RunRef(run_id=run_id, replica="web01")}
    )

    world.run("close_run", argument)
    world.run("close_run", argument)

    held = {claim.run_id for claim in world.catalog.claims()}
    assert run_id not in held
    assert world.catalog.get_run(run_id).ended_at is not None


def test_an_undo_before_preflight_of_an_unknown_replica_ends(world: World) -> None:
    argument = close(world, Outcome.UNDONE, began=False).model_copy(
        update={"run": RunRef(run_id="run-9", replica="nobody")}
    )

    assert "no such replica" in world.run("close_run", argument).evidence
