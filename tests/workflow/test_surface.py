"""What people and tools see of a run in Temporal: through the API, and with its own command."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle
from temporalio.converter import default as default_converter
from temporalio.testing import WorkflowEnvironment

from failback.contracts.operations import PreflightResult
from failback.contracts.plan import RunPlan
from failback.contracts.start import StartRequest
from failback.contracts.words import Phase, RequestKind
from starter.client import FailbackClient
from tests.helpers.stack import environment
from tests.unit.starter.stand_in import unique
from tests.workflow.stand_ins import QUICK, until, working

MANUAL = {"mode": "manual", "resync_interval": "PT1S"}
HASH = "0123456789abcdef"


def planned(argument: Any, count: int) -> PreflightResult:
    plan: RunPlan = QUICK.model_copy(update={"plan_hash": HASH})
    return PreflightResult(plan=plan)


def summary(event: HistoryEvent) -> str:
    """The text for people beside an event."""
    if not event.HasField("user_metadata"):
        return ""
    (text,) = default_converter().payload_converter.from_payloads([event.user_metadata.summary])
    return str(text)


async def shown(temporal: str, env: WorkflowEnvironment, *words: str) -> Any:
    """What Temporal's own command prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [temporal, "workflow", *words, "--output", "json"],
        env=environment(TEMPORAL_ADDRESS=env.client.service_client.config.target_host),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def eventually(read: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Visibility lags a little behind the runs."""
    async with asyncio.timeout(30):
        while not wanted(found := await read()):
            await asyncio.sleep(0.05)
    return found


async def test_what_a_run_shows(env: WorkflowEnvironment, temporal_path: str) -> None:
    key = unique("web")
    async with working(env.client, preflight=planned) as (_, queue):
        client = FailbackClient(env.client, task_queue=queue)
        request = StartRequest.model_validate(
            {"replica": key, "switch": MANUAL, "by": "ann", "reason": "site is back"}
        )
        assert (await client.start(request)).accepted
        handle: WorkflowHandle[Any, Any] = env.client.get_workflow_handle(f"failback/{key}")
        await until(handle, Phase.READY_TO_SWITCH)

        # What was asked for, as lists and the run's page show it.
        described = await handle.describe()
        assert await described.static_summary() == f"Fail {key} back (original)"
        details = await described.static_details() or ""
        assert "Started by ann: site is back" in details and "- `switch`:" in details

        # Where it stands, as markdown, and what may be sent, with what it means.
        metadata = await shown(temporal_path, env, "metadata", "--workflow-id", handle.id)
        (answer,) = metadata["queryResult"]
        assert "READY_TO_SWITCH" in answer["currentDetails"]
        assert "Waiting: it waits for switch_over." in answer["currentDetails"]
        definition = answer["definition"]
        for table in ("signalDefinitions", "updateDefinitions"):
            told = {one["name"]: one.get("description", "") for one in definition[table]}
            assert set(told) >= {kind.value for kind in RequestKind}
            assert all(told.values()), told
        queries = {
            one["name"]: one.get("description", "") for one in definition["queryDefinitions"]
        }
        assert queries["status"]

        # By what it is found.
        query = (
            f'FailbackReplica="{key}" AND FailbackPhase="READY_TO_SWITCH" '
            f'AND FailbackDestination="original" AND FailbackPlan="{HASH}"'
        )
        found = await eventually(
            lambda: shown(temporal_path, env, "list", "--query", query), lambda runs: len(runs) == 1
        )
        assert found[0]["execution"]["workflowId"] == handle.id

        await client.switch_over(key)
        await until(handle, Phase.AWAITING_DECISION)
        await client.commit(key)
        await handle.result()

    # Every step and every wait of its history says what it was for.
    events = (await handle.fetch_history()).events
    steps = [e for e in events if e.HasField("activity_task_scheduled_event_attributes")]
    waits = [e for e in events if e.HasField("timer_started_event_attributes")]
    assert len(steps) > 15 and waits
    assert [e for e in (*steps, *waits) if not summary(e)] == []
    assert {summary(e) for e in waits} <= {"Next cycle", "Scheduled switch", "Watch both VMs again"}
    assert "Power off the VM replica: downtime begins" in {summary(e) for e in steps}
