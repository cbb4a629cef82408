"""A run whose workflow is gone, and that a person wants to commit: what is done first."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from failback.contracts import operations as ops
from failback.contracts.base import Contract
from failback.contracts.remains import RecordedStep, Remains
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.words import Destination, Outcome, Phase, RequestKind, StepName
from tests.unit.workflows.fake_runtime import PLAN
from tests.unit.workflows.virtual_runtime import World, world
from workflows.rebuild import carried

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESULTS = {
    StepName.MARK_FAILBACK: ops.Done(evidence="FAILBACK"),
    StepName.REGISTER_TARGET: ops.Done(evidence="named"),
    StepName.POWER_ON_TARGET: ops.PowerOnResult(at=NOW, evidence="on"),
}


def recorded(step: StepName, result: Contract | None) -> RecordedStep:
    evidence = result.model_dump_json() if result is not None else ""
    at = NOW if result is not None else None
    return RecordedStep(
        step=step.value, intent_at=NOW, started_at=NOW, finished_at=at, evidence=evidence
    )


def taken_up(*finished: StepName, begun: StepName | None = None, power_on: bool = True) -> World:
    """A run of destination `new` of which the journal has these steps."""
    rows = [recorded(step, RESULTS[step]) for step in finished]
    if begun is not None:
        rows.append(recorded(begun, None))
    remains = Remains(
        replica="web01",
        run_id="run-1",
        plan=PLAN.model_copy(update={"final_name": "web01"}),
        request=StartRequest(
            replica="web01", destination=Destination.NEW, power_on_target=power_on
        ),
        steps=tuple(rows),
    )
    return world(carried=carried(remains, Phase.COMMITTING, Request(by="ann"), NOW))


MARKED, NAMED, ON = StepName.MARK_FAILBACK, StepName.REGISTER_TARGET, StepName.POWER_ON_TARGET


@pytest.mark.parametrize(
    ("made", "phase", "issued"),
    [
        (taken_up(MARKED, NAMED, ON), Phase.COMMITTING, []),
        (taken_up(MARKED, NAMED, power_on=False), Phase.COMMITTING, []),
        (taken_up(MARKED, NAMED, begun=ON), Phase.SWITCHING, ["power_on"]),
        (taken_up(MARKED, begun=NAMED), Phase.SWITCHING, ["register_target", "power_on"]),
        (
            taken_up(begun=MARKED),
            Phase.SWITCHING,
            ["set_replica_state", "register_target", "power_on"],
        ),
    ],
)
async def test_a_commit_first_does_what_is_missing_of_the_switch(
    made: World, phase: Phase, issued: list[str]
) -> None:
    assert made.run.phase is phase

    assert await made.runtime.drive(made.life.live(taken_up=True)) is Outcome.COMMITTED

    assert made.runtime.names() == [*issued, "close_run"]
    assert made.cleaned == [True]


async def test_until_the_commit_begins_the_run_can_still_be_undone() -> None:
    made = taken_up(MARKED, begun=NAMED)

    def undo(argument: ops.PowerOn, number: int) -> None:
        if argument.phase is Phase.SWITCHING:
            assert made.ask(RequestKind.UNDO, by="bob").accepted

    made.runtime.script["power_on"] = undo

    assert await made.runtime.drive(made.life.live(taken_up=True)) is Outcome.UNDONE
    settled = made.runtime.names().index("settle")
    assert made.runtime.names()[settled:] == [
        "settle",
        "power_off",
        "register_target",
        "set_replica_state",
        "close_run",
    ]
