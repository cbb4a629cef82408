"""Who has yet to give a VM its change tracking back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

import pytest

from failback.catalog.repository import Catalog
from failback.contracts.plan import RunPlan
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from tests.unit.catalog.build import FAILBACK, FAILOVER, NOW, add, vm

TARGET = vm("production", "web-source")


@pytest.fixture
def ticking(url: str) -> Iterator[Catalog]:
    """A catalog with a replica, whose clock goes on by a minute with every call."""
    minutes = itertools.count()
    catalog = Catalog(url, now=lambda: NOW + timedelta(minutes=next(minutes)))
    add(catalog, "web")
    yield catalog
    catalog.close()


def run(
    catalog: Catalog,
    run_id: str,
    end: str = "commit",
    *,
    tracking: bool = True,
    protected: bool = True,
    cleaned: bool = False,
    target: VmIdentity = TARGET,
) -> None:
    """A run of `web` from its begin to its end, and what of its cleanup has come through."""
    catalog.open_run(run_id, "failback/web", "web", StartRequest(replica="web"))
    plan = RunPlan(
        replica=vm("dr", "web-replica"),
        target=target,
        pairs=(),
        replica_power=PowerState.ON,
        target_power=PowerState.OFF,
        replica_tracking=False,
        target_tracking=tracking,
    )
    catalog.set_run_plan(run_id, plan.model_dump_json())
    if protected:
        catalog.step_intent(run_id, "protect_target", str(target), run_id, NOW)
    match end:
        case "commit":
            catalog.set_state(run_id, "web", FAILBACK, [FAILOVER])
            catalog.close_commit(run_id, "web", None, NOW)
            catalog.mark_failover("web")
        case "undo":
            catalog.close_undo(run_id, "web", NOW)
        case "refuse":
            catalog.close_refused(run_id)
    catalog.step_intent(run_id, "clean_target", str(target), run_id, NOW)
    if cleaned:
        catalog.step_finished(run_id, "clean_target", str(target), "", NOW)


def test_the_cleanup_of_a_committed_run_owes_it_until_it_has_ended(ticking: Catalog) -> None:
    assert not ticking.tracking_owed(TARGET)
    run(ticking, "run-a")
    assert ticking.tracking_owed(TARGET)
    assert ticking.tracking_owed(TARGET.model_copy(update={"name": "renamed"}))
    ticking.step_finished("run-a", "clean_target", str(TARGET), "", NOW)
    assert not ticking.tracking_owed(TARGET)


def test_nothing_is_owed_where_tracking_was_off_or_undo_gave_it_back(ticking: Catalog) -> None:
    run(ticking, "run-a", tracking=False)
    assert not ticking.tracking_owed(TARGET)
    run(ticking, "run-b", "undo")
    assert not ticking.tracking_owed(TARGET)


def test_nothing_is_owed_to_another_vm(ticking: Catalog) -> None:
    run(ticking, "run-a", target=vm("elsewhere", TARGET.moref))
    assert not ticking.tracking_owed(TARGET)


@pytest.mark.parametrize("end", ["undo", "refuse"])
def test_a_run_that_ended_before_it_touched_the_target_leaves_what_was_owed(
    ticking: Catalog, end: str
) -> None:
    run(ticking, "run-a")
    run(ticking, "run-b", end, protected=False)
    assert ticking.tracking_owed(TARGET)


@pytest.mark.parametrize("end", ["commit", "undo"])
def test_the_next_run_on_the_vm_answers_for_the_one_before(ticking: Catalog, end: str) -> None:
    """Its plan took over what was owed, so that a cleanup that never comes owes nothing more."""
    run(ticking, "run-a")
    run(ticking, "run-b", end, cleaned=True)
    assert not ticking.tracking_owed(TARGET)
    run(ticking, "run-c")
    assert ticking.tracking_owed(TARGET)
