"""Hooks: when they are called, and what their failure does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from failback.contracts import operations as ops
from failback.contracts.words import Outcome, Phase, RequestKind
from tests.unit.workflows.virtual_runtime import World, world

HOUR = timedelta(hours=1)


def hook(step: str, when: str = "before", policy: str = "stop") -> dict[str, str]:
    return {"name": "dns", "step": step, "when": when, "on_failure": policy}


def failing(argument: Any, count: int) -> ops.HookResult:
    return ops.HookResult(ok=count > 0, output="no such zone", evidence="exit status 1")


def committing(made: World) -> World:
    made.runtime.script.setdefault("run_hook", lambda a, n: ops.HookResult(ok=True, output="ok"))
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))
    return made


async def test_hooks_are_called_before_and_after_their_steps() -> None:
    made = committing(
        world(hooks=[hook("power_on_target"), hook("power_on_target", "after"), hook("commit")])
    )

    assert await made.live() is Outcome.COMMITTED

    names = made.runtime.names()
    at = names.index("power_on")
    assert names[at - 1 : at + 2] == ["run_hook", "power_on", "run_hook"]
    assert names[-2:] == ["run_hook", "close_run"]
    assert [(h.when, h.ok) for h in made.run.hooks] == [
        ("before", True),
        ("after", True),
        ("before", True),
    ]


async def test_a_hook_of_a_step_that_is_skipped_is_not_called() -> None:
    made = committing(world(hooks=[hook("power_on_target")], power_on_target=False))

    await made.live()

    assert "run_hook" not in made.runtime.names()


async def test_a_failed_hook_stops_for_a_person_and_retry_calls_it_again() -> None:
    made = committing(world(hooks=[hook("power_on_target")]))
    made.runtime.script["run_hook"] = failing
    seen = []

    def retry() -> None:
        seen.append((made.run.phase, made.run.operator))
        made.ask(RequestKind.RETRY)

    made.runtime.after(timedelta(minutes=5), retry)

    assert await made.live() is Outcome.COMMITTED

    phase, operator = seen[0]
    assert phase is Phase.NEEDS_OPERATOR and operator is not None
    assert operator.code == "HookFailed" and "exit status 1" in operator.message
    assert made.runtime.names().count("run_hook") == 2
    assert made.runtime.names().count("power_on") == 1


@pytest.mark.parametrize(("policy", "outcome"), [("continue", "COMMITTED"), ("undo", "UNDONE")])
async def test_a_failed_hook_does_what_its_policy_says(policy: str, outcome: str) -> None:
    made = committing(world(hooks=[hook("power_on_target", "before", policy)]))
    made.runtime.script["run_hook"] = failing

    assert await made.live() == outcome

    # An auditor reads why, also where a policy and no person has decided.
    undone_by = "hook dns" if outcome == "UNDONE" else ""
    assert made.run.facts.undo.by == undone_by
    assert "exit status 1" in made.run.alarms[0]
    ons = [a.vm.site for n, a in made.runtime.issued if n == "power_on"]
    assert ons == (["production"] if outcome == "COMMITTED" else ["dr"])


async def test_a_hook_of_an_undo_step_that_fails_asks_a_person_whatever_its_policy() -> None:
    made = world(hooks=[hook("undo_protect_target", "before", "undo")])
    made.runtime.script["run_hook"] = failing
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.UNDO))
    made.runtime.after(2 * HOUR, lambda: made.ask(RequestKind.RETRY))

    assert await made.live() is Outcome.UNDONE
    assert made.runtime.names().count("run_hook") == 2


async def test_no_hook_is_called_after_a_preflight_that_refused() -> None:
    made = world(hooks=[hook("preflight", "after")])
    made.runtime.script["preflight"] = lambda a, n: ops.PreflightResult()

    assert await made.live() is Outcome.REFUSED
    assert made.runtime.names() == ["preflight"]


async def test_a_commit_that_is_durable_waits_for_no_hook() -> None:
    made = committing(world(hooks=[hook("commit", "after")]))
    made.runtime.script["run_hook"] = failing

    assert await made.live() is Outcome.COMMITTED

    assert made.cleaned and made.runtime.names().count("run_hook") == 1
    assert made.run.alarms and "failed: exit status 1" in made.run.alarms[0]
