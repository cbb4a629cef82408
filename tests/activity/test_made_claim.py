"""Destination `new`: the VM that a run makes belongs to it until the run has ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.catalog.replicas import claim_of
from failback.contracts.operations import CleanTarget, CreateTarget, DeleteTarget
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import StepName
from failback.errors import SiteUnreachable, VmChanged
from tests.activity.world import NEW_REQUEST, RUN, World, plan_of_new


def planned(world: World) -> dict[str, Any]:
    """What both arguments have in common."""
    return {"replica": world.replica, "request": NEW_REQUEST, "plan": plan_of_new(world)}


def create(world: World, **info: Any) -> VmIdentity:
    argument = CreateTarget(**world.head(StepName.CREATE_TARGET), **planned(world))
    made: VmIdentity = world.run("create_target", argument, **info).target
    return made


def delete(world: World) -> None:
    head = world.head(StepName.UNDO_CREATE_TARGET)
    world.run("delete_target", DeleteTarget(**head, site="production", **planned(world)))


def claims(world: World) -> dict[str, str]:
    return {claim.object: claim.run_id for claim in world.catalog.claims()}


def test_the_vm_that_a_run_makes_is_claimed_until_the_run_ends(world: World) -> None:
    made = create(world)

    assert create(world) == made
    assert claims(world) == {claim_of(made): RUN.run_id}
    delete(world)
    world.catalog.close_undo(RUN.run_id, "web01", datetime.now(UTC))
    assert claims(world) == {}


def test_a_vm_that_nobody_heard_of_is_claimed_by_the_next_attempt(world: World) -> None:
    world.production.fail("create_vm", SiteUnreachable("Cut."), applied=True)
    with pytest.raises(ApplicationError):
        create(world, activity_id="1000009")

    made = create(world, activity_id="1000009", attempt=2)

    assert list(claims(world)) == [claim_of(made)]


def test_a_vm_that_another_run_has_taken_meanwhile_is_not_deleted(world: World) -> None:
    world.production.fail("create_vm", SiteUnreachable("Cut."), applied=True)
    with pytest.raises(ApplicationError):
        create(world)
    (made,) = (vm for vm in world.production.vms.values() if vm.mark == RUN.run_id)
    world.catalog.open_run("run-2", "failback/web01", "web01", StartRequest(replica="web01"))
    world.catalog.claim("run-2", [claim_of(made.identity)])

    with pytest.raises(ApplicationError, match="run-2"):
        delete(world)

    assert made.identity.moref in world.production.vms


def test_after_the_commit_the_vm_is_no_longer_ours(world: World) -> None:
    made = create(world)
    world.catalog.release_claims(RUN.run_id)
    cleanup = CleanTarget(**world.head(StepName.CLEAN_TARGET), target=made)

    world.run("clean_target", cleanup)
    world.run("clean_target", cleanup)

    with pytest.raises(VmChanged, match="mark"):
        world.production.destroy_vm(made, RUN.run_id, lambda: None)
    assert not any(world.production.vm(made).attributes.values())
