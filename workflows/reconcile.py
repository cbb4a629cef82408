"""Workflow `FailbackReconcile`: says what a run left behind, and finishes it when asked to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from failback.contracts.operations import CleanTarget, InspectRun, RunRef
from failback.contracts.remains import ReconcileRequest, Remains
from failback.contracts.words import Finish, Phase, StepName
from workflows import inputs
from workflows.attesting import problem, unsigned
from workflows.cleanup import CleanupWorkflow, cleanup_id
from workflows.operations import INSPECT_RUN
from workflows.options import RETRY
from workflows.rebuild import before_commit, carried, rebuild


@workflow.defn(name="FailbackReconcile")
class ReconcileWorkflow:
    """Looks at catalog and sites. To finish a run is to start its workflow again where undo or
    commit begins: everything that they do is safe to do again."""

    @workflow.run
    async def run(self, *raw: Any) -> Remains:
        """Look; finish if asked to. FinishImpossible says what may be done instead."""
        request = inputs.required(ReconcileRequest, raw)
        remains: Remains = await workflow.execute_activity(
            INSPECT_RUN.name,
            InspectRun(run=RunRef(run_id="", replica=request.replica), step=StepName.SETTLE),
            result_type=Remains,
            summary=f"Look at what the newest run of {request.replica} left",
            # Two sites are read once; a site that is away is said, not waited for.
            start_to_close_timeout=timedelta(minutes=15),
            heartbeat_timeout=timedelta(seconds=60),
            retry_policy=RETRY,
        )
        if Finish.COMMIT in remains.may:
            first = tuple(step.title for step in before_commit(remains))
            remains = remains.model_copy(update={"first": first})
        if request.finish is None:
            return remains
        if request.finish not in remains.may:
            may = ", ".join(remains.may) or "nothing"
            why = remains.no_commit if request.finish is Finish.COMMIT else ""
            raise _impossible(
                f"{request.finish} is not possible for the newest run of {request.replica} "
                f"({remains.outcome or remains.phase or 'there is none'}); possible: {may}. "
                f"{why}".rstrip()
            )
        said, facts = request.request, rebuild(remains)[0]
        unclear = unsigned(said) or problem(facts, said)
        if unclear is not None and workflow.patched("attests-by-reference"):
            raise _impossible(unclear)
        try:
            await self._finish(request, remains)
        except WorkflowAlreadyStartedError as error:
            text = f"A workflow of {request.replica} is open: talk to it instead."
            raise _impossible(text) from error
        return remains.model_copy(update={"finishing": request.finish})

    async def _finish(self, request: ReconcileRequest, remains: Remains) -> None:
        if request.finish is Finish.CLEANUP:
            await self._cleanup(remains)
            return
        phase = Phase.UNDOING if request.finish is Finish.UNDO else Phase.COMMITTING
        await workflow.start_child_workflow(
            "Failback",
            args=[
                remains.request,
                carried(remains, phase, request.request, workflow.now()),
            ],
            id=f"failback/{request.replica}",
            static_summary=f"Fail {request.replica} back: {request.finish}, by reconcile",
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )

    async def _cleanup(self, remains: Remains) -> None:
        assert remains.plan is not None
        await workflow.start_child_workflow(
            CleanupWorkflow.run,
            CleanTarget(
                run=RunRef(run_id=remains.run_id, replica=remains.replica),
                step=StepName.CLEAN_TARGET,
                target=remains.plan.target,
                tracking_was=remains.plan.target_tracking,
                heartbeat_timeout=remains.plan.tuning.heartbeat_timeout,
            ),
            id=cleanup_id(remains.run_id),
            static_summary=f"Tidy up after the failback of {remains.replica}",
            # One that is under way may pause for an hour; who asks has put right what hindered it.
            id_reuse_policy=WorkflowIDReusePolicy.TERMINATE_IF_RUNNING,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )


def _impossible(why: str) -> ApplicationError:
    return ApplicationError(why, type="FinishImpossible", non_retryable=True)
