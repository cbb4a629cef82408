"""Workflow `FailbackPreview` on a real server, with scripted activities, through the client."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from failback.contracts.preview import DiskForecast, LookAheadResult, Preview
from failback.contracts.start import StartRequest
from failback.contracts.words import Severity, StepName
from failback.preflight.evidence import refuse, warn
from starter.client import FailbackClient
from starter.errors import KeyInvalid, WorkerAbsent
from tests.unit.workflows.fake_runtime import PLAN
from tests.workflow.stand_ins import working

HASHED = PLAN.model_copy(update={"plan_hash": "p1-abc"})
DISK = DiskForecast(address="scsi0:0", capacity_bytes=9, examined_bytes=9, expected_bytes=3)


def seen(argument: Any, count: int) -> LookAheadResult:
    warning = warn("VTPM", "web01", "It has one.")
    return LookAheadResult(findings=(warning,), plan=HASHED, disks=(DISK,))


def client(env: WorkflowEnvironment, queue: str) -> FailbackClient:
    return FailbackClient(env.client, task_queue=queue, answer_timeout=timedelta(seconds=30))


def request() -> StartRequest:
    return StartRequest(replica=f"web-{uuid.uuid4().hex[:8]}")


async def test_it_answers_with_the_plan_and_issues_one_activity(env: WorkflowEnvironment) -> None:
    asked = request()
    async with working(env.client, look_ahead=seen) as (site, queue):
        found = await client(env, queue).preview(asked, request_id="mine")
        again = await client(env, queue).preview(asked, request_id="mine")

    assert found == again
    assert site.issued == ["look_ahead"]
    assert found.accepted and found.plan_hash == "p1-abc" and found.disks == (DISK,)
    assert [finding.code for finding in found.findings] == ["VTPM"]
    assert found.downtime < found.duration
    assert found.steps[0].name is StepName.PREFLIGHT
    handle = env.client.get_workflow_handle(f"failback-preview/{asked.replica}/mine")
    assert (await handle.describe()).workflow_type == "FailbackPreview"


async def test_a_refusal_has_findings_and_no_steps(env: WorkflowEnvironment) -> None:
    finding = refuse("TARGET_RUNS", "web01", "It runs.", "Shut it down.")

    def refused(argument: Any, count: int) -> LookAheadResult:
        return LookAheadResult(findings=(finding,))

    async with working(env.client, look_ahead=refused) as (_, queue):
        found = await client(env, queue).preview(request())

    assert not found.accepted and found.findings == (finding,)
    assert (found.steps, found.plan_hash) == ((), "")


async def test_an_activity_that_fails_for_good_is_a_finding(env: WorkflowEnvironment) -> None:
    def broken(argument: Any, count: int) -> ApplicationError:
        return ApplicationError(
            "The catalog is gone.", type="CatalogUnavailable", non_retryable=True
        )

    async with working(env.client, look_ahead=broken) as (_, queue):
        found = await client(env, queue).preview(request())

    assert not found.accepted
    assert [finding.code for finding in found.findings] == ["PREVIEW_FAILED"]


@pytest.mark.parametrize(
    "raw", [None, "web01", {"replica": "No Key"}, {"replica": "a", "hooks": 7}]
)
async def test_input_that_is_not_understood_is_a_finding(
    env: WorkflowEnvironment, raw: object
) -> None:
    async with working(env.client) as (site, queue):
        found = await run_raw(env.client, queue, raw)

    assert not found.accepted and site.issued == []
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("INPUT_INVALID", Severity.REFUSE)


async def run_raw(of: Client, queue: str, raw: object) -> Preview:
    answer: Preview = await of.execute_workflow(
        "FailbackPreview", raw, id=f"raw-{uuid.uuid4().hex}", task_queue=queue, result_type=Preview
    )
    return answer


async def test_without_a_worker_it_says_so(env: WorkflowEnvironment) -> None:
    nobody = FailbackClient(
        env.client, task_queue="nobody", answer_timeout=timedelta(milliseconds=300)
    )
    with pytest.raises(WorkerAbsent, match="nobody"):
        await nobody.preview(request())
    with pytest.raises(KeyInvalid):
        await nobody.preview(StartRequest.model_construct(replica="No Key"))
