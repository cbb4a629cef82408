"""What the workflow might be in a next version: it waits a moment before it begins."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

from failback.contracts.status import Status
from workflows.failback import FailbackWorkflow

PATCH = "wait-a-moment"
MOMENT = timedelta(milliseconds=7)


@workflow.defn(name="Failback")
class Patched(FailbackWorkflow):
    """The new command is given only by runs that began with it."""

    @workflow.init
    def __init__(self, *raw: Any) -> None:
        super().__init__(*raw)

    @workflow.run
    async def run(self, *raw: Any) -> Status:
        if workflow.patched(PATCH):
            await workflow.sleep(MOMENT)
        return await super().run(*raw)


@workflow.defn(name="Failback")
class Careless(FailbackWorkflow):
    """The new command is given by every run, also by one that began without it."""

    @workflow.init
    def __init__(self, *raw: Any) -> None:
        super().__init__(*raw)

    @workflow.run
    async def run(self, *raw: Any) -> Status:
        await workflow.sleep(MOMENT)
        return await super().run(*raw)
