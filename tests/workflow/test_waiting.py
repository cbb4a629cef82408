"""Waiting on a real server: executions follow one another, and the run stays the same."""

from __future__ import annotations

from temporalio.testing import WorkflowEnvironment

from failback.contracts.requests import Answer
from failback.contracts.words import Outcome, Phase, ReplicaState
from tests.replay.record import MANUAL, cycles, hurried
from tests.workflow.stand_ins import begin, until, working


async def test_a_run_that_waits_long_goes_on_in_another_execution(env: WorkflowEnvironment) -> None:
    async with working(env.client, "", preflight=hurried) as (site, queue):
        handle = await begin(env.client, queue, {"replica": "web01", **MANUAL})
        first = handle.first_execution_run_id
        await cycles(handle, 6)
        waiting = await until(handle, Phase.READY_TO_SWITCH)
        asked: Answer = await handle.execute_update("switch_over", result_type=Answer)
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("commit", {"by": "ann"})
        status = await handle.result()
        described = await env.client.get_workflow_handle(handle.id).describe()

    assert waiting.run_id == status.run_id == first
    assert described.run_id != first
    assert waiting.replica_state is ReplicaState.READY_TO_SWITCH
    assert asked.accepted and status.outcome is Outcome.COMMITTED
    # Every execution went on with the state that the one before had set, exactly once.
    assert site.issued.count("preflight") == 1
    assert site.issued.count("power_on") == 1
    assert waiting.gate is not None and waiting.gate.prediction is not None


async def test_a_bare_switch_over_signal_before_the_gate_is_remembered(
    env: WorkflowEnvironment,
) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue, {"replica": "web01", "switch": "manual"})
        await until(handle, Phase.SYNCING, Phase.READY_TO_SWITCH)
        await handle.signal("switch_over")
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("undo")
        status = await handle.result()

    assert status.outcome is Outcome.UNDONE
