"""Hooks behind the real edge: what is recorded, what a repeat is told, what preflight says."""

from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError

from activities.gathering import names_of_hooks
from activities.registry import control
from failback.contracts.operations import HookResult, Preflight, RunHook, RunRef
from failback.contracts.policies import FinalizePolicy, Hook
from failback.contracts.start import StartRequest
from failback.contracts.words import FinalizeMode, HookWhen, StepName
from failback.hooks.calls import Calls, HookCommand
from tests.activity.world import RUN, World

STEP = StepName.POWER_ON_TARGET


def with_hook(world: World, script: str) -> None:
    """The worker's settings have the hook `dns`."""
    calls = Calls({"dns": HookCommand(("/bin/sh", "-c", script))})
    rooms = dataclasses.replace(world.rooms, calls=calls)
    world.activities |= {f.__name__: f for f in control(rooms)}


def hook(world: World, name: str = "dns", **more: Any) -> RunHook:
    asked = Hook(name=name, when=HookWhen.AFTER, step=STEP, **more)
    return RunHook(**world.head(STEP), hook=asked, replica_vm=world.replica, target_vm=world.target)


def test_a_call_is_recorded_beside_the_steps_with_its_end(world: World) -> None:
    with_hook(world, 'echo "$FAILBACK_TARGET_VM"; echo password=geheim')

    result: HookResult = world.run("run_hook", hook(world))

    assert (result.ok, result.output) == (True, "web01\npassword=[hidden]")
    (row,) = world.catalog.steps("run-1")
    assert (row.step, row.object) == ("hook", "dns after power_on_target")
    assert HookResult.model_validate_json(row.evidence) == result
    assert row.finished_at is not None
    assert "geheim" not in row.evidence


def test_attempts_of_one_call_share_a_key_and_a_call_made_again_has_another(world: World) -> None:
    with_hook(world, 'echo "$FAILBACK_IDEMPOTENCY_KEY"')

    keys = [
        world.run("run_hook", hook(world), activity_id=scheduling, attempt=attempt).output
        for scheduling, attempt in (("3000001", 1), ("3000001", 2), ("3000002", 1))
    ]

    assert keys[0] == keys[1] != keys[2]
    assert keys[0].startswith("run-1/power_on_target/after/dns/")


def test_a_failure_is_a_result_for_the_policy(world: World) -> None:
    with_hook(world, "echo no such zone >&2; exit 2")

    result = world.run("run_hook", hook(world))
    unknown = world.run("run_hook", hook(world, "nobody"))

    assert (result.ok, result.output) == (False, "no such zone")
    assert result.evidence.startswith("exit status 2")
    assert (unknown.ok, "no hook nobody" in unknown.evidence) == (False, True)


def test_a_hook_before_preflight_is_called_although_there_is_no_run_yet(world: World) -> None:
    with_hook(world, "exit 0")
    argument = hook(world).model_copy(update={"run": RunRef(run_id="run-2", replica="web01")})

    assert world.run("run_hook", argument).ok


def test_a_call_does_not_overtake_the_step_that_runs(world: World) -> None:
    epoch = world.catalog.take_lease("replica/web01", "a step")
    with_hook(world, "exit 0")

    world.run("run_hook", hook(world))

    world.catalog.check_lease("replica/web01", epoch)


@pytest.mark.parametrize(
    ("when", "step", "called"),
    [
        (HookWhen.AFTER, StepName.COMMIT, True),
        (HookWhen.AFTER, StepName.UNDO_CLOSE, True),
        (HookWhen.BEFORE, StepName.COMMIT, False),
        (HookWhen.AFTER, StepName.POWER_ON_TARGET, False),
    ],
)
def test_only_a_hook_after_what_closes_a_run_is_called_when_it_has_ended(
    world: World, when: HookWhen, step: StepName, called: bool
) -> None:
    with_hook(world, "exit 0")
    asked = Hook(name="dns", when=when, step=step)
    argument = RunHook(**world.head(step), hook=asked)
    world.catalog.close_refused("run-1")

    if called:
        assert world.run("run_hook", argument).ok
    else:
        with pytest.raises(ApplicationError, match="comes too late"):
            world.run("run_hook", argument)


def test_a_cancelled_call_ends_its_command(world: World, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with_hook(world, f"echo x > '{begun}'; exec sleep 600")
    environment = world.environment()
    ended: list[BaseException] = []

    def call() -> None:
        try:
            environment.run(world.activities["run_hook"], hook(world, timeout=timedelta(hours=1)))
        except CancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not begun.exists() and thread.is_alive():
        thread.join(0.02)
    environment.cancel()
    thread.join(60)

    assert len(ended) == 1


def test_a_worker_that_shuts_down_lets_a_call_end(world: World, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    with_hook(world, f"echo x > '{begun}'; while [ ! -e '{go}' ]; do sleep 0.05; done; echo whole")
    environment = world.environment()
    results: list[HookResult] = []
    thread = threading.Thread(
        target=lambda: results.append(
            environment.run(world.activities["run_hook"], hook(world, timeout=timedelta(hours=1)))
        )
    )
    thread.start()
    while not begun.exists() and thread.is_alive():
        thread.join(0.02)
    environment.worker_shutdown()
    thread.join(1.2)  # longer than the time between two beats
    assert thread.is_alive()
    go.touch()
    thread.join(60)

    assert [(result.ok, result.output) for result in results] == [(True, "whole")]


@pytest.mark.parametrize("known", [True, False])
def test_preflight_refuses_what_the_settings_do_not_have(world: World, known: bool) -> None:
    probe = {"kind": "command", "command": "dns"}
    finalize = FinalizePolicy.model_validate({"mode": FinalizeMode.AUTO_COMMIT, "probes": [probe]})
    request = StartRequest(replica="web01", finalize=finalize, hooks=(hook(world, "dns").hook,))
    if known:
        with_hook(world, "exit 0")
    result = world.run("preflight", Preflight(run=RUN, step=StepName.PREFLIGHT, request=request))

    assert names_of_hooks(request) == ["dns", "dns"]
    found = [finding.object for finding in result.findings if finding.code == "HOOK_UNKNOWN"]
    assert found == ([] if known else ["dns"])
