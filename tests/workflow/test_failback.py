"""Workflow `Failback` on a real server, with scripted activities."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from failback.contracts.operations import CleanTarget, PreflightResult, RunRef, WatchResult
from failback.contracts.plan import BeginAnswer
from failback.contracts.requests import Answer, Request
from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase, ReplicaState, RequestKind, StepName
from failback.preflight.evidence import refuse
from tests.unit.workflows.fake_runtime import TARGET
from tests.workflow.stand_ins import begin, until, wait_for_cancel, working


async def test_a_failback_is_committed_by_an_update(env: WorkflowEnvironment) -> None:
    async with working(env.client) as (site, queue):
        handle = await begin(env.client, queue)
        answer = await handle.execute_update("begin", result_type=BeginAnswer)
        await until(handle, Phase.AWAITING_DECISION)

        committed = await handle.execute_update(
            "commit", Request(by="ann", reason="all good"), result_type=Answer
        )
        status = await handle.result()

        assert answer.accepted and committed.accepted
        assert status.outcome is Outcome.COMMITTED and status.phase is Phase.CLOSED
        assert status.replica_state is ReplicaState.READY
        cleanup = env.client.get_workflow_handle(f"failback-cleanup/{status.run_id}")
        await cleanup.result()
        assert site.issued[-1] == "clean_target"


async def test_an_undo_signal_without_input_undoes(env: WorkflowEnvironment) -> None:
    async with working(env.client) as (site, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)

        await handle.signal("undo")
        status = await handle.result()

        assert status.outcome is Outcome.UNDONE
        assert status.replica_state is ReplicaState.FAILOVER
        assert site.issued[-2:] == ["restore_target", "close_run"]


async def test_a_refusal_completes_the_workflow_with_its_findings(env: WorkflowEnvironment) -> None:
    finding = refuse("REPLICA_STATE", "web01", "It is READY.", "Fail over first.")

    def preflight(argument: Any, count: int) -> PreflightResult:
        return PreflightResult(findings=(finding,))

    async with working(env.client, preflight=preflight) as (site, queue):
        handle = await begin(env.client, queue)
        answer = await handle.execute_update("begin", result_type=BeginAnswer)
        status = await handle.result()

        assert answer.accepted is False and answer.findings == (finding,)
        assert status.outcome is Outcome.REFUSED
        assert site.issued == ["preflight"]


@pytest.mark.parametrize("raw", ["garbage", {"replica": "No Such Key!"}, {}, 7, []])
async def test_a_start_that_is_not_understood_is_refused(
    env: WorkflowEnvironment, raw: Any
) -> None:
    async with working(env.client) as (site, queue):
        handle = await begin(env.client, queue, raw)

        status = await handle.result()

        assert status.outcome is Outcome.REFUSED
        assert status.findings[0].code == "INPUT_INVALID"
        assert site.issued == []


async def test_plain_json_starts_a_run(env: WorkflowEnvironment) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue, {"replica": "web01", "unknown_field": 1})
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("commit", {"by": "ann"})

        assert (await handle.result()).outcome is Outcome.COMMITTED


async def test_signals_with_garbage_are_recorded_and_never_wedge_the_run(
    env: WorkflowEnvironment,
) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("commit", "garbage")
        await handle.signal("commit", args=[{"by": 7}, "surplus"])
        await handle.signal("undo", {"replica_content": "burn"})
        await handle.signal("retry")

        status = await until(handle, Phase.AWAITING_DECISION)
        assert [answer.accepted for answer in status.requests] == [False] * 4
        await handle.signal("commit")
        assert (await handle.result()).outcome is Outcome.COMMITTED


async def test_commit_before_the_decision_point_is_refused(env: WorkflowEnvironment) -> None:
    gate = asyncio.Event()

    async def transport(argument: Any, count: int) -> None:
        while not gate.is_set():
            await asyncio.sleep(0.02)

    async with working(env.client, transport_changes=transport) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.SYNCING)

        answer = await handle.execute_update("commit", result_type=Answer)
        gate.set()

        assert answer.accepted is False
        assert "once the run awaits the decision" in answer.message
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("commit")
        await handle.result()


async def test_undo_waits_for_the_running_writer_and_then_compensates(
    env: WorkflowEnvironment,
) -> None:
    ended = []

    async def transport(argument: Any, count: int) -> None:
        try:
            await wait_for_cancel()
        finally:
            ended.append(site.issued.count("settle"))

    async with working(env.client, transport_changes=transport) as (site, queue):
        handle = await begin(env.client, queue)
        while site.issued.count("transport_changes") < 2:
            await asyncio.sleep(0.02)

        await handle.signal("undo")
        status = await handle.result()

        assert status.outcome is Outcome.UNDONE
        assert ended == [0, 0]
        assert site.issued[-4:] == ["settle", "remove_snapshot", "restore_target", "close_run"]


async def test_trouble_shows_what_to_do_and_retry_goes_on(env: WorkflowEnvironment) -> None:
    def protect(argument: Any, count: int) -> BaseException | None:
        if count == 0:
            return ApplicationError(
                "No room on ds1. Make room and send retry.",
                {"tried": "1 attempts", "unreachable": False},
                type="DiskFull",
                non_retryable=True,
            )
        return None

    async with working(env.client, protect_target=protect) as (_, queue):
        handle = await begin(env.client, queue)
        status = await until(handle, Phase.NEEDS_OPERATOR)

        assert status.operator is not None
        assert (status.operator.code, status.operator.tried) == ("DiskFull", "1 attempts")
        assert status.operator.may == (RequestKind.RETRY, RequestKind.UNDO)
        assert (await handle.execute_update("retry", result_type=Answer)).accepted
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("commit")
        assert (await handle.result()).outcome is Outcome.COMMITTED


async def test_cancelling_the_workflow_means_undo(env: WorkflowEnvironment) -> None:
    async def transport(argument: Any, count: int) -> None:
        await wait_for_cancel()

    async with working(env.client, transport_changes=transport) as (site, queue):
        handle = await begin(env.client, queue)
        while "transport_changes" not in site.issued:
            await asyncio.sleep(0.02)

        await handle.cancel()
        status = await handle.result()

        assert status.outcome is Outcome.UNDONE
        assert status.requests[-1].reason == "workflow cancellation"


async def test_cancelling_after_production_serves_is_rejected(env: WorkflowEnvironment) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)

        await handle.cancel()
        async with asyncio.timeout(20):
            while not (await until(handle, Phase.AWAITING_DECISION)).requests:
                await asyncio.sleep(0.02)
        await handle.signal("commit")
        status = await handle.result()

        assert status.outcome is Outcome.COMMITTED
        assert any("writes would be lost" in answer.message for answer in status.requests)


async def test_two_copies_running_raise_an_alarm_while_the_decision_is_awaited(
    env: WorkflowEnvironment,
) -> None:
    def watch(argument: Any, count: int) -> WatchResult:
        return WatchResult(alarm="two copies run")

    async with working(env.client, watch_decision=watch) as (_, queue):
        handle = await begin(env.client, queue)
        async with asyncio.timeout(20):
            while not (status := await until(handle, Phase.AWAITING_DECISION)).alarms:
                await asyncio.sleep(0.02)

        assert status.alarms == ("two copies run",)
        assert "Undo loses what production wrote" in status.warning
        await handle.signal("commit")
        await handle.result()


async def test_the_history_stays_small(env: WorkflowEnvironment) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("commit")
        await handle.result()

        history = await handle.fetch_history()

        assert len(history.events) <= 200
        largest = max(event.ByteSize() for event in history.events)
        assert largest <= 16 * 1024


@pytest.mark.parametrize("name", ["begin", *(kind.value for kind in RequestKind)])
async def test_an_update_that_nobody_could_answer_is_refused_and_leaves_no_trace(
    env: WorkflowEnvironment, name: str
) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)

        with pytest.raises(WorkflowUpdateFailedError) as surplus:
            await handle.execute_update(name, args=[{}, 2])
        assert "positional arguments" in str(surplus.value.cause)
        if name != "begin":
            for garbage in ("garbage", {"by": 7}, [1]):
                with pytest.raises(WorkflowUpdateFailedError) as caught:
                    await handle.execute_update(name, garbage)
                assert "is not understood" in str(caught.value.cause)
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update("no_such_update")

        status = await handle.query("status", result_type=Status)
        assert status.requests == ()
        events = (await handle.fetch_history()).events
        assert [
            event
            for event in events
            if event.HasField("workflow_execution_update_accepted_event_attributes")
            or event.HasField("workflow_task_failed_event_attributes")
        ] == []
        await handle.signal("commit")
        assert (await handle.result()).outcome is Outcome.COMMITTED


async def test_a_run_that_was_reset_finds_its_cleanup_under_way(env: WorkflowEnvironment) -> None:
    async def busy(argument: Any, count: int) -> None:
        await wait_for_cancel()

    async with working(env.client, clean_target=busy) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)
        run_id = handle.first_execution_run_id or ""
        cleanup = await env.client.start_workflow(
            "FailbackCleanup",
            CleanTarget(
                run=RunRef(run_id=run_id, replica="web01"),
                step=StepName.CLEAN_TARGET,
                patience=timedelta(minutes=1),
                target=TARGET,
                tracking_was=True,
            ),
            id=f"failback-cleanup/{run_id}",
            task_queue=queue,
        )
        await handle.signal("commit")

        assert (await handle.result()).outcome is Outcome.COMMITTED
        await cleanup.terminate()
