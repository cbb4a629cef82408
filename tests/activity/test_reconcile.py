"""Which run `reconcile` looks at, and what it may do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import (
    CleanTarget,
    CreateTarget,
    CreateTargetResult,
    InspectRun,
    RunRef,
)
from failback.contracts.remains import Remains
from failback.contracts.start import StartRequest
from failback.contracts.words import Finish, Outcome, PowerState, ReplicaState, StepName
from failback.errors import PrivilegeMissing, SiteUnreachable
from tests.activity.world import NEW_REQUEST, RUN, World, plan_of, plan_of_new


def inspect(world: World) -> Remains:
    argument = InspectRun(run=RunRef(run_id="", replica="web01"), step=StepName.SETTLE)
    remains: Remains = world.run("inspect_run", argument)
    return remains


def refuse_another(world: World) -> None:
    """Somebody starts again although a run is open: the claims refuse it."""
    world.catalog.open_run("run-2", "failback/web01", "web01", StartRequest(replica="web01"))
    world.catalog.close_refused("run-2", datetime.now(UTC))


def test_a_start_that_was_refused_does_not_hide_the_run_that_refused_it(world: World) -> None:
    world.catalog.claim("run-1", ["replica:web01"])
    refuse_another(world)

    remains = inspect(world)

    assert (remains.run_id, remains.outcome) == (RUN.run_id, None)
    assert remains.may == (Finish.UNDO,)
    assert [left.object for left in remains.left] == ["replica:web01"]


def test_a_start_that_was_refused_does_not_hide_what_a_commit_left(world: World) -> None:
    world.catalog.set_state(
        "run-1", "web01", ReplicaState.FAILBACK, allowed_from=(ReplicaState.FAILOVER,)
    )
    world.catalog.close_commit("run-1", "web01", None, datetime.now(UTC))
    refuse_another(world)

    remains = inspect(world)

    assert (remains.run_id, remains.outcome) == (RUN.run_id, Outcome.COMMITTED)


def test_a_commit_is_offered_exactly_while_only_the_end_of_the_switch_is_missing(
    world: World,
) -> None:
    """What is missing of it is done first; an undo that has begun is not to be overtaken."""
    early = inspect(world)
    world.catalog.set_state(
        "run-1", "web01", ReplicaState.FAILBACK, allowed_from=(ReplicaState.FAILOVER,)
    )
    whole = inspect(world)
    world.catalog.step_intent("run-1", "settle", "", mark="", at=datetime.now(UTC))
    undoing = inspect(world)

    assert (early.may, whole.may, undoing.may) == (
        (Finish.UNDO,),
        (Finish.UNDO, Finish.COMMIT),
        (Finish.UNDO,),
    )
    assert "not set the state FAILBACK" in early.no_commit
    assert whole.no_commit == ""
    assert "undo of the run has begun" in undoing.no_commit


def test_a_site_that_says_very_much_is_quoted_in_part(world: World) -> None:
    world.catalog.set_run_plan("run-1", plan_of(world).model_dump_json())
    world.dr.fail("read", SiteUnreachable("x" * 5000, "Look."))

    assert len(inspect(world).unread[0]) == 2000


def told(remains: Remains) -> dict[str, list[str]]:
    """What is left, by the object's name."""
    objects: dict[str, list[str]] = {}
    for left in remains.left:
        objects.setdefault(left.object.partition(" (")[0], []).append(left.what)
    return objects


def make_new(world: World) -> RunRef:
    """A run of destination `new` whose VM is there, though nobody heard of it."""
    world.catalog.close_refused(RUN.run_id)
    run = RunRef(run_id="run-2", replica="web01")
    world.catalog.open_run(run.run_id, "failback/web01", "web01", NEW_REQUEST)
    plan = plan_of_new(
        world, old_source=world.target, old_source_there=True, old_source_power=PowerState.ON
    )
    world.catalog.set_run_plan(run.run_id, plan.model_dump_json())
    argument = CreateTarget(
        run=run,
        step=StepName.CREATE_TARGET,
        replica=world.replica,
        request=NEW_REQUEST,
        plan=plan,
    )
    world.production.fail("set_attribute", SiteUnreachable("Cut."))
    with pytest.raises(ApplicationError):
        world.run("create_target", argument)
    return run


def test_a_vm_that_was_made_and_not_recorded_is_told_and_so_is_the_old_source_vm(
    world: World,
) -> None:
    run = make_new(world)

    left = told(inspect(world))

    assert left["home"] == ["the run has made it"]
    assert left["web01"] == ["it is off and was on"]

    world.catalog.close_undo(run.run_id, "web01", datetime.now(UTC))
    assert told(inspect(world)) == {"home": ["the run has made it"]}


def test_a_vm_that_was_made_and_cannot_be_looked_for_is_not_passed_over(world: World) -> None:
    make_new(world)
    world.production.fail("find_made", SiteUnreachable("The site is away.", "Wait."))

    assert inspect(world).unread == ("The site is away. Wait.",)


def test_a_vm_that_an_undo_has_deleted_is_not_missed(world: World) -> None:
    run = make_new(world)
    (made,) = (vm for vm in world.production.vms.values() if vm.mark == run.run_id)
    world.catalog.step_finished(
        run.run_id,
        "create_target",
        str(world.replica),
        CreateTargetResult(target=made.identity, pairs=()).model_dump_json(),
        datetime.now(UTC),
    )
    assert told(inspect(world))["home"] == ["the run has made it"]

    del world.production.vms[made.identity.moref]
    assert told(inspect(world))["home"] == ["it is gone from its site"]

    world.catalog.close_undo(run.run_id, "web01", datetime.now(UTC))
    assert inspect(world).left == ()


def test_a_cleanup_that_has_not_come_to_an_end_can_be_finished(world: World) -> None:
    world.catalog.set_run_plan(RUN.run_id, plan_of(world).model_dump_json())
    world.catalog.set_state(
        RUN.run_id, "web01", ReplicaState.FAILBACK, allowed_from=(ReplicaState.FAILOVER,)
    )
    world.catalog.close_commit(RUN.run_id, "web01", None, datetime.now(UTC))
    cleanup = CleanTarget(**world.head(StepName.CLEAN_TARGET), target=world.target)
    world.production.fail("remove_snapshot", PrivilegeMissing("It may not.", "Allow it."))
    with pytest.raises(ApplicationError):
        world.run("clean_target", cleanup)

    remains = inspect(world)

    assert remains.may == (Finish.CLEANUP,)
    assert [left.what for left in remains.left] == [
        "the cleanup after the commit has not come to an end: It may not. Allow it."
    ]
    world.run("clean_target", cleanup)
    assert (inspect(world).may, inspect(world).left) == ((), ())
