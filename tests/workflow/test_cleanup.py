"""Workflow `FailbackCleanup` on a real server: it ends when all is tidy, and at no error."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from failback.contracts.operations import CleanTarget, Done, ProtectTarget, RunRef
from failback.contracts.remains import ReconcileRequest, Remains
from failback.contracts.start import StartRequest
from failback.contracts.words import Finish, Outcome, StepName
from failback.errors import PrivilegeMissing
from tests.activity import world
from tests.unit.workflows.fake_runtime import PLAN
from tests.workflow.stand_ins import wait_for_cancel, working
from workflows.cleanup import CleanupWorkflow, cleanup_id


async def test_a_cleanup_that_was_refused_tries_again(
    env: WorkflowEnvironment, tmp_path: Path
) -> None:
    made = world.make(tmp_path)
    made.run("protect_target", ProtectTarget(**made.head(), target=made.target, pairs=()))
    made.production.fail("remove_snapshot", PrivilegeMissing("It may not.", "Allow it."))
    queue = f"cleanup-{uuid.uuid4().hex[:8]}"

    with ThreadPoolExecutor(2) as threads:
        async with Worker(
            env.client,
            task_queue=queue,
            workflows=[CleanupWorkflow],
            activities=[made.activities["clean_target"]],
            activity_executor=threads,
        ):
            await env.client.execute_workflow(
                CleanupWorkflow.run,
                CleanTarget(**made.head(StepName.CLEAN_TARGET), target=made.target),
                id=cleanup_id(queue),
                task_queue=queue,
            )

    assert made.production.vm(made.target).snapshots == []
    assert len(made.catalog.alarms("run-1")) == 1
    made.catalog.close()


async def test_reconcile_has_a_cleanup_that_pauses_try_at_once(env: WorkflowEnvironment) -> None:
    run_id = uuid.uuid4().hex[:8]
    left = Remains(
        replica="web01",
        run_id=run_id,
        outcome=Outcome.COMMITTED,
        request=StartRequest(replica="web01"),
        plan=PLAN,
        may=(Finish.CLEANUP,),
    )

    trying = asyncio.Event()

    async def clean(argument: Any, count: int) -> Done:
        trying.set()
        if count == 0:
            await wait_for_cancel()
        return Done(evidence="tidy")

    script: dict[str, Any] = {"inspect_run": lambda *_: left, "clean_target": clean}
    async with working(env.client, **script) as (site, queue):
        argument = CleanTarget(
            run=RunRef(run_id=run_id, replica="web01"),
            step=StepName.CLEAN_TARGET,
            target=PLAN.target,
        )
        first = await env.client.start_workflow(
            CleanupWorkflow.run, argument, id=cleanup_id(run_id), task_queue=queue
        )

        await trying.wait()
        remains = await env.client.execute_workflow(
            "FailbackReconcile",
            ReconcileRequest(replica="web01", finish=Finish.CLEANUP),
            id=f"failback-reconcile/{run_id}",
            task_queue=queue,
            result_type=Remains,
        )

        newest = env.client.get_workflow_handle_for(CleanupWorkflow.run, cleanup_id(run_id))
        assert (await newest.result()).evidence == "tidy"
        assert remains.finishing is Finish.CLEANUP
        assert (await newest.describe()).run_id != first.result_run_id
        assert site.issued.count("clean_target") == 2
