"""Workflow `Failback`: the whole life of one run."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from failback.contracts.operations import RunRef
from failback.contracts.plan import BeginAnswer, Finding
from failback.contracts.requests import Answer
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase, RequestKind
from workflows import inputs, requests, show
from workflows.carried import Carried
from workflows.cleanup import start_cleanup
from workflows.engine import Engine, GoOnLater, Run
from workflows.facts import Facts
from workflows.life import Life
from workflows.runtime import TemporalRuntime

MEANING = {
    RequestKind.COMMIT: "Keep production: the replica becomes READY",
    RequestKind.UNDO: "Go back to DR; what production wrote is lost",
    RequestKind.PAUSE: "Stop at the next checkpoint and wait",
    RequestKind.RESUME: "Go on after pause",
    RequestKind.RETRY: "Try the failed step again",
    RequestKind.SWITCH_OVER: "Move the work over now, or as soon as the cycle under way is done",
    RequestKind.RESCHEDULE: "Change when the work moves over: field `switch`",
    RequestKind.ADJUST: "Change limits, or who decides at the end: fields `limits`, `finalize`",
    RequestKind.APPROVE: "Agree, as a second person, to the request whose id is in field `of`",
}
"""What people read of the requests in the Temporal UI and `temporal workflow metadata`."""


@workflow.defn(name="Failback")
class FailbackWorkflow:
    """Brings one VM home: preflight, pass 1, gate, switch, decision, commit or undo.

    The second argument is a run that goes on from another execution (workflows/carried.py).
    """

    @workflow.init
    def __init__(self, *raw: Any) -> None:
        # Raw values, as many as came, are read here and not by the SDK: input that does not fit
        # must end the run with a finding, while there it would fail the workflow task for ever.
        request, carried, self.refused = _begun_with(raw)
        self.carried, self.started_at = carried, workflow.now()
        if carried is not None:
            self.started_at = carried.started_at
            self.run_state = Run.take_up(carried)
        else:
            ref = RunRef(run_id=workflow.info().first_execution_run_id, replica=request.replica)
            self.run_state = Run(Facts(run=ref, request=request))
        self.outcome: Outcome | None = None
        self.begun: BeginAnswer | None = None
        self.shown: Phase | None = None
        self.runtime = TemporalRuntime(self.run_state, self._show)
        self.life = Life(Engine(self.run_state, self.runtime), self._begin_answered, self._clean)

    @workflow.run
    async def run(self, *raw: Any) -> Status:
        """Live the life; a cancellation of the workflow means: stop at a safe point, then undo."""
        life = asyncio.create_task(self._live())
        while not life.done():
            try:
                await workflow.wait_condition(life.done)
            except asyncio.CancelledError:
                self._cancelled()
        return life.result()

    def _cancelled(self) -> None:
        # Runs were undone by such a cancellation before. Asked only where it matters: the marker
        # that a patch leaves in the history is a command, too.
        counts = requests.left_to_people(self.run_state) and workflow.patched("left-power-on")
        requests.cancelled(self.run_state, workflow.now(), left_counts=counts)

    async def _live(self) -> Status:
        try:
            if self.carried is not None:
                self._begin_answered(True)
                self.outcome = await self.life.live(taken_up=True)
            elif self.refused is not None:
                self.outcome = Outcome.REFUSED
            else:
                self.outcome = await self.life.live()
        except GoOnLater:
            await workflow.wait_condition(workflow.all_handlers_finished)
            carried = self.run_state.carry(self.started_at, workflow.now())
            workflow.continue_as_new(args=[self.run_state.facts.request, carried])
        self._begin_answered(self.outcome is not Outcome.REFUSED)
        self.life.engine.enter(Phase.CLOSED)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.status()

    async def _clean(self) -> None:
        await start_cleanup(self.run_state.facts)

    def _begin_answered(self, accepted: bool) -> None:
        if self.begun is None:
            info = workflow.info()
            self.begun = BeginAnswer(
                accepted=accepted,
                workflow_id=info.workflow_id,
                run_id=self.run_state.facts.run.run_id,
                replica=self.run_state.facts.request.replica if self.refused is None else None,
                findings=self.findings(),
            )

    def findings(self) -> tuple[Finding, ...]:
        """Findings of preflight, or the one about unusable input."""
        return (self.refused,) if self.refused is not None else self.run_state.facts.findings

    def _show(self) -> None:
        status = self.status()
        workflow.set_current_details(show.markdown(status))
        if self.shown is not self.run_state.phase:
            self.shown = self.run_state.phase
            plan = self.run_state.facts.plan
            workflow.upsert_search_attributes(
                show.search_attributes(status, plan.plan_hash if plan is not None else "")
            )

    @workflow.query(
        name="status", description="Phase, steps with evidence, disks, requests, errors"
    )
    def status(self) -> Status:
        return show.status(
            self.run_state,
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
        now, patched = workflow.now(), self.runtime.patched
        answer = requests.admit(self.run_state, kind, raw, now, patched)
        workflow.logger.info("request answered", extra={"kind": kind, "accepted": answer.accepted})
        self._show()
        return answer

    @workflow.signal(name="commit", description=MEANING[RequestKind.COMMIT])
    def commit_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.COMMIT, raw)

    @workflow.update(name="commit", description=MEANING[RequestKind.COMMIT])
    def commit_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.COMMIT, (raw,))

    @workflow.signal(name="undo", description=MEANING[RequestKind.UNDO])
    def undo_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.UNDO, raw)

    @workflow.update(name="undo", description=MEANING[RequestKind.UNDO])
    def undo_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.UNDO, (raw,))

    @workflow.signal(name="pause", description=MEANING[RequestKind.PAUSE])
    def pause_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.PAUSE, raw)

    @workflow.update(name="pause", description=MEANING[RequestKind.PAUSE])
    def pause_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.PAUSE, (raw,))

    @workflow.signal(name="resume", description=MEANING[RequestKind.RESUME])
    def resume_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.RESUME, raw)

    @workflow.update(name="resume", description=MEANING[RequestKind.RESUME])
    def resume_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.RESUME, (raw,))

    @workflow.signal(name="retry", description=MEANING[RequestKind.RETRY])
    def retry_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.RETRY, raw)

    @workflow.update(name="retry", description=MEANING[RequestKind.RETRY])
    def retry_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.RETRY, (raw,))

    @workflow.signal(
        name="switch_over", description="Move the work over now, or as soon as pass 1 is done"
    )
    def switch_over_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.SWITCH_OVER, raw)

    @workflow.update(
        name="switch_over", description="Move the work over now, or as soon as pass 1 is done"
    )
    def switch_over_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.SWITCH_OVER, (raw,))

    @workflow.signal(name="reschedule", description=MEANING[RequestKind.RESCHEDULE])
    def reschedule_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.RESCHEDULE, raw)

    @workflow.update(name="reschedule", description=MEANING[RequestKind.RESCHEDULE])
    def reschedule_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.RESCHEDULE, (raw,))

    @workflow.signal(
        name="adjust",
        description="Change limits, or who decides at the end: fields limits, finalize",
    )
    def adjust_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.ADJUST, raw)

    @workflow.update(
        name="adjust",
        description="Change limits, or who decides at the end: fields limits, finalize",
    )
    def adjust_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.ADJUST, (raw,))

    @workflow.signal(
        name="approve", description="Agree, as a second person, to the request in field of"
    )
    def approve_signal(self, *raw: Any) -> None:
        self._admit(RequestKind.APPROVE, raw)

    @workflow.update(
        name="approve", description="Agree, as a second person, to the request in field of"
    )
    def approve_update(self, raw: Any = None) -> Answer:
        return self._admit(RequestKind.APPROVE, (raw,))

    def _understood(self, raw: Any = None) -> None:
        """Before an update is written to the history: refuse what nobody could answer. A surplus
        argument does not get here either; without a validator it would stop the run's tasks."""
        if (problem := requests.misunderstood(raw)) is not None:
            raise ApplicationError(f"The input {problem}", type="InputInvalid", non_retryable=True)

    @begin.validator
    def _any(self, raw: Any = None) -> None:
        """Only that there is no surplus argument."""

    for _update in (
        commit_update,
        undo_update,
        pause_update,
        resume_update,
        retry_update,
        switch_over_update,
        reschedule_update,
        adjust_update,
        approve_update,
    ):
        _update.validator(_understood)
    del _update


def _begun_with(raw: tuple[Any, ...]) -> tuple[StartRequest, Carried | None, Finding | None]:
    """The request, and the state of a run that goes on; or the reason why the input cannot be used
    and a stand-in."""
    try:
        if len(raw) > 1 and raw[1] is not None:
            carried = inputs.read(Carried, raw, at=1, most=2)
            return carried.facts.request, carried, None
        return inputs.start_request(raw, most=2), None, None
    except inputs.NotUnderstood as error:
        if workflow.info().continued_run_id is not None:
            # Ours, from a worker of another version. Refusing would end a run in the midst of its
            # work; its task fails instead, until a worker takes it that understands.
            text = f"This worker does not understand the run that goes on here ({error})."
            raise RuntimeError(text) from error
        return StartRequest(replica="invalid"), None, error.finding()
