"""A run as the catalog remembers it: facts and steps, out of the journal of its operations.

The workflow's own history may be gone, or belong to an execution that was terminated. What undo and
commit need is in the catalog: the request, the plan, and the result of every finished operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from failback.contracts.operations import RunRef
from failback.contracts.remains import RecordedStep, Remains
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.status import StepStatus
from failback.contracts.words import Phase, StepName
from workflows.attesting import declare
from workflows.carried import Carried
from workflows.facts import Facts
from workflows.steps import (
    PREFLIGHT,
    READY_TO_SWITCH,
    REBASE,
    RESYNC,
    Step,
    after_gate,
    before_gate,
    rest_of_switch,
)


def carried(remains: Remains, phase: Phase, request: Request, now: datetime) -> Carried:
    """What the next execution goes on from: in UNDOING or COMMITTING, or in SWITCHING where the
    switch has to be ended before the commit."""
    facts, steps = rebuild(remains)
    given: dict[str, Any] = {"generation": remains.generation + 1}
    given["commit" if phase is Phase.COMMITTING else "undo"] = request
    if phase is Phase.COMMITTING and before_commit(remains):
        phase = Phase.SWITCHING
    return Carried(
        facts=declare(facts.model_copy(update=given), request.attest_off),
        phase=phase,
        started_at=remains.started_at or now,
        steps=steps,
    )


def before_commit(remains: Remains) -> tuple[Step, ...]:
    """What is missing of the switch, and is done before a commit."""
    facts, steps = rebuild(remains)
    return rest_of_switch(facts, [row.name for row in steps if row.finished_at is not None])


def rebuild(remains: Remains) -> tuple[Facts, tuple[StepStatus, ...]]:
    """Walk the run's list and learn again what its finished steps said."""
    request = remains.request or StartRequest(replica=remains.replica)
    facts = Facts(
        run=RunRef(run_id=remains.run_id, replica=remains.replica),
        request=request,
        plan=remains.plan,
        cycle=_cycle(remains.steps),
    )
    known = [StepStatus(name=PREFLIGHT.name, title=PREFLIGHT.title, started_at=remains.started_at)]
    if remains.plan is None:
        return facts, tuple(known)
    known[0] = known[0].model_copy(update={"finished_at": remains.started_at})
    destination = request.destination
    for step in (
        *before_gate(destination),
        READY_TO_SWITCH,
        *REBASE,
        *RESYNC,
        *after_gate(destination),
    ):
        rows = [row for row in remains.steps if row.step == step.name.value]
        if not rows or any(row.name is step.name for row in known):
            continue
        finished = _results(step, rows)
        if finished is not None:
            facts = step.learn(facts, finished)
        known.append(_status(step, rows, finished is not None))
    return facts, tuple(known)


def _cycle(rows: Sequence[RecordedStep]) -> int:
    """Number of the cycle that began last: the mark of its read snapshot ends with it."""
    marks = [row.mark for row in rows if row.step == StepName.RESYNC_FREEZE.value]
    numbers = [mark.rpartition("/read-")[2] for mark in marks if "/read-" in mark]
    return max((int(number) for number in numbers if number.isdigit()), default=1)


def _results(step: Step, rows: Sequence[RecordedStep]) -> tuple[Any, ...] | None:
    """Results of all calls of a step; None where one has not finished."""
    if any(row.finished_at is None or not row.evidence for row in rows):
        return None
    model = step.operation.result
    return tuple(model.model_validate_json(row.evidence) for row in rows)


def _status(step: Step, rows: Sequence[RecordedStep], finished: bool) -> StepStatus:
    ends = [row.finished_at for row in rows if row.finished_at is not None]
    return StepStatus(
        name=step.name,
        title=step.title,
        started_at=min(row.intent_at for row in rows),
        finished_at=max(ends) if finished and ends else None,
        attempts=max(row.attempts for row in rows),
    )
