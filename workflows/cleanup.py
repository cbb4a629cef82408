"""Workflow `FailbackCleanup`: what remains to be tidied after a commit.

It is a workflow of its own because the merge of the target protective snapshot may take hours, and
its troubles must never block production or the next failover.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from failback.contracts.operations import CleanTarget, Done
from failback.contracts.words import StepName
from workflows import inputs
from workflows.facts import Facts
from workflows.operations import CLEAN_TARGET


@workflow.defn(name="FailbackCleanup")
class CleanupWorkflow:
    """Remove the target protective snapshot, restore change tracking, remove the mark."""

    @workflow.run
    async def run(self, *raw: Any) -> Done:
        """Until it is done; input that is no CleanTarget fails it."""
        request = inputs.required(CleanTarget, raw)
        result: Done = await workflow.execute_activity(
            CLEAN_TARGET.name,
            request,
            result_type=CLEAN_TARGET.result,
            summary="Remove the target protective snapshot, restore tracking",
            # Merges take hours; production is served meanwhile.
            start_to_close_timeout=timedelta(days=7),
            heartbeat_timeout=request.heartbeat_timeout,
            # Nobody waits for it, so it never gives up: the activity fails retryably whatever the
            # error is, and tries leave no trace in the history. The longest pause is what a person
            # may wait who has put right what hindered it, and has not asked `reconcile` to hurry.
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=2), maximum_interval=timedelta(hours=1)
            ),
        )
        return result


def cleanup_id(run_id: str) -> str:
    """Workflow id of the cleanup of a run."""
    return f"failback-cleanup/{run_id}"


async def start_cleanup(facts: Facts) -> None:
    """Start the cleanup of a committed run; it lives on when the run ends."""
    try:
        await workflow.start_child_workflow(
            CleanupWorkflow.run,
            CleanTarget(
                run=facts.run,
                step=StepName.CLEAN_TARGET,
                target=facts.known.target,
                tracking_was=facts.known.target_tracking,
                heartbeat_timeout=facts.known.tuning.heartbeat_timeout,
            ),
            id=cleanup_id(facts.run.run_id),
            static_summary=f"Tidy up after the failback of {facts.run.replica}",
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
    except WorkflowAlreadyStartedError:
        # After a reset of the run to a point before its commit: that cleanup is this one.
        workflow.logger.info("the cleanup of this run is under way already")
