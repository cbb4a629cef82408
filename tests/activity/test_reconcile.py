"""Which run `reconcile` looks at, and what it may do."""

from __future__ import annotations

from datetime import UTC, datetime

from failback.contracts.operations import InspectRun, RunRef
from failback.contracts.plan import RunPlan
from failback.contracts.remains import Remains
from failback.contracts.start import StartRequest
from failback.contracts.words import Finish, Outcome, PowerState, ReplicaState, StepName
from failback.errors import SiteUnreachable
from tests.activity.world import RUN, World


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


def test_a_site_that_says_very_much_is_quoted_in_part(world: World) -> None:
    plan = RunPlan(
        replica=world.replica,
        target=world.target,
        pairs=(),
        replica_power=PowerState.ON,
        target_power=PowerState.OFF,
        replica_tracking=False,
        target_tracking=False,
    )
    world.catalog.set_run_plan("run-1", plan.model_dump_json())
    world.dr.fail("read", SiteUnreachable("x" * 5000, "Look."))

    assert len(inspect(world).unread[0]) == 2000
