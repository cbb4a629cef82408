"""What steps hand on of VMs that nobody can ask, and of what people said of them."""

from __future__ import annotations

from typing import Any

from failback.contracts.operations import RunRef
from failback.contracts.start import StartRequest
from tests.unit.workflows.fake_runtime import PLAN, vm
from workflows.facts import Facts
from workflows.steps import AWAIT_DECISION, Step

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


def test_the_watch_knows_who_is_answered_for() -> None:
    known = facts().model_copy(update={"attested_off": ("web01-old",)})

    assert argument(AWAIT_DECISION, known).attest_off == ("web01-old",)
