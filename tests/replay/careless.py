"""What the small workflows might be after a careless change: each gives a command more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

from failback.contracts.operations import CleanTarget, Done
from failback.contracts.preview import Preview
from failback.contracts.remains import ReconcileRequest, Remains
from workflows.cleanup import CleanupWorkflow
from workflows.preview import PreviewWorkflow
from workflows.reconcile import ReconcileWorkflow

MOMENT = timedelta(milliseconds=7)


@workflow.defn(name="FailbackCleanup")
class Cleanup(CleanupWorkflow):
    """It waits before."""

    @workflow.run
    async def run(self, request: CleanTarget) -> Done:
        await workflow.sleep(MOMENT)
        return await super().run(request)


@workflow.defn(name="FailbackCleanup")
class CleanupAfter(CleanupWorkflow):
    """It waits after."""

    @workflow.run
    async def run(self, request: CleanTarget) -> Done:
        done = await super().run(request)
        await workflow.sleep(MOMENT)
        return done


@workflow.defn(name="FailbackReconcile")
class Reconcile(ReconcileWorkflow):
    """It waits after it has looked, and has begun what was asked for."""

    @workflow.run
    async def run(self, request: ReconcileRequest) -> Remains:
        remains = await super().run(request)
        await workflow.sleep(MOMENT)
        return remains


@workflow.defn(name="FailbackReconcile")
class ReconcileTwice(ReconcileWorkflow):
    """It starts something more."""

    @workflow.run
    async def run(self, request: ReconcileRequest) -> Remains:
        remains = await super().run(request)
        await workflow.start_child_workflow("FailbackPreview", {"replica": request.replica})
        return remains


@workflow.defn(name="FailbackPreview")
class LookingBefore(PreviewWorkflow):
    """It waits before."""

    @workflow.run
    async def run(self, raw: Any = None) -> Preview:
        await workflow.sleep(MOMENT)
        return await super().run(raw)
