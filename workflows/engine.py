"""Walks a step list: issues, records, interrupts, compensates, and stops for an operator.

It knows a small Runtime (run an operation, wait, now, publish) and not Temporal, so that a unit
test or a simulation can drive the very code that production runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from failback.contracts import operations as ops
from failback.contracts.requests import Answer, Request
from failback.contracts.status import OperatorCall, StepStatus
from failback.contracts.words import Phase, StepName
from workflows import operations as op
from workflows.facts import Facts
from workflows.state import may_ask_operator
from workflows.steps import Step, head, undo_list


class OperationError(Exception):
    """An operation failed for good, or for longer than patience allows.

    Args:
        code: stable type name of the error (failback/errors.py).
        message: one sentence for people, with the remedy.
        unreachable: waiting may cure it, so the engine probes and goes on by itself.
    """

    def __init__(self, code: str, message: str, tried: str = "", unreachable: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.tried = tried
        self.unreachable = unreachable


class OperationStopped(Exception):
    """The operation was cancelled because its `stop` became true; its worker has ended it."""


class UndoAsked(Exception):
    """Leave the forward list: an undo was accepted."""


class Runtime(Protocol):
    """What the engine needs of the world."""

    async def run(
        self,
        operation: op.Operation[Any, Any],
        argument: Any,
        title: str,
        stop: Callable[[], bool],
    ) -> Any:
        """Run one operation to its end: OperationError, OperationStopped."""
        ...

    async def wait(self, condition: Callable[[], bool], timeout: timedelta | None = None) -> bool:
        """Wait until the condition holds; False when the timeout came first."""
        ...

    def now(self) -> datetime: ...

    def publish(self) -> None:
        """Show the changed state to people."""
        ...


@dataclass
class Run:
    """Mutable state of one run: handlers write requests into it, the engine everything else."""

    facts: Facts
    phase: Phase = Phase.PREFLIGHT
    paused: bool = False
    steps: list[StepStatus] = field(default_factory=list)
    operator: OperatorCall | None = None
    undo_asked: bool = False
    commit_asked: bool = False
    retries: int = 0
    """How many retries were asked for; the engine compares it with what it saw before."""
    answers: list[Answer] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    def started(self) -> list[StepName]:
        """Steps that were issued at least once."""
        return [step.name for step in self.steps if step.started_at is not None]

    def merge_undo(self, request: Request) -> None:
        """Later answers win, earlier ones stay where the later request is silent."""
        given = {name: getattr(request, name) for name in request.model_fields_set}
        undo = self.facts.undo.model_copy(update=given)
        self.facts = self.facts.model_copy(update={"undo": undo})


class Engine:
    """Walks the lists for one run."""

    def __init__(self, run: Run, runtime: Runtime) -> None:
        self.run = run
        self.runtime = runtime

    async def forward(self, steps: Sequence[Step]) -> None:
        """Walk a list. UndoAsked when an undo was accepted on the way."""
        for step in steps:
            await self._pause_point()
            await self.step(step)

    async def undo(self) -> None:
        """Walk the compensations of everything that was reached; nothing can stop this. A skipped
        step counts: a target that was not to be powered on may have been, by hand."""
        self.enter(Phase.UNDOING)
        for step in undo_list([row.name for row in self.run.steps]):
            await self.step(step)

    async def step(self, step: Step) -> None:
        """Issue one step until it succeeds, an undo is accepted, or for ever."""
        self.enter(step.phase)
        while True:
            arguments = step.arguments(self.run.facts, step)
            if not arguments:
                self._record(step, skipped=True)
                return
            self._record(step, started=True)
            try:
                results = await self._issue(step, arguments)
            except OperationStopped:
                await self._pause_point()
                continue
            except OperationError as error:
                if step.undo_on(self.run.facts, error.code) and self._may_undo():
                    self.run.undo_asked = True
                    raise UndoAsked from error
                await self._ask_operator(step, error)
                continue
            self.run.facts = step.learn(self.run.facts, results)
            self._record(step, finished=True, evidence=evidence_of(results))
            if self._leaving():
                raise UndoAsked
            return

    def enter(self, phase: Phase) -> None:
        """Change the phase and show it."""
        if self.run.phase is not phase:
            self.run.phase = phase
            self.runtime.publish()

    async def _issue(self, step: Step, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Run all calls of a step side by side. When one fails the others stop at a checkpoint, so
        that a person is asked at once and no writer is left behind."""
        stop, failed = self._stop(step), False

        async def call(argument: Any) -> Any:
            nonlocal failed
            try:
                return await self.runtime.run(
                    step.operation, argument, title_of(step, argument), lambda: failed or stop()
                )
            except OperationError:
                failed = True
                raise

        outcomes = await asyncio.gather(*map(call, arguments), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        unexpected = [f for f in failures if not isinstance(f, OperationError | OperationStopped)]
        for kind in (unexpected, [f for f in failures if isinstance(f, OperationError)], failures):
            if kind:
                raise kind[0]
        return tuple(outcomes)

    def _stop(self, step: Step) -> Callable[[], bool]:
        pausable = step.phase in (Phase.SYNCING, Phase.READY_TO_SWITCH)
        return lambda: self._leaving() or (pausable and self.run.paused)

    def _may_undo(self) -> bool:
        return self.run.phase not in (Phase.COMMITTING, Phase.UNDOING, Phase.CLOSED)

    def _leaving(self) -> bool:
        return self.run.undo_asked and self._may_undo()

    async def _pause_point(self) -> None:
        if self.run.paused and not self._leaving():
            await self.runtime.wait(lambda: not self.run.paused or self._leaving())
        if self._leaving():
            raise UndoAsked

    async def _ask_operator(self, step: Step, error: OperationError) -> None:
        """Stand in NEEDS_OPERATOR until a person answers or the cause has gone away."""
        run, runtime = self.run, self.runtime
        probing = error.unreachable and run.facts.request.auto_retry
        run.operator = OperatorCall(
            from_phase=step.phase,
            step=step.name,
            code=error.code,
            message=error.message,
            tried=error.tried,
            may=may_ask_operator(step.phase),
            since=runtime.now(),
            probing=probing,
        )
        seen = run.retries
        was_undoing = step.phase in (Phase.COMMITTING, Phase.UNDOING)
        self.enter(Phase.NEEDS_OPERATOR)

        def answered() -> bool:
            return run.retries != seen or (run.undo_asked and not was_undoing)

        delay = run.facts.plan.tuning.probe_interval if run.facts.plan else timedelta(seconds=30)
        while not answered():
            if not probing:
                await runtime.wait(answered)
            elif not await runtime.wait(answered, delay) and await self._reachable(step):
                break
            # A site may be away for days: asking ever more rarely keeps the history short.
            delay = min(delay * 2, timedelta(minutes=15))
        run.operator = None
        self.enter(step.phase)
        if self._leaving():
            raise UndoAsked

    async def _reachable(self, step: Step) -> bool:
        plan = self.run.facts.plan
        sites = (plan.target.site, plan.replica.site) if plan else ()
        argument = ops.Probe(**head(self.run.facts, step), sites=sites)
        try:
            result: ops.ProbeResult = await self.runtime.run(
                op.PROBE, argument, "Probe the sites", lambda: False
            )
        except OperationError:
            return False
        return result.reachable

    def _record(
        self,
        step: Step,
        *,
        started: bool = False,
        finished: bool = False,
        skipped: bool = False,
        evidence: str = "",
    ) -> None:
        now = self.runtime.now()
        steps = self.run.steps
        index = next((i for i, row in enumerate(steps) if row.name is step.name), None)
        if index is None:
            steps.append(StepStatus(name=step.name, title=step.title))
            index = len(steps) - 1
        row = steps[index]
        update: dict[str, Any] = {}
        if started:
            update = {"started_at": row.started_at or now, "attempts": row.attempts + 1}
        if finished:
            update = {"finished_at": now, "evidence": evidence}
        if skipped:
            update = {"skipped": True, "finished_at": now}
        steps[index] = row.model_copy(update=update)
        self.runtime.publish()


def title_of(step: Step, argument: Any) -> str:
    """Title of one call: the step's, with the disk where there is one."""
    plan = getattr(argument, "plan", None)
    if isinstance(plan, ops.DifferencePlan):
        return f"{step.title}: disk {plan.address}"
    return step.title


def evidence_of(results: tuple[Any, ...]) -> str:
    """Short text for people out of the results of a step."""
    texts = []
    for result in results:
        if isinstance(result, ops.TransportResult):
            texts.append(
                f"{result.address}: {result.method}, examined {result.examined_bytes}, different "
                f"{result.different_bytes}, written {result.written_bytes}, zeroed "
                f"{result.zeroed_bytes} bytes"
            )
        elif isinstance(result, ops.Differences):
            texts += [f"{plan.address}: {plan.method} ({plan.reason})" for plan in result.plans]
        elif isinstance(result, ops.VerifyResult):
            texts.append(
                f"{result.address}: {result.checked_bytes} bytes equal, digest "
                f"{result.digest[:16]}{', repaired' if result.repaired else ''}"
            )
        else:
            texts.append(str(getattr(result, "evidence", "")))
    return "; ".join(text for text in texts if text)[:2000]
