"""Reads pending activities and their heartbeat details, tolerant of everything it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowExecutionDescription
from temporalio.converter import DataConverter

from failback.contracts.base import Contract
from failback.contracts.operations import TransferProgress, WatchProgress
from starter.views import LiveActivity

C = TypeVar("C", bound=Contract)

TEXT_LIMIT = 2000
ACTIVITY_LIMIT = 200

STATES: dict[int, str] = {
    PendingActivityState.PENDING_ACTIVITY_STATE_STARTED: "running",
    PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED: "stopping",
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED: "paused",
    PendingActivityState.PENDING_ACTIVITY_STATE_PAUSE_REQUESTED: "stopping",
}


async def live_activities(
    description: WorkflowExecutionDescription, converter: DataConverter
) -> tuple[LiveActivity, ...]:
    """Pending activities of a run; at most 200, which is more than a VM has disks."""
    pending = description.raw_description.pending_activities[:ACTIVITY_LIMIT]
    return tuple([await _live(info, converter) for info in pending])


async def _live(info: PendingActivityInfo, converter: DataConverter) -> LiveActivity:
    details = await _first(info.heartbeat_details.payloads, converter)
    next_try = _moment(info, "next_attempt_schedule_time")
    state = STATES.get(info.state)
    if state is None:
        state = "waiting for the next try" if next_try else "waiting for a worker"
    return LiveActivity(
        activity=info.activity_type.name[:255],
        state=state,
        attempt=max(info.attempt, 1),
        task_queue=info.activity_options.task_queue.name[:255],
        last_failure=info.last_failure.message[:TEXT_LIMIT],
        next_try_at=next_try,
        heartbeat_at=_moment(info, "last_heartbeat_time"),
        progress=_as(TransferProgress, details),
        watched=_as(WatchProgress, details),
    )


def _moment(info: PendingActivityInfo, field: str) -> datetime | None:
    if not info.HasField(field):  # type: ignore[arg-type]
        return None
    stamp: Any = getattr(info, field)
    from_zone: datetime = stamp.ToDatetime(tzinfo=UTC)
    return from_zone


async def _first(payloads: Sequence[Payload], converter: DataConverter) -> Any:
    """The first heartbeat detail; None when it is absent or unreadable."""
    if not payloads:
        return None
    try:
        return (await converter.decode(list(payloads)[:1]))[0]
    except Exception:  # a codec or converter may raise anything; progress is only a hint
        return None


def _as(kind: type[C], details: Any) -> C | None:
    """The details as this kind; None when they are foreign."""
    try:
        return kind.model_validate(details)
    except ValidationError:
        return None
