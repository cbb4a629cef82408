"""Walks a step list: issues, records, interrupts, compensates, and stops for an operator.

It knows a small Runtime (run an operation, wait, now, publish) and not Temporal, so that a unit
test or a simulation can drive the very code that production runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from failback.contracts import operations as ops
from failback.contracts.policies import Hook, WorkloadProbe
from failback.contracts.requests import Answer, Request
from failback.contracts.status import GateStatus, HookStatus, OperatorCall, StepStatus
from failback.contracts.words import HookPolicy, HookWhen, Phase, PowerState, StepName
from workflows import operations as op
from workflows.attesting import disprove
from workflows.carried import Carried, Pending
from workflows.facts import Facts
from workflows.state import may_ask_operator
from workflows.steps import PREFLIGHT, REBASE, Step, head, undo_list

KEPT_HOOKS = 20
KEPT_ALARMS = 20
MOST_TEXT, MOST_NAME = 2000, 255
"""Characters that the status shows of one text, and of one name."""
ASK_AGAIN = "Ask the sites again"
DISCONNECTED = "VmDisconnected"
"""Code of the error that a VM's host does not answer, although its site does."""


class OperationError(Exception):
    """An operation failed for good, or for longer than patience allows.

    Args:
        code: stable type name of the error (failback/errors.py).
        message: one sentence for people, with the remedy.
        unreachable: waiting may cure it, so the engine probes and goes on by itself.
        runs: reference of a VM that was seen not to be off.
    """

    def __init__(
        self, code: str, message: str, tried: str = "", unreachable: bool = False, runs: str = ""
    ) -> None:
        super().__init__(f"{code}: {message}")
        # A fault may quote as much as it likes; what does not fit the status could not be shown.
        self.code = code[:MOST_NAME]
        self.message = message[:MOST_TEXT]
        self.tried = tried[:MOST_TEXT]
        self.unreachable = unreachable
        self.runs = runs


class OperationStopped(Exception):
    """The operation was cancelled because its `stop` became true; its worker has ended it."""


class UndoAsked(Exception):
    """Leave the forward list: an undo was accepted."""


