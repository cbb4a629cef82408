"""Workers that do not understand what a run asks of them: people hear of it, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import create_model
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.edge import bind
from failback.catalog import schema
from failback.catalog.repository import Catalog
from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase
from tests.workflow.stand_ins import ALL, Site, begin, until
from workflows import operations as op
from workflows.cleanup import CleanupWorkflow
from workflows.failback import FailbackWorkflow
from workflows.operations import Operation
from workflows.runtime import mover_queue


def newer(operation: Operation[Any, Any]) -> Operation[Any, Any]:
    """The operation as another version has it: it wants a field that nobody sends."""
    argument = create_model("Newer", __base__=operation.argument, added=(int, ...))
    return replace(operation, argument=argument)


def never(argument: Any, attempt: Any) -> Any:
    raise AssertionError("it must not be called with what it does not understand")


@contextlib.asynccontextmanager
async def half_upgraded(
    client: Client, folder: Path, queue: str, of_another_version: Operation[Any, Any] | None
) -> AsyncIterator[Site]:
    """Workers that know all operations but one, which they have in another version."""
    url = f"sqlite:///{folder}/catalog.db"
    schema.migrate(url)
    catalog, site = Catalog(url), Site(client, queue)
    activities = site.activities({one.name for one in ALL if one is not of_another_version})
    if of_another_version is not None:
        activities.append(bind(newer(of_another_version), never, catalog))
    with ThreadPoolExecutor(2) as threads, contextlib.closing(catalog):
        control = Worker(
            client,
            task_queue=queue,
            workflows=[FailbackWorkflow, CleanupWorkflow],
            activities=activities,
            activity_executor=threads,
            max_concurrent_activities=2,
        )
        mover = Worker(
            client,
            task_queue=mover_queue(queue, "production"),
            activities=site.activities({"transport_changes", "verify"}),
        )
        async with control, mover:
            yield site


async def test_a_watch_of_another_version_is_an_alarm_and_ends_the_automatism(
    env: WorkflowEnvironment, tmp_path: Path
) -> None:
    """It would be tried again for months, and two copies of one machine might run unseen."""
    queue = f"failback-{uuid.uuid4().hex[:8]}"
    async with half_upgraded(env.client, tmp_path, queue, op.WATCH_DECISION):
        request = {"replica": "web01", "finalize": {"mode": "auto_commit", "after": "P1D"}}
        handle = await begin(env.client, queue, request)
        async with asyncio.timeout(30):
            while len((status := await until(handle, Phase.AWAITING_DECISION)).alarms) < 2:
                await asyncio.sleep(0.02)

        assert status.finalize is not None and status.finalize.at is None
        assert "the watch failed" in status.finalize.ended
        watch, automatism = status.alarms
        assert "The watch of the power states failed: This worker does not understand" in watch
        assert "watch_decision (added: Field required)" in watch
        assert "auto_commit has ended" in automatism
        await commit(handle)


async def test_a_step_of_another_version_asks_a_person_and_goes_on_with_a_worker_that_fits(
    env: WorkflowEnvironment, tmp_path: Path
) -> None:
    queue = f"failback-{uuid.uuid4().hex[:8]}"
    async with half_upgraded(env.client, tmp_path, queue, op.PROTECT_TARGET):
        handle = await begin(env.client, queue)
        status = await until(handle, Phase.NEEDS_OPERATOR)

        assert status.operator is not None and status.operator.code == "VersionMismatch"
        assert "protect_target (added: Field required)" in status.operator.message
        assert status.operator.tried.startswith("1 attempts in")

    async with half_upgraded(env.client, tmp_path, queue, None):
        await handle.signal("retry")
        await until(handle, Phase.AWAITING_DECISION)
        await commit(handle)


async def commit(handle: WorkflowHandle[Any, Status]) -> None:
    await handle.signal("commit")
    assert (await handle.result()).outcome is Outcome.COMMITTED
