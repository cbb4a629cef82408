"""Starting a run: the workflow and its update `begin` in one call, or the workflow alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateHandle,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from failback.contracts.plan import BeginAnswer
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from starter import describe, rpc
from starter.errors import RunEnded

WORKFLOW_TYPE = "Failback"


async def start_alone(client: Client, task_queue: str, request: StartRequest) -> BeginAnswer:
    """Start without asking for preflight's answer; WorkflowAlreadyStartedError."""
    handle = await client.start_workflow(
        WORKFLOW_TYPE,
        request,
        id=describe.workflow_id(request.replica),
        task_queue=task_queue,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        static_summary=describe.summary(request),
        static_details=describe.details(request),
    )
    return BeginAnswer(
        accepted=True,
        workflow_id=handle.id,
        run_id=handle.first_execution_run_id or "",
        replica=request.replica,
    )


async def start_and_begin(
    client: Client, task_queue: str, request: StartRequest, answer_timeout: timedelta
) -> WorkflowUpdateHandle[BeginAnswer]:
    """Start and send `begin`; returns when a worker has taken it.

    Raises WorkflowAlreadyStartedError, and WorkerAbsent: then the run is started nevertheless.
    """
    operation: WithStartWorkflowOperation[Any, Status] = WithStartWorkflowOperation(
        WORKFLOW_TYPE,
        request,
        id=describe.workflow_id(request.replica),
        task_queue=task_queue,
        result_type=Status,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        static_summary=describe.summary(request),
        static_details=describe.details(request),
    )
    try:
        # The server answers "not accepted yet" before the deadline of a call and the SDK then
        # asks again for ever, so the bound has to be around all of it.
        async with asyncio.timeout(answer_timeout.total_seconds()):
            return await client.start_update_with_start_workflow(
                "begin",
                start_workflow_operation=operation,
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                result_type=BeginAnswer,
            )
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise await rpc.silent_worker(
            client, task_queue, answer_timeout, lead="The run is started and waits. "
        ) from error
    finally:
        await _retrieve(operation)


async def _retrieve(operation: WithStartWorkflowOperation[Any, Status]) -> None:
    """The operation keeps its own copy of the error, and asyncio complains when nobody reads it."""
    with contextlib.suppress(Exception, asyncio.CancelledError):
        async with asyncio.timeout(1):
            await operation.workflow_handle()


async def answer_of_begin(
    key: str,
    update: WorkflowUpdateHandle[BeginAnswer],
    look: Callable[[], Awaitable[Status]],
    interval: timedelta,
) -> BeginAnswer:
    """Wait for preflight; looks now and then whether it stands in NEEDS_OPERATOR instead."""
    while True:
        try:
            async with asyncio.timeout(interval.total_seconds()):
                return await update.result()
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            call = (await look()).operator
            if call is not None and not call.probing:
                raise rpc.needs_operator(key, call) from None
        except WorkflowUpdateFailedError as error:
            raise RunEnded(
                f"The run of VM replica {key} ended before preflight answered: {error.cause}.",
                f"See `failback status {key}`.",
            ) from error
