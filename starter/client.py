"""`FailbackClient`: what other services use to start, watch and steer runs."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Self

from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from failback.contracts.plan import BeginAnswer
from failback.contracts.preview import Preview
from failback.contracts.remains import ReconcileRequest, Remains
from failback.contracts.requests import Answer, Request
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import RequestKind
from starter import describe, rpc
from starter.errors import (
    ClientError,
    FinishImpossible,
    RunEnded,
    RunOpen,
    RunUnknown,
    WorkerAbsent,
)
from starter.live import live_activities
from starter.plugin import connect
from starter.previewing import preview
from starter.starting import WORKFLOW_TYPE, answer_of_begin, start_alone, start_and_begin
from starter.views import RunSummary, RunView

TASK_QUEUE = "failback"


class FailbackClient:
    """Starts, watches and steers runs by the names on the wire; imports no workflow.

    Methods raise `starter.errors.ClientError`: TemporalUnreachable and TemporalRefused from any
    of them, KeyInvalid from those that take a key.

    Args:
        client: connected with `starter.plugin.connect`, or at least with its plugin.
        task_queue: where the workers poll.
        answer_timeout: how long a worker may take to answer a query or a request.
        poll_interval: pause between two looks while something is waited for.
    """

    def __init__(
        self,
        client: Client,
        *,
        task_queue: str = TASK_QUEUE,
        answer_timeout: timedelta = timedelta(seconds=10),
        poll_interval: timedelta = timedelta(seconds=2),
    ) -> None:
        self.client = client
        self.task_queue = task_queue
        self.answer_timeout = answer_timeout
        self.poll_interval = poll_interval

    @classmethod
    async def connect(
        cls, environ: Mapping[str, str] | None = None, *, task_queue: str = TASK_QUEUE
    ) -> Self:
        """Connect as the `TEMPORAL_*` variables say (default: those of this process)."""
        client = await connect(os.environ if environ is None else environ)
        return cls(client, task_queue=task_queue)

    async def start(self, request: StartRequest, *, wait: bool = True) -> BeginAnswer:
        """Start a run and wait for preflight: accepted, or refused with findings.

        With `wait=False` it returns as soon as the server has the run; `accepted` then only says
        that it was started: no worker need run yet, and preflight may still refuse.

        Raises:
            RunOpen: a run of this replica is open.
            WorkerAbsent: the run is started and waits, because no worker answers.
            OperatorNeeded: preflight itself stands in NEEDS_OPERATOR.
        """
        key = request.replica
        try:
            if not wait:
                return await start_alone(self.client, self.task_queue, request)
            update = await start_and_begin(
                self.client, self.task_queue, request, self.answer_timeout
            )
            return await answer_of_begin(key, update, lambda: self._query(key), self.poll_interval)
        except WorkflowAlreadyStartedError as error:
            raise RunOpen(
                f"A run of VM replica {key} is open already (run {error.run_id}).",
                f"See it with `failback status {key}`; another one can start when it is committed "
                "or undone.",
            ) from error
        except RPCError as error:
            raise rpc.translated(error, key) from error

    async def preview(self, request: StartRequest, request_id: str = "") -> Preview:
        """What a run of this request would do and what stands in its way; changes nothing.

        Args:
            request_id: part of the workflow's id; the answer to the same again is the same.

        Raises:
            WorkerAbsent: no worker answers.
        """
        return await preview(self.client, self.task_queue, request, request_id, self.answer_timeout)

    async def status(self, key: str) -> RunView:
        """The newest run of a replica, open or closed, with the live numbers of its disks.

        Raises:
            RunUnknown: there is none.
            WorkerAbsent: the run is open and no worker answers.
        """
        description = await self._described(key)
        execution = describe.execution_name(description)
        if description.status is WorkflowExecutionStatus.RUNNING:
            status = await self._query(key)
            live = await live_activities(description, self.client.data_converter)
            return RunView(status=status, execution=execution, live=live)
        if description.status is WorkflowExecutionStatus.COMPLETED:
            # The result is the last status, and reading it needs no worker.
            return RunView(status=await self._result(key, description.run_id), execution=execution)
        try:
            status = await self._query(key)
        except WorkerAbsent:
            status = describe.last_known(key, description)
        return RunView(status=status, execution=execution)

    async def wait(self, key: str) -> Status:
        """Wait for the end of the newest run, also across restarts of the server.

        Raises:
            RunUnknown: there is none.
            RunEnded: it was terminated or failed; nothing was undone.
        """
        run_id = (await self._described(key)).run_id
        while True:
            try:
                return await self._result(key, run_id)
            except ClientError as error:
                if not error.unreachable:
                    raise
                await asyncio.sleep(self.poll_interval.total_seconds())

    async def list(self) -> tuple[RunSummary, ...]:
        """All runs that the server remembers, newest first."""
        query = f'WorkflowType="{WORKFLOW_TYPE}"'
        try:
            found = [describe.summarised(item) async for item in self.client.list_workflows(query)]
        except RPCError as error:
            raise rpc.translated(error) from error
        epoch = datetime.min.replace(tzinfo=UTC)
        return tuple(sorted(found, key=lambda run: run.started_at or epoch, reverse=True))

    async def commit(self, key: str, request: Request | None = None) -> Answer:
        """Keep production. The answer says whether the run accepted it."""
        return await self._ask(RequestKind.COMMIT, key, request)

    async def undo(self, key: str, request: Request | None = None) -> Answer:
        """Go back to DR; what production wrote since the switch is lost."""
        return await self._ask(RequestKind.UNDO, key, request)

    async def pause(self, key: str, request: Request | None = None) -> Answer:
        """Stop at the next checkpoint and wait for `resume`."""
        return await self._ask(RequestKind.PAUSE, key, request)

    async def resume(self, key: str, request: Request | None = None) -> Answer:
        """Go on after `pause`."""
        return await self._ask(RequestKind.RESUME, key, request)

    async def retry(self, key: str, request: Request | None = None) -> Answer:
        """Try the failed step again."""
        return await self._ask(RequestKind.RETRY, key, request)

    async def switch_over(self, key: str, request: Request | None = None) -> Answer:
        """Move the work over now, or as soon as pass 1 is done."""
        return await self._ask(RequestKind.SWITCH_OVER, key, request)

    async def reschedule(self, key: str, request: Request) -> Answer:
        """Change when the work moves over: `request.switch`."""
        return await self._ask(RequestKind.RESCHEDULE, key, request)

    async def adjust(self, key: str, request: Request) -> Answer:
        """Change limits and who decides at the end: `request.limits`, `request.finalize`."""
        return await self._ask(RequestKind.ADJUST, key, request)

    async def approve(self, key: str, request: Request) -> Answer:
        """Approve, as a second person, the request whose id is `request.of`."""
        return await self._ask(RequestKind.APPROVE, key, request)

    async def reconcile(self, request: ReconcileRequest) -> Remains:
        """Look at what the newest run of a replica left whose workflow is gone; finish it if asked.

        Raises:
            RunOpen: its workflow is open: talk to that.
            FinishImpossible: the run cannot be finished in this way.
            WorkerAbsent: no worker answers.
        """
        key = request.replica
        try:
            description = await self._described(key)
        except RunUnknown:
            pass  # forgotten by the server; the catalog may know it
        else:
            if description.status is WorkflowExecutionStatus.RUNNING:
                raise RunOpen(
                    f"The workflow of VM replica {key} is open (run {description.run_id}): there "
                    "is nothing to reconcile.",
                    f"See it with `failback status {key}`; `failback undo {key}` ends it.",
                )
        try:
            async with asyncio.timeout(self.answer_timeout.total_seconds() * 4):
                remains: Remains = await self.client.execute_workflow(
                    "FailbackReconcile",
                    request,
                    id=f"failback-reconcile/{key}/{request.request.request_id or uuid.uuid4().hex}",
                    task_queue=self.task_queue,
                    result_type=Remains,
                    static_summary=f"Reconcile the newest run of {key}",
                )
        except TimeoutError as error:
            raise await self._silent() from error
        except WorkflowFailureError as error:
            raise FinishImpossible(f"{error.cause}", f"See `failback reconcile {key}`.") from error
        except RPCError as error:
            raise rpc.translated(error, key) from error
        return remains

    async def ask(self, kind: RequestKind, key: str, request: Request | None = None) -> Answer:
        """Any of them, by its kind."""
        return await self._ask(kind, key, request)

    async def _ask(self, kind: RequestKind, key: str, request: Request | None) -> Answer:
        """Send an update under the request's id, so that a repeat is harmless."""
        body = request or Request()
        if not body.request_id:
            body = body.model_copy(update={"request_id": uuid.uuid4().hex})
        try:
            async with asyncio.timeout(self.answer_timeout.total_seconds()):
                answer: Answer = await self._handle(key).execute_update(
                    kind.value,
                    # What was not said stays as it is, so it must not be sent as a default.
                    body.model_dump(mode="json", exclude_unset=True),
                    id=f"{kind.value}/{body.request_id}",
                    result_type=Answer,
                )
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            raise await self._silent() from error
        except WorkflowUpdateFailedError as error:
            message = f"The run did not take the request: {error.cause}"[:2000]
            return Answer(kind=kind, accepted=False, message=message, request_id=body.request_id)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return await self._ask_closed(kind, key, body)
            raise rpc.translated(error, key) from error
        return answer

    async def _ask_closed(self, kind: RequestKind, key: str, body: Request) -> Answer:
        """A run that has ended answers a repeat as it did the first time, and refuses all else."""
        view = await self.status(key)
        for earlier in view.status.requests:
            if earlier.request_id == body.request_id and earlier.kind is kind:
                return earlier
        how = view.status.outcome or view.execution
        return Answer(
            kind=kind,
            accepted=False,
            message=f"{kind.value} is not possible: the run has ended ({how}).",
            phase=view.status.phase,
            request_id=body.request_id,
            by=body.by,
            reason=body.reason,
        )

    def _handle(self, key: str, run_id: str | None = None) -> WorkflowHandle[object, Status]:
        return self.client.get_workflow_handle(
            describe.workflow_id(key), run_id=run_id, result_type=Status
        )

    async def _described(self, key: str, run_id: str | None = None) -> WorkflowExecutionDescription:
        try:
            return await self._handle(key, run_id).describe()
        except RPCError as error:
            raise rpc.translated(error, key) from error

    async def _query(self, key: str) -> Status:
        try:
            status: Status = await self._handle(key).query(
                "status", result_type=Status, rpc_timeout=self.answer_timeout
            )
        except WorkflowQueryFailedError as error:
            raise WorkerAbsent(
                f"The worker could not answer for VM replica {key}: {error}.",
                "Its version and the run may not fit: see its log.",
            ) from error
        except RPCError as error:
            if error.status in rpc.SILENCE:
                raise await self._silent() from error
            raise rpc.translated(error, key) from error
        return status

    async def _result(self, key: str, run_id: str) -> Status:
        try:
            return await self._handle(key, run_id).result()
        except WorkflowFailureError as error:
            ended = describe.execution_name(await self._described(key, run_id))
            raise RunEnded(
                f"The run of VM replica {key} ended as {ended}: {error.cause}.",
                "Nothing was undone and its claims remain: check both VMs.",
            ) from error
        except RPCError as error:
            raise rpc.translated(error, key) from error

    async def _silent(self) -> ClientError:
        return await rpc.silent_worker(self.client, self.task_queue, self.answer_timeout)
