"""After a commit: everything of ours goes, nothing of anybody else, and no error is the end."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.catalog.replicas import claim_of
from failback.contracts.operations import CleanTarget, ProtectTarget, RestoreTarget, RunRef
from failback.contracts.start import StartRequest
from failback.contracts.words import PowerState, StepName
from failback.errors import (
    LoginRefused,
    OperationFailed,
    PrivilegeMissing,
    SiteUnreachable,
    SnapshotAmbiguous,
    VmChanged,
)
from failback.hypervisor.testing_vm import FakeSnapshot
from tests.activity.world import RUN, World


def protect(world: World, **more: Any) -> None:
    given = {**world.head(), "target": world.target, "pairs": (), **more}
    world.run("protect_target", ProtectTarget(**given))


def cleanup(world: World, **more: Any) -> CleanTarget:
    return CleanTarget(**{**world.head(StepName.CLEAN_TARGET), "target": world.target, **more})


def names(world: World) -> list[str]:
    return [one.name for one in world.production.vm(world.target).view().snapshots]


def tracked(world: World) -> bool:
    return world.production.vm(world.target).tracking


def alarms(world: World) -> list[str]:
    return [alarm.message for alarm in world.catalog.alarms(RUN.run_id)]


def test_cleanup_after_commit_leaves_nothing_of_ours(world: World) -> None:
    vm = world.production.vm(world.target)
    vm.track(True, 7)
    protect(world)
    vm.turn(PowerState.ON)

    world.run("clean_target", cleanup(world, tracking_was=True))
    world.run("clean_target", cleanup(world, tracking_was=True))

    assert names(world) == []
    assert tracked(world)
    assert not vm.attributes.get("failback.state")
    assert alarms(world) == []


@pytest.mark.parametrize(
    "error",
    [
        OperationFailed("RemoveSnapshot_Task: the disk is locked.", "Unlock it."),
        LoginRefused("The password is wrong.", "Correct it."),
        PrivilegeMissing("It may not remove snapshots.", "Allow it."),
        SnapshotAmbiguous("There are two of them.", "Remove one."),
        VmChanged("It is another VM.", "Find out which."),
        SiteUnreachable("The site is away.", "Wait."),
        KeyError("a secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_ends_a_cleanup(world: World, error: Exception) -> None:
    protect(world)
    world.production.fail("remove_snapshot", error)

    with pytest.raises(ApplicationError) as caught:
        world.run("clean_target", cleanup(world))

    assert not caught.value.non_retryable
    (told,) = alarms(world)
    assert "is not done yet" in told and "secret" not in told
    world.run("clean_target", cleanup(world))
    assert names(world) == []


def test_a_cleanup_that_is_hindered_is_one_alarm_until_it_is_done(world: World) -> None:
    protect(world)
    for attempt, said in enumerate(("locked by task-7", "locked by task-8"), 1):
        world.production.fail("remove_snapshot", OperationFailed(said, "Wait."))
        with pytest.raises(ApplicationError):
            world.run("clean_target", cleanup(world), activity_id="1000009", attempt=attempt)
        (told,) = alarms(world)
        assert said in told and "--finish cleanup" in told

    world.run("clean_target", cleanup(world), activity_id="1000009", attempt=3)

    (told,) = alarms(world)
    assert "done by now" in told


def test_a_target_that_was_deleted_ends_the_cleanup_and_says_so(world: World) -> None:
    protect(world)
    del world.production.vms[world.target.moref]

    done = world.run("clean_target", cleanup(world, tracking_was=True))
    world.run("clean_target", cleanup(world, tracking_was=True))

    (told,) = alarms(world)
    assert done.alarm == told
    assert "is gone from its site" in told and "change tracking" in told


def claim(world: World) -> None:
    """Another run claims the target."""
    world.catalog.open_run("run-2", "failback/web01", "web01", StartRequest(replica="web01"))
    world.catalog.claim("run-2", [claim_of(world.target)])


def another_run(world: World) -> None:
    """Another run has claimed the target and made it ready to be written."""
    claim(world)
    protect(world, run=RunRef(run_id="run-2", replica="web01"))


def test_a_cleanup_that_comes_late_leaves_the_target_to_the_run_that_claims_it(
    world: World,
) -> None:
    vm = world.production.vm(world.target)
    vm.track(True, 7)
    protect(world)
    another_run(world)
    asked = len(world.production.calls)

    with pytest.raises(ApplicationError) as caught:
        world.run("clean_target", cleanup(world, tracking_was=True))

    assert caught.value.type == "ClaimHeld" and not caught.value.non_retryable
    assert len(world.production.calls) == asked
    assert not tracked(world)
    assert vm.attributes["failback.state"] == "incomplete run-2"
    assert alarms(world) == []

    world.catalog.release_claims("run-2")
    world.run("clean_target", cleanup(world, tracking_was=True))

    assert names(world) == ["failback/run-2/target"]
    assert tracked(world)
    # What says of another run's target that it is incomplete is that run's.
    assert vm.attributes["failback.state"] == "incomplete run-2"


def test_a_run_that_claims_the_target_during_a_cleanup_stops_it(world: World) -> None:
    vm = world.production.vm(world.target)
    vm.track(True, 7)
    protect(world)

    class Watched(list[FakeSnapshot]):
        def remove(self, snapshot: FakeSnapshot) -> None:
            super().remove(snapshot)
            another_run(world)

    vm.snapshots = Watched(vm.snapshots)

    with pytest.raises(ApplicationError) as caught:
        world.run("clean_target", cleanup(world, tracking_was=True))

    assert caught.value.type == "ClaimHeld"
    assert not tracked(world)
    assert vm.attributes["failback.state"] == "incomplete run-2"


def test_a_cleanup_has_not_ended_when_a_run_claims_the_target_right_before(world: World) -> None:
    """That run may have read the target before its tracking was back, and looks in the catalog."""
    vm = world.production.vm(world.target)
    protect(world)

    class Watched(dict[str, str]):
        def __setitem__(self, name: str, value: str) -> None:
            super().__setitem__(name, value)
            claim(world)

    vm.attributes = Watched(vm.attributes)

    with pytest.raises(ApplicationError) as caught:
        world.run("clean_target", cleanup(world))

    assert caught.value.type == "ClaimHeld"
    assert not vm.attributes["failback.state"]
    (row,) = [step for step in world.catalog.steps(RUN.run_id) if step.step == "clean_target"]
    assert row.finished_at is None


def test_tracking_that_the_run_found_off_is_left_to_whoever_switched_it_on(world: World) -> None:
    vm = world.production.vm(world.target)
    protect(world)
    vm.track(True, 7)

    world.run("clean_target", cleanup(world, tracking_was=False))

    assert tracked(world)


def test_an_undo_leaves_the_state_that_another_run_has_written(world: World) -> None:
    vm = world.production.vm(world.target)
    vm.attributes["failback.state"] = "failed back run-0"
    undo = RestoreTarget(**world.head(StepName.UNDO_PROTECT_TARGET), target=world.target)

    world.run("restore_target", undo)

    assert vm.attributes["failback.state"] == "failed back run-0"
