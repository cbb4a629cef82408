"""A workflow with the wire names of the real one, small enough to be steered by its reason."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

from failback.contracts.operations import TransferProgress
from failback.contracts.plan import BeginAnswer, Finding
from failback.contracts.requests import Answer, Request
from failback.contracts.start import StartRequest
from failback.contracts.status import OperatorCall, Status
from failback.contracts.words import Outcome, Phase, RequestKind, Severity, StepName

REFUSED = "refuse me"
NEEDS_OPERATOR = "stop in preflight"
PROGRESS = TransferProgress(
    address="scsi0:0",
    pass_no=1,
    total_bytes=1000,
    examined_bytes=400,
    different_bytes=30,
    written_bytes=20,
    resumed_bytes=10,
)
FINDING = Finding(
    code="NOT_IN_FAILOVER", severity=Severity.REFUSE, object="replica web01", message="It is READY"
)


@activity.defn(name="transport_changes")
async def beat_progress() -> None:
    """Beat numbers until the run ends."""
    await _beat(PROGRESS)


@activity.defn(name="watch_decision")
async def beat_nonsense() -> None:
    """Beat something that no client knows."""
    await _beat(["who", {"knows": 1}])


async def _beat(details: Any) -> None:
    while True:
        activity.heartbeat(details)
        await asyncio.sleep(0.02)


@workflow.defn(name="Failback")
class StandIn:
    """Answers like the real one; stays in AWAITING_DECISION until commit or undo."""

    @workflow.init
    def __init__(self, request: StartRequest) -> None:
        self.request = request
        self.phase = Phase.PREFLIGHT
        self.outcome: Outcome | None = None
        self.answers: list[Answer] = []
        self.begun = False

    @workflow.run
    async def run(self, request: StartRequest) -> Status:
        beats = []
        if request.reason == NEEDS_OPERATOR:
            self.phase = Phase.NEEDS_OPERATOR
            await workflow.wait_condition(lambda: self.outcome is not None)
        elif request.reason == REFUSED:
            self.outcome = Outcome.REFUSED
        else:
            beats = [
                workflow.start_activity(
                    name,
                    start_to_close_timeout=timedelta(minutes=5),
                    heartbeat_timeout=timedelta(seconds=5),
                )
                for name in ("transport_changes", "watch_decision")
            ]
            self.phase = Phase.AWAITING_DECISION
        self.begun = True
        await workflow.wait_condition(lambda: self.outcome is not None)
        for beat in beats:
            beat.cancel()
        self.phase = Phase.CLOSED
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.status()

    @workflow.query(name="status")
    def status(self) -> Status:
        operator = OperatorCall(
            from_phase=Phase.PREFLIGHT,
            step=StepName.PREFLIGHT,
            code="LoginRefused",
            message="The account was not accepted at site dr.",
            may=(RequestKind.RETRY, RequestKind.UNDO),
        )
        return Status(
            workflow_id=workflow.info().workflow_id,
            run_id=workflow.info().run_id,
            replica=self.request.replica,
            phase=self.phase,
            outcome=self.outcome,
            operator=operator if self.phase is Phase.NEEDS_OPERATOR else None,
            requests=tuple(self.answers),
        )

    @workflow.update(name="begin")
    async def begin(self) -> BeginAnswer:
        await workflow.wait_condition(lambda: self.begun)
        refused = self.outcome is Outcome.REFUSED
        return BeginAnswer(
            accepted=not refused,
            workflow_id=workflow.info().workflow_id,
            run_id=workflow.info().run_id,
            replica=self.request.replica,
            findings=(FINDING,) if refused else (),
        )

    def _answer(self, kind: RequestKind, request: Request | None, ok: bool = True) -> Answer:
        body = request or Request()
        answer = Answer(
            kind=kind,
            accepted=ok,
            message="" if ok else f"{kind.value} is not possible here",
            phase=self.phase,
            request_id=body.request_id,
            by=body.by,
        )
        self.answers.append(answer)
        return answer

    @workflow.update(name="commit")
    def commit(self, request: Request | None = None) -> Answer:
        self.outcome = Outcome.COMMITTED
        return self._answer(RequestKind.COMMIT, request)

    @workflow.update(name="undo")
    def undo(self, request: Request | None = None) -> Answer:
        self.outcome = Outcome.UNDONE
        return self._answer(RequestKind.UNDO, request)

    @workflow.update(name="pause")
    def pause(self, request: Request | None = None) -> Answer:
        return self._answer(RequestKind.PAUSE, request)

    @workflow.update(name="resume")
    def resume(self, request: Request | None = None) -> Answer:
        return self._answer(RequestKind.RESUME, request)

    @workflow.update(name="retry")
    def retry(self, request: Request | None = None) -> Answer:
        return self._answer(RequestKind.RETRY, request, ok=False)


@contextlib.asynccontextmanager
async def working(client: Client, queue: str) -> AsyncIterator[None]:
    """A worker of the stand-in."""
    async with Worker(
        client,
        task_queue=queue,
        workflows=[StandIn],
        activities=[beat_progress, beat_nonsense],
        max_heartbeat_throttle_interval=timedelta(milliseconds=50),
    ):
        yield


def unique(prefix: str) -> str:
    """A name of its own for every test: the server is shared."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"
