"""Turns what the Temporal SDK raises into sentences for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from failback.contracts.status import OperatorCall
from failback.contracts.words import RequestKind
from starter.errors import (
    ClientError,
    OperatorNeeded,
    RunUnknown,
    TemporalRefused,
    TemporalUnreachable,
    WorkerAbsent,
)

SILENCE = frozenset(
    {
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.FAILED_PRECONDITION,
    }
)
"""How a query ends that found no worker: the server's deadline or ours, or at once when the server
has not seen a poller for minutes."""

UNREACHABLE = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
    }
)


def translated(error: RPCError, key: str = "") -> ClientError:
    """The error of one call as ours."""
    if error.status in UNREACHABLE:
        return TemporalUnreachable(
            f"The Temporal server did not answer: {error.message}.",
            "Runs go on by themselves when it is back; try again then.",
        )
    if error.status is RPCStatusCode.NOT_FOUND:
        if "namespace" in error.message.lower():
            return TemporalRefused(
                f"The Temporal server says: {error.message}",
                "Check TEMPORAL_NAMESPACE, or create the namespace.",
            )
        return RunUnknown(
            f"There is no run of VM replica {key}.",
            f"Start one with `failback start {key}`; `failback list` shows all runs.",
        )
    return TemporalRefused(
        f"The Temporal server refused the call ({error.status.name}): {error.message}.",
        "Check TEMPORAL_NAMESPACE and what this account may do there.",
    )


def needs_operator(key: str, call: OperatorCall) -> OperatorNeeded:
    """NEEDS_OPERATOR as an error: why, and what to type."""
    return OperatorNeeded(
        f"The run of VM replica {key} needs an operator in step {call.step.value} "
        f"({call.code}): {call.message}",
        what_to_type(key, call.may),
    )


def what_to_type(key: str, may: tuple[RequestKind, ...]) -> str:
    """One sentence with the commands that are allowed."""
    commands = " or ".join(f"`failback {kind.value} {key}`" for kind in may)
    return f"Type {commands}." if commands else ""


async def silent_worker(
    client: Client, task_queue: str, waited: timedelta, lead: str = ""
) -> ClientError:
    """Why nobody answered, from what the server knows of the pollers."""
    late = f"{lead}No worker of task queue {task_queue} answered within {_seconds(waited)}"
    start = "start `failback-worker`"
    try:
        pollers = (
            await client.workflow_service.describe_task_queue(
                DescribeTaskQueueRequest(
                    namespace=client.namespace,
                    task_queue=TaskQueue(name=task_queue),
                    task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
                ),
                timeout=timedelta(seconds=5),
            )
        ).pollers
    except RPCError as error:
        if error.status in UNREACHABLE:
            return translated(error)
        return WorkerAbsent(f"{late}.", f"If none runs: {start}.")
    if not pollers:
        return WorkerAbsent(f"{lead}No worker polls task queue {task_queue}: {start}.")
    last = max(poller.last_access_time.ToDatetime(tzinfo=UTC) for poller in pollers)
    ago = max(0, round((datetime.now(UTC) - last).total_seconds()))
    return WorkerAbsent(
        f"{late}; the last one polled {ago} s ago.",
        f"If it is stopped: {start}; if it runs, see its log.",
    )


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.3g} s"
