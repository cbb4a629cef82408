"""Activities that answer by script under the real wire names: workflows run on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from failback.contracts.plan import Tuning
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import Phase
from tests.unit.workflows.fake_runtime import PLAN, answer
from workflows import operations as op
from workflows.cleanup import CleanupWorkflow
from workflows.failback import FailbackWorkflow
from workflows.operations import Operation
from workflows.preview import PreviewWorkflow
from workflows.reconcile import ReconcileWorkflow
from workflows.runtime import mover_queue

ALL: tuple[Operation[Any, Any], ...] = tuple(
    value for value in vars(op).values() if isinstance(value, Operation)
)

QUICK = PLAN.model_copy(
    update={
        "tuning": Tuning(
            heartbeat_timeout=timedelta(seconds=3), probe_interval=timedelta(milliseconds=100)
        )
    }
)

Script = Callable[[Any, int], Any]


@dataclass
class Site:
    """Scripted answers by operation name; counts the calls."""

    client: Client
    queue: str
    script: dict[str, Script] = field(default_factory=dict)
    issued: list[str] = field(default_factory=list)

    def activities(self, names: set[str] | None = None) -> list[Callable[..., Any]]:
        """One activity per operation (of these names)."""
        return [self._activity(o) for o in ALL if names is None or o.name in names]

    def movers(self) -> Worker:
        """A worker for what moves bytes, not yet running."""
        return Worker(
            self.client,
            task_queue=mover_queue(self.queue, "production"),
            activities=self.activities({"transport_changes", "verify"}),
            max_heartbeat_throttle_interval=timedelta(milliseconds=100),
        )

    def _activity(self, operation: Operation[Any, Any]) -> Callable[..., Any]:
        async def run(argument: Any) -> Any:
            count = self.issued.count(operation.name)
            self.issued.append(operation.name)
            override = self.script.get(operation.name)
            if override is not None:
                result = override(argument, count)
                if asyncio.iscoroutine(result):
                    result = await result
                if isinstance(result, BaseException):
                    raise result
                if result is not None:
                    return result
            if operation is op.WATCH_DECISION:
                await wait_for_cancel()
            result = answer(operation, argument)
            if operation is op.PREFLIGHT and result.plan is not None:
                quick = result.plan.model_copy(update={"tuning": QUICK.tuning})
                return result.model_copy(update={"plan": quick})
            return result

        run.__annotations__ = {"argument": operation.argument, "return": operation.result}
        return activity.defn(name=operation.name)(run)


async def wait_for_cancel() -> None:
    """Beat until cancelled, as a long activity does."""
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def working(
    client: Client,
    on: str = "",
    workflow: type = FailbackWorkflow,
    *,
    moving: bool = True,
    **script: Script,
) -> AsyncIterator[tuple[Site, str]]:
    """Workers for control and, if `moving`, movers, on a queue of their own unless `on` names
    one."""
    queue = on or f"failback-{uuid.uuid4().hex[:8]}"
    site = Site(client, queue, script)
    control = Worker(
        client,
        task_queue=queue,
        workflows=[workflow, CleanupWorkflow, PreviewWorkflow, ReconcileWorkflow],
        activities=site.activities(),
        max_heartbeat_throttle_interval=timedelta(milliseconds=100),
    )
    async with control, site.movers() if moving else contextlib.nullcontext():
        yield site, queue


async def begin(
    client: Client, queue: str, request: StartRequest | dict[str, Any] | str | None = None
) -> WorkflowHandle[Any, Status]:
    """Start a run with an id of its own."""
    handle: WorkflowHandle[Any, Status] = await client.start_workflow(
        "Failback",
        StartRequest(replica="web01") if request is None else request,
        id=f"failback/{uuid.uuid4().hex[:8]}",
        task_queue=queue,
        result_type=Status,
    )
    return handle


async def until(handle: WorkflowHandle[Any, Any], *phases: Phase) -> Status:
    """Query until the run is in one of the phases."""
    async with asyncio.timeout(20):
        while True:
            status: Status = await handle.query("status", result_type=Status)
            if status.phase in phases:
                return status
            await asyncio.sleep(0.02)
