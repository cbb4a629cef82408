"""Names and descriptions of runs as the Temporal UI and the lists show them."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from temporalio.client import WorkflowExecution
from temporalio.common import SearchAttributeKey

from failback.contracts.base import ReplicaKey
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import Destination, Phase
from starter.errors import KeyInvalid
from starter.plugin import DESTINATION, PHASE, REPLICA
from starter.views import RunSummary

PREFIX = "failback/"
_KEY: TypeAdapter[str] = TypeAdapter(ReplicaKey)


def workflow_id(key: str) -> str:
    """Id of the replica's workflow: at most one of them is open. KeyInvalid."""
    return f"{PREFIX}{checked_key(key)}"


def checked_key(key: str) -> str:
    """The key itself; KeyInvalid when it is none."""
    try:
        return _KEY.validate_python(key)
    except ValidationError:
        raise KeyInvalid(
            f"{key!r} is not a replica key.",
            "A key has 1 to 63 characters: a-z, 0-9, dot, underscore and dash; it begins with a "
            "letter or digit.",
        ) from None


def summary(request: StartRequest) -> str:
    """One line for lists; Temporal allows 200 bytes."""
    return f"Fail {request.replica} back ({request.destination.value})"[:200]


def details(request: StartRequest) -> str:
    """What was asked for, as markdown: only what differs from the defaults."""
    lines = [f"Failback of VM replica `{request.replica}` to `{request.destination.value}`."]
    if request.by or request.reason:
        lines.append(f"Started by {request.by or 'unknown'}: {request.reason or 'no reason given'}")
    changed = request.model_dump(
        mode="json", exclude_defaults=True, exclude={"replica", "by", "reason"}
    )
    lines += [f"- `{name}`: `{value}`" for name, value in changed.items()]
    lines.append(
        "\nRequests: `commit`, `undo`, `switch_over`, `pause`, `resume`, `retry` (no input is "
        "needed), `reschedule`, `adjust`, `approve`."
    )
    return "\n".join(lines)[:15_000]


def last_known(key: str, execution: WorkflowExecution) -> Status:
    """What the server alone knows of a run: enough to say how it ended, not what it did."""
    phase = _keyword(execution, PHASE)
    destination = _keyword(execution, DESTINATION)
    return Status(
        workflow_id=execution.id,
        run_id=execution.run_id,
        replica=key,
        destination=Destination(destination)
        if destination in list(Destination)
        else Destination.ORIGINAL,
        phase=Phase(phase) if phase in list(Phase) else Phase.PREFLIGHT,
        started_at=execution.start_time,
    )


def summarised(execution: WorkflowExecution) -> RunSummary:
    """One line of the list of runs."""
    return RunSummary(
        replica=_keyword(execution, REPLICA) or execution.id.removeprefix(PREFIX),
        workflow_id=execution.id,
        run_id=execution.run_id,
        execution=execution_name(execution),
        phase=_keyword(execution, PHASE),
        destination=_keyword(execution, DESTINATION),
        started_at=execution.start_time,
        closed_at=execution.close_time,
    )


def execution_name(execution: WorkflowExecution) -> str:
    """RUNNING, COMPLETED, TERMINATED, FAILED, CANCELED, TIMED_OUT; UNKNOWN for newer ones."""
    return execution.status.name if execution.status is not None else "UNKNOWN"


def _keyword(execution: WorkflowExecution, key: SearchAttributeKey[Any]) -> str:
    value = execution.typed_search_attributes.get(key)
    return value if isinstance(value, str) else ""
