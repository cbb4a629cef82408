"""After a commit: everything of ours goes, nothing of anybody else, and no error is the end."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import CleanTarget, ProtectTarget
from failback.contracts.words import PowerState, StepName
from failback.errors import (
    LoginRefused,
    OperationFailed,
    PrivilegeMissing,
    SiteUnreachable,
    SnapshotAmbiguous,
    VmChanged,
)
from tests.activity.world import RUN, World


def protect(world: World, **more: Any) -> None:
    given = {**world.head(), "target": world.target, "pairs": (), **more}
    world.run("protect_target", ProtectTarget(**given))


def cleanup(world: World, **more: Any) -> CleanTarget:
    return CleanTarget(**{**world.head(StepName.CLEAN_TARGET), "target": world.target, **more})


def names(world: World) -> list[str]:
    return [one.name for one in world.production.vm(world.target).view().snapshots]


def alarms(world: World) -> list[str]:
    return [alarm.message for alarm in world.catalog.alarms(RUN.run_id)]


def test_cleanup_after_commit_leaves_nothing_of_ours(world: World) -> None:
    vm = world.production.vm(world.target)
    vm.tracking = True
    protect(world)
    vm.turn(PowerState.ON)

    world.run("clean_target", cleanup(world, tracking_was=True))
    world.run("clean_target", cleanup(world, tracking_was=True))

    assert names(world) == []
    assert vm.tracking is True
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
