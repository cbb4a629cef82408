"""Asking workflow `FailbackPreview` what a run would do."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from failback.contracts.preview import Preview
from failback.contracts.start import StartRequest
from starter import describe, rpc
from starter.errors import PreviewFailed

PREVIEW_TYPE = "FailbackPreview"
LONGEST = timedelta(minutes=15)
"""Then the server ends it: nobody waits any more, and it holds nothing."""


async def preview(
    client: Client,
    task_queue: str,
    request: StartRequest,
    request_id: str,
    answer_timeout: timedelta,
) -> Preview:
    """Start it and wait for its answer.

    Raises WorkerAbsent when no worker has taken it within `answer_timeout`: reading large sites
    may take longer than that, so from then on the wait is for the answer.
    """
    key = describe.checked_key(request.replica)
    try:
        handle = await _started(client, task_queue, request, request_id or uuid.uuid4().hex)
        try:
            async with asyncio.timeout(answer_timeout.total_seconds()):
                return await handle.result()
        except TimeoutError:
            if not await _taken(handle):
                raise await rpc.silent_worker(client, task_queue, answer_timeout) from None
        return await handle.result()
    except WorkflowFailureError as error:
        raise PreviewFailed(
            f"The preview of VM replica {key} did not end: {error.cause}.",
            "See the log of `failback-worker`, then ask again.",
        ) from error
    except RPCError as error:
        raise rpc.translated(error, key) from error


async def _started(
    client: Client, task_queue: str, request: StartRequest, request_id: str
) -> WorkflowHandle[object, Preview]:
    workflow_id = f"failback-preview/{request.replica}/{request_id}"
    try:
        return await client.start_workflow(
            PREVIEW_TYPE,
            request,
            id=workflow_id,
            task_queue=task_queue,
            result_type=Preview,
            execution_timeout=LONGEST,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"Preview: {describe.summary(request)}"[:200],
            static_details=describe.details(request),
        )
    except WorkflowAlreadyStartedError:
        # It has ended: the same question gets the same answer.
        return client.get_workflow_handle(workflow_id, result_type=Preview)


async def _taken(handle: WorkflowHandle[object, Preview]) -> bool:
    """Whether a worker has begun with it: then there is more than its start and its first task."""
    description = await handle.describe()
    ended = description.status is not WorkflowExecutionStatus.RUNNING
    return ended or description.history_length > 2