class GoOnLater(Exception):
    """Leave this execution of the workflow: the run goes on in another one, as it is carried."""


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

    async def wait(
        self, condition: Callable[[], bool], timeout: timedelta | None = None, summary: str = ""
    ) -> bool:
        """Wait until the condition holds; False when the timeout came first.

        Args:
            summary: what the timeout is for, as people see it in the Temporal UI.
        """
        ...

    def now(self) -> datetime: ...

    def publish(self) -> None:
        """Show the changed state to people."""
        ...

    def history_is_long(self) -> bool:
        """Whether a run that waits should go on in another execution."""
        ...

    def patched(self, name: str) -> bool:
        """Whether this run lives with the change of commands that has this name: every run does but
        one that has passed this place under earlier code (docs/decisions/versioning.md)."""
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
    stood: int = 0
    """How often this execution stood still for a person: paused, or in NEEDS_OPERATOR. What was
    decided before such a wait may not hold after it."""
    answers: list[Answer] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    """Requests that wait for a second person."""
    hooks: list[HookStatus] = field(default_factory=list)
    rebase_asked: bool = False
    switch_asked: bool = False
    ignore_budget: bool = False
    gate: GateStatus | None = None
    decision_since: datetime | None = None
    finalize_at: datetime | None = None
    """When it decides by itself, unless somebody does before."""
    soak_left: timedelta | None = None
    """The time that is left while the timer stands still."""
    finalize_ended: str = ""
    """Why it does not decide by itself any more."""

    def started(self) -> list[StepName]:
        """Steps that were issued at least once."""
        return [step.name for step in self.steps if step.started_at is not None]

    def finished(self) -> list[StepName]:
        """Steps that are done, or were found to have nothing to do."""
        return [step.name for step in self.steps if step.finished_at is not None]

    def carry(self, started_at: datetime, now: datetime) -> Carried:
        """What the next execution goes on from."""
        left = self.finalize_at - now if self.finalize_at is not None else self.soak_left
        phase = self.phase
        if self.undo_asked or self.commit_asked:
            # Accepted while what ran beside came to its end: the next execution begins with it.
            phase = Phase.UNDOING if self.undo_asked else Phase.COMMITTING
        return Carried(
            facts=self.facts.model_copy(update={"generation": self.facts.generation + 1}),
            phase=phase,
            started_at=started_at,
            paused=self.paused,
            steps=tuple(self.steps),
            answers=tuple(self.answers),
            alarms=tuple(self.alarms),
            pending=tuple(self.pending),
            hooks=tuple(self.hooks),
            switch_asked=self.switch_asked,
            ignore_budget=self.ignore_budget,
            decision_since=self.decision_since,
            soak_left=left,
            finalize_ended=self.finalize_ended,
            retries=self.retries,
        )

    @staticmethod
    def take_up(carried: Carried) -> Run:
        """The run as it was carried."""
        return Run(
            facts=carried.facts,
            phase=carried.phase,
            paused=carried.paused,
            steps=list(carried.steps),
            answers=list(carried.answers),
            alarms=list(carried.alarms),
            pending=list(carried.pending),
            hooks=list(carried.hooks),
            switch_asked=carried.switch_asked,
            ignore_budget=carried.ignore_budget,
            decision_since=carried.decision_since,
            soak_left=carried.soak_left,
            finalize_ended=carried.finalize_ended,
            retries=carried.retries,
        )

    def alarm(self, text: str) -> None:
        """Keep the newest alarms for status; the catalog keeps all of them."""
        self.alarms.append(text[:MOST_TEXT])
        del self.alarms[:-KEPT_ALARMS]

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
            await self.pause_point()
            await self.step(step)

    async def undo(self) -> None:
        """Walk the compensations of everything that was reached; nothing can stop this. A skipped
        step counts: a target that was not to be powered on may have been, by hand."""
        self.enter(Phase.UNDOING)
        reached = [row.name for row in self.run.steps]
        destination = self.run.facts.request.destination
        for step in undo_list(reached, destination):
            await self.step(step)

    async def step(self, step: Step) -> None:
        """Issue one step until it succeeds, an undo is accepted, or for ever."""
        self.enter(step.phase)
        if step.arguments(self.run.facts, step):
            await self._hooks(step, HookWhen.BEFORE)
        while True:
            arguments = step.arguments(self.run.facts, step)
            if not arguments:
                if not step.optional:
                    self._record(step, skipped=True)
                return
            self._record(step, started=True)
            try:
                results = await self._issue(step, arguments)
            except OperationStopped:
                await self.pause_point()
                continue
            except OperationError as error:
                self._believe_no_longer((error.runs,) if error.runs else ())
                if step.undo_on(self.run.facts, error.code) and self._may_undo():
                    self._undo_by(f"policy for {error.code}", error.message)
                    raise UndoAsked from error
                await self._ask_operator(step, error)
                await self._rebase(step.phase)
                continue
            self.run.facts = step.learn(self.run.facts, results)
            self._believe_no_longer(ran(arguments, results))
            for alarm in filter(None, (getattr(result, "alarm", "") for result in results)):
                self.run.alarm(alarm)
            self._record(step, finished=True, evidence=evidence_of(results))
            await self._hooks(step, HookWhen.AFTER)
            if self._leaving():
                raise UndoAsked
            return

    def _believe_no_longer(self, vms: Sequence[str]) -> None:
        """What somebody declared of VMs that were seen to run."""
        for vm in vms:
            self.run.facts = disprove(self.run.facts, vm)

    async def _rebase(self, phase: Phase) -> None:
        """Let the target follow a replica that has grown, if the answer was that."""
        if self.run.rebase_asked:
            self.run.rebase_asked = False
            await self.forward([replace(one, phase=phase) for one in REBASE])

    def enter(self, phase: Phase) -> None:
        """Change the phase and show it."""
        if self.run.phase is not phase:
            self.run.phase = phase
            self.runtime.publish()

    async def _hooks(self, step: Step, when: HookWhen) -> None:
        """Make the calls that belong here, one after the other."""
        if step is PREFLIGHT and when is HookWhen.AFTER and self.run.facts.plan is None:
            # It has refused: nothing was begun, and a call must not keep the run from saying so.
            return
        for hook in self.run.facts.request.hooks:
            while (hook.when, hook.step) == (when, step.name):
                try:
                    problem = await self._call(hook, step)
                except OperationStopped:
                    await self.pause_point()
                    continue
                except OperationError as error:
                    problem = error
                if problem is None:
                    break
                # A commit that is durable waits for nobody, and its cleanup neither.
                committed = step.name is StepName.COMMIT and when is HookWhen.AFTER
                if hook.on_failure is HookPolicy.CONTINUE or committed:
                    self.run.alarm(problem.message)
                    break
                if hook.on_failure is HookPolicy.UNDO and self._may_undo():
                    self._undo_by(f"hook {hook.name}", problem.message)
                    raise UndoAsked
                await self._ask_operator(step, problem)

    def _undo_by(self, policy: str, why: str) -> None:
        """Begin the undo that a policy of the run asks for, and let people see which and why."""
        self.run.alarm(f"The run is undone, as was asked for ({policy}): {why}")
        self.run.merge_undo(Request(by=policy, reason=why[:MOST_TEXT]))
        self.run.undo_asked = True

    async def _call(self, hook: Hook, step: Step) -> OperationError | None:
        """Make one call; what is wrong when it failed."""
        facts, kept = self.run.facts, self.run.hooks
        result: ops.HookResult = await self.runtime.run(
            op.RUN_HOOK,
            ops.RunHook(
                **head(facts, step),
                hook=hook,
                replica_vm=facts.plan.replica if facts.plan else None,
                target_vm=facts.plan.target if facts.plan else None,
            ),
            f"Hook {hook.name} {hook.when} {step.name}",
            self._stop(step),
        )
        kept.append(
            HookStatus(
                name=hook.name,
                step=step.name,
                when=hook.when,
                ok=result.ok,
                at=self.runtime.now(),
                output=result.output[-500:],
            )
        )
        del kept[:-KEPT_HOOKS]
        if result.ok:
            return None
        return OperationError(
            "HookFailed",
            f"Hook {hook.name} {hook.when} step {step.name} failed: {result.evidence}. Look at "
            "what it says, then send retry to call it again, or undo.",
        )

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

    async def pause_point(self) -> None:
        """Wait while paused. UndoAsked when an undo was accepted."""
        if self.run.paused and not self._leaving():
            self.run.stood += 1
            await self.runtime.wait(lambda: not self.run.paused or self._leaving())
        if self._leaving():
            raise UndoAsked

    async def _ask_operator(self, step: Step, error: OperationError) -> None:
        """Stand in NEEDS_OPERATOR until a person answers or the cause has gone away."""
        run, runtime = self.run, self.runtime
        run.stood += 1
        since = runtime.now()
        probing = error.unreachable and run.facts.request.auto_retry
        run.operator = OperatorCall(
            from_phase=step.phase,
            step=step.name,
            code=error.code,
            message=error.message,
            tried=error.tried,
            may=may_ask_operator(step.phase),
            since=since,
            probing=probing,
        )
        seen = run.retries
        was_undoing = step.phase in (Phase.COMMITTING, Phase.UNDOING)
        self.enter(Phase.NEEDS_OPERATOR)

        def answered() -> bool:
            return run.retries != seen or (run.undo_asked and not was_undoing)

        can_go_on = partial(self.reachable, step, of_vms=error.code == DISCONNECTED)
        delay = run.facts.plan.tuning.probe_interval if run.facts.plan else timedelta(seconds=30)
        while not answered():
            if not probing:
                await runtime.wait(answered)
            elif not await runtime.wait(answered, delay, ASK_AGAIN) and await can_go_on():
                break
            # A site may be away for months, and no other execution goes on from here: asking ever
            # more rarely, in proportion to how long it has been away, keeps the history short.
            away = runtime.now() - since
            delay = min(delay * 2, max(timedelta(minutes=15), away / 100))
        run.operator = None
        self.enter(step.phase)
        if self._leaving():
            raise UndoAsked

    async def reachable(self, step: Step, *, of_vms: bool) -> bool:
        """Whether both sites answer now; `of_vms`: and tell the power state of every VM."""
        facts = self.run.facts
        sites = (facts.plan.target.site, facts.plan.replica.site) if facts.plan else ()
        # A site answers also while a host of it does not: going on would only fail again.
        vms = (facts.known.replica, *facts.targets, *facts.others) if of_vms and facts.plan else ()
        argument = ops.Probe(**head(facts, step), sites=sites, power_known=vms)
        return not await self._probe(argument)

    async def trouble(self, step: Step, probes: tuple[WorkloadProbe, ...] = ()) -> str:
        """Why nothing may be decided without a person: a power state that cannot be read now, or is
        not what it must be; empty when all is in order. The watch may be blind just then."""
        facts = self.run.facts
        must_be_off = (facts.known.replica, *facts.others)
        argument = ops.Probe(
            **head(facts, step),
            sites=tuple(dict.fromkeys(vm.site for vm in (facts.known.target, *must_be_off))),
            must_be_off=must_be_off,
            power_known=(facts.known.target,),
            target=facts.known.target,
            probes=probes,
        )
        return await self._probe(argument)

    async def _probe(self, argument: ops.Probe) -> str:
        """What is wrong; empty: nothing."""
        try:
            result: ops.ProbeResult = await self.runtime.run(
                op.PROBE, argument, "Probe the sites", lambda: False
            )
        except OperationError as error:
            return error.message or error.code
        return "" if result.reachable else result.evidence or "a site could not be asked"

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
        if started and row.finished_at is not None:
            # A step of a later cycle: the row tells of the newest.
            row = StepStatus(name=step.name, title=step.title)
        if started:
            update = {"started_at": row.started_at or now, "attempts": row.attempts + 1}
        if finished:
            update = {"finished_at": now, "evidence": evidence}
        if skipped:
            update = {"skipped": True, "finished_at": now}
        steps[index] = row.model_copy(update=update)
        self.runtime.publish()


def ran(arguments: tuple[Any, ...], results: tuple[Any, ...]) -> tuple[str, ...]:
    """References of the VMs that were not off when they were powered off."""
    off = (PowerState.OFF, PowerState.UNKNOWN)
    pairs = zip(arguments, results, strict=True)
    return tuple(
        a.vm.ref for a, r in pairs if isinstance(r, ops.PowerOffResult) and r.was not in off
    )


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
