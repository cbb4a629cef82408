"""Workers are replaced by those of a next version while a run waits."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase
from tests.workflow.next_versions import MOMENT, Careless, Patched
from tests.workflow.stand_ins import begin, until, working
from workflows.failback import FailbackWorkflow


async def moments(handle: WorkflowHandle[Any, Status]) -> int:
    """How often the run waited a moment, as only the next version does."""
    history = await handle.fetch_history()
    timers = [
        e.timer_started_event_attributes
        for e in history.events
        if e.HasField("timer_started_event_attributes")
    ]
    return sum(one.start_to_fire_timeout.ToTimedelta() == MOMENT for one in timers)


async def test_a_run_goes_on_in_the_next_version_and_a_new_one_begins_in_it(
    env: WorkflowEnvironment,
) -> None:
    async with working(env.client, workflow=FailbackWorkflow) as (_, queue):
        old = await begin(env.client, queue)
        await until(old, Phase.AWAITING_DECISION)

    async with working(env.client, queue, workflow=Patched):
        new = await begin(env.client, queue, {"replica": "web02"})
        await until(new, Phase.AWAITING_DECISION)
        for handle in (old, new):
            await handle.signal("commit")
            assert (await handle.result()).outcome is Outcome.COMMITTED

    assert (await moments(old), await moments(new)) == (0, 1)


async def test_a_careless_version_stops_a_run_and_the_former_one_takes_it_up_again(
    env: WorkflowEnvironment,
) -> None:
    async with working(env.client, workflow=FailbackWorkflow) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)

    async with working(env.client, queue, workflow=Careless):
        await handle.signal("commit")
        async with asyncio.timeout(30):
            while not await failed_tasks(handle):
                await asyncio.sleep(0.05)

    async with working(env.client, queue, workflow=FailbackWorkflow):
        assert (await handle.result()).outcome is Outcome.COMMITTED
    assert any("TMPRL1100" in one for one in await failed_tasks(handle))


async def failed_tasks(handle: WorkflowHandle[Any, Status]) -> list[str]:
    """Why workflow tasks failed."""
    history = await handle.fetch_history()
    return [
        event.workflow_task_failed_event_attributes.failure.message
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
