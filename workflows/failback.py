"""Workflow `Failback`: the whole life of one run."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import RunRef
from failback.contracts.plan import BeginAnswer, Finding
from failback.contracts.requests import Answer
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase, RequestKind, Severity
from workflows import requests, show
from workflows.cleanup import start_cleanup
from workflows.engine import Engine, OperationError, OperationStopped, Run, UndoAsked
from workflows.facts import Facts
from workflows.runtime import TemporalRuntime
from workflows.steps import AWAIT_DECISION, COMMIT, ORIGINAL, PREFLIGHT


@workflow.defn(name="Failback")
class FailbackWorkflow:
    """Brings one VM home: preflight, pass 1, switch, decision, commit or undo."""

    @workflow.init
    def __init__(self, raw: Any = None) -> None:
        # The raw value is validated here and not by the converter: input that does not fit must end
        # the run with a finding, while a converter error would fail the workflow task for ever.
        request, self.refused = _start_request(raw)
        ref = RunRef(run_id=workflow.info().first_execution_run_id, replica=request.replica)
        self.life = Run(Facts(run=ref, request=request))
        self.outcome: Outcome | None = None
        self.begun: BeginAnswer | None = None
        self.started_at = workflow.now()
        self.shown: Phase | None = None
        self.engine = Engine(self.life, TemporalRuntime(self.life, self._show))

    @workflow.run
    async def run(self, raw: Any = None) -> Status:
        """Live the life; a cancellation of the workflow means: stop at a safe point, then undo."""
        life = asyncio.create_task(self._life())
        while not life.done():
            try:
                await workflow.wait_condition(life.done)
            except asyncio.CancelledError:
                requests.cancelled(self.life, workflow.now())
        return life.result()

    async def _life(self) -> Status:
        engine = self.engine
        try:
            if self.refused is not None or not await self._preflight():
                self.outcome = Outcome.REFUSED
            else:
                await engine.forward(ORIGINAL)
                await self._decision()
                await engine.step(COMMIT)
                self.outcome = Outcome.COMMITTED
                await start_cleanup(self.life.facts)
        except UndoAsked:
            await engine.undo()
            self.outcome = Outcome.UNDONE
        self._begin_answered(self.outcome is not Outcome.REFUSED)
        engine.enter(Phase.CLOSED)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.status()

    async def _preflight(self) -> bool:
        """True when the run may go on."""
        await self.engine.step(PREFLIGHT)
        accepted = self.life.facts.plan is not None
        self._begin_answered(accepted)
        return accepted

    async def _decision(self) -> None:
        """Await commit or undo, and watch the power states meanwhile (invariant I1)."""
        life, engine = self.life, self.engine
        engine.enter(Phase.AWAITING_DECISION)
        watch = asyncio.create_task(self._watch())
        await workflow.wait_condition(lambda: life.undo_asked or life.commit_asked)
        # The watch sees the decision too and ends itself, its activity included.
        await watch
        if life.undo_asked:
            raise UndoAsked

    async def _watch(self) -> None:
        life, runtime = self.life, self.engine.runtime
        for argument in AWAIT_DECISION.arguments(life.facts, AWAIT_DECISION):
            while not (life.undo_asked or life.commit_asked):
                try:
                    result = await runtime.run(
                        AWAIT_DECISION.operation,
                        argument,
                        AWAIT_DECISION.title,
                        lambda: life.undo_asked or life.commit_asked,
                    )
                except (OperationStopped, OperationError) as error:
                    if isinstance(error, OperationStopped):
                        return
                    requests.alarm(life, f"The watch of the power states failed: {error.message}")
                else:
                    requests.alarm(life, result.alarm)
                self._show()
                # One alarm a quarter of an hour is enough to wake somebody.
                await runtime.wait(
                    lambda: life.undo_asked or life.commit_asked, requests.ALARM_INTERVAL
                )

    def _begin_answered(self, accepted: bool) -> None:
        if self.begun is None:
            info = workflow.info()
            self.begun = BeginAnswer(
                accepted=accepted,
                workflow_id=info.workflow_id,
                run_id=self.life.facts.run.run_id,
                replica=self.life.facts.request.replica if self.refused is None else None,
                findings=self.findings(),
            )

    def findings(self) -> tuple[Finding, ...]:
        """Findings of preflight, or the one about unusable input."""
        return (self.refused,) if self.refused is not None else self.life.facts.findings

    def _show(self) -> None:
        status = self.status()
        workflow.set_current_details(show.markdown(status))
        if self.shown is not self.life.phase:
            self.shown = self.life.phase
            workflow.upsert_search_attributes(show.search_attributes(status))

    @workflow.query(
        name="status", description="Phase, steps with evidence, disks, requests, errors"
    )
    def status(self) -> Status:
        return show.status(
            self.life,
            workflow_id=workflow.info().workflow_id,
            outcome=self.outcome,
            findings=self.findings(),
            started_at=self.started_at,
        )

    @workflow.update(name="begin", description="Wait for preflight: accepted, or the findings")
    async def begin(self, raw: Any = None) -> BeginAnswer:
        await workflow.wait_condition(lambda: self.begun is not None)
        if self.begun is None:
            raise ApplicationError("preflight has not ended", type="NotBegun")
        return self.begun

    def _admit(self, kind: RequestKind, raw: tuple[Any, ...]) -> Answer:
        answer = requests.admit(self.life, kind, raw, workflow.now())
        workflow.logger.info("request answered", extra={"kind": kind, "accepted": answer.accepted})
        self._show()
        return answer

    @workflow.signal(name="commit", description="Keep production: the replica becomes READY")
    def commit_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.COMMIT, raw)

    @workflow.update(name="commit", description="Keep production: the replica becomes READY")
    def commit_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.COMMIT, (raw,))

    @workflow.signal(name="undo", description="Go back to DR; what production wrote is lost")
    def undo_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.UNDO, raw)

    @workflow.update(name="undo", description="Go back to DR; what production wrote is lost")
    def undo_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.UNDO, (raw,))

    @workflow.signal(name="pause", description="Stop at the next checkpoint and wait")
    def pause_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.PAUSE, raw)

    @workflow.update(name="pause", description="Stop at the next checkpoint and wait")
    def pause_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.PAUSE, (raw,))

    @workflow.signal(name="resume", description="Go on after pause")
    def resume_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.RESUME, raw)

    @workflow.update(name="resume", description="Go on after pause")
    def resume_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.RESUME, (raw,))

    @workflow.signal(name="retry", description="Try the failed step again")
    def retry_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.RETRY, raw)

    @workflow.update(name="retry", description="Try the failed step again")
    def retry_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.RETRY, (raw,))


def _start_request(raw: Any) -> tuple[StartRequest, Finding | None]:
    """The start request, or a stand-in and the reason why the input cannot be used."""
    try:
        return StartRequest.model_validate(raw), None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "input"
        return StartRequest(replica="invalid"), Finding(
            code="INPUT_INVALID",
            severity=Severity.REFUSE,
            object=place,
            message=f"The start request is not understood: {place}: {first['msg']}.",
            remedy='Start with an object such as {"replica": "web01"}.',
        )
