"""What steps hand on of VMs that nobody can ask, and of what people said of them."""

from __future__ import annotations

from typing import Any

import pytest

from failback.contracts.operations import RunRef
from failback.contracts.start import StartRequest
from failback.contracts.words import OldSource
from tests.unit.workflows.fake_runtime import PLAN, vm
from workflows.facts import Facts
from workflows.steps import AWAIT_DECISION, POWER_OFF_SOURCE, Step

OLD = vm("production", "vm-2", "web01-old")


def facts(request: dict[str, Any] | None = None, **plan: Any) -> Facts:
    known = {"old_source": OLD, "old_source_there": True, **plan}
    return Facts(
        run=RunRef(run_id="run-1", replica="web01"),
        request=StartRequest.model_validate({"replica": "web01", **(request or {})}),
        plan=PLAN.model_copy(update=known),
    )


def argument(step: Step, known: Facts) -> Any:
    (found,) = step.arguments(known, step)
    return found


@pytest.mark.parametrize("policy", list(OldSource))
def test_an_old_source_is_powered_off_only_by_a_run_that_may(policy: OldSource) -> None:
    found = argument(POWER_OFF_SOURCE, facts({"old_source": policy}))

    assert found.only_look is (policy is OldSource.REFUSE)


def test_the_watch_knows_who_is_answered_for() -> None:
    known = facts().model_copy(update={"attested_off": ("web01-old",)})

    assert argument(AWAIT_DECISION, known).attest_off == ("web01-old",)
