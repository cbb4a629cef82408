"""The engine's Runtime on Temporal: the only place where steps become activities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    RetryState,
    TimeoutType,
)
from temporalio.exceptions import (
    TimeoutError as TemporalTimeout,
)

from failback.contracts.plan import Tuning
from workflows.engine import OperationError, OperationStopped, Run
from workflows.operations import Operation, Preset
from workflows.options import options


def mover_queue(control_queue: str, site: str) -> str:
    """Task queue of the movers that can reach the disks of a site."""
    return f"{control_queue}-mover-{site}"


class TemporalRuntime:
    """Runs operations as activities of the current workflow."""

    def __init__(self, run: Run, show: Callable[[], None]) -> None:
        self._run = run
        self._show = show

    async def run(
        self, operation: Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if stop():
            raise OperationStopped
        plan = self._run.facts.plan
        queue = workflow.info().task_queue
        if operation.preset is Preset.TRANSFER and plan is not None:
            queue = mover_queue(queue, plan.target.site)
        handle: workflow.ActivityHandle[Any] = workflow.start_activity(
            operation.name,
            argument,
            result_type=operation.result,
            task_queue=queue,
            summary=title[:200],
            **options(operation.preset, plan.tuning if plan else Tuning()),
        )
        await workflow.wait_condition(lambda: handle.done() or stop())
        if not handle.done():
            handle.cancel()
        try:
            result = await handle
        except asyncio.CancelledError as error:
            raise OperationStopped from error
        except ActivityError as error:
            # The retry state tells a cancel we asked for from every other end; the cause may be a
            # clean stop, a flush that failed on the way out, or a dead worker.
            if error.retry_state is RetryState.CANCEL_REQUESTED:
                raise OperationStopped from error
            raise _failure(error) from error
        if getattr(result, "stopped", False):
            raise OperationStopped
        return result

    async def wait(
        self, condition: Callable[[], bool], timeout: timedelta | None = None, summary: str = ""
    ) -> bool:
        try:
            await workflow.wait_condition(
                condition, timeout=timeout, timeout_summary=summary or None
            )
        except TimeoutError:
            return False
        return True

    def now(self) -> datetime:
        return workflow.now()

    def publish(self) -> None:
        self._show()

    def history_is_long(self) -> bool:
        plan, info = self._run.facts.plan, workflow.info()
        most = plan.tuning.history_events if plan else Tuning().history_events
        return info.is_continue_as_new_suggested() or info.get_current_history_length() >= most

    def patched(self, name: str) -> bool:
        return workflow.patched(name)


def _failure(error: ActivityError) -> OperationError:
    """What the engine needs to know of a failed activity."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        details: dict[str, Any] = {}
        evidence: Any = None
        if cause.details and isinstance(cause.details[0], dict):
            details = cause.details[0]
            evidence = details.get("evidence")
        return OperationError(
            cause.type or "Unknown",
            cause.message,
            tried=str(details.get("tried", "")),
            unreachable=bool(details.get("unreachable", False)),
            runs=str(evidence.get("runs", "")) if isinstance(evidence, dict) else "",
        )
    if isinstance(cause, TemporalTimeout):
        kind = cause.type.name if isinstance(cause.type, TimeoutType) else "unknown"
        return OperationError(
            "WorkerTimeout",
            f"The worker did not finish in time ({kind}); see its log, then send retry.",
        )
    return OperationError("Unknown", f"{error.message}: {cause}")
