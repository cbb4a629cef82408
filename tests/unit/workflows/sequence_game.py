"""One run that a test plays with, move by move: nothing happens that the test does not cause.

Operations stay in hand until a move ends them, so that requests, failures, a cancellation, passing
time and a new execution of the workflow come at any moment. After every move the run is compared
with the model and the sites.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from failback.contracts import operations as ops
from failback.contracts.requests import Answer
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import (
    FinalizeMode,
    GuestTimeoutPolicy,
    HookPolicy,
    OnOverrun,
    Outcome,
    Phase,
    RequestKind,
)
from tests.unit.workflows.fake_runtime import answer as healthy
from tests.unit.workflows.fake_runtime import plan_for
from tests.unit.workflows.sequence_model import Model
from tests.unit.workflows.sequence_sites import Sites, Wrong
from tests.unit.workflows.virtual_runtime import VirtualRuntime
from workflows import operations as op
from workflows import requests, show
from workflows.carried import Carried
from workflows.engine import Engine, GoOnLater, OperationError, OperationStopped, Run
from workflows.facts import Facts
from workflows.life import Life
from workflows.operations import Preset

SETTLED = 15
"""Turns of the loop without a sign of progress after which every task waits."""
MOST_BYTES = 1 << 20
"""A status may be this long; Temporal refuses payloads of twice that."""
ANY_TIME = {"watch_decision", "set_limits", "probe"}
"""Operations that a paused run may begin: they look on, or write its limits."""
ENDED = frozenset({"SPLIT_BRAIN", "PROBE_FAILED"})
Admit = Callable[[Run, RequestKind, tuple[Any, ...], datetime], Answer]


@dataclass(eq=False)
class Held:
    """An operation that was issued and has not ended."""

    operation: op.Operation[Any, Any]
    argument: Any
    stop: Callable[[], bool]
    since: Any
    """What was said of the decision when it was issued."""
    end: Any = None
    """Its result, or what it raises; None: it goes on."""


@dataclass
class HeldRuntime(VirtualRuntime):
    """Operations end when the test says so."""

    held: list[Held] = field(default_factory=list)
    asked: Callable[[str, Any], None] = lambda name, argument: None
    shown: Callable[[], None] = lambda: None

    async def run(
        self, operation: op.Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if stop():
            raise OperationStopped
        self.asked(operation.name, argument)
        self.issued.append((operation.name, argument))
        one = Held(operation, argument, stop, self.said())
        self.held.append(one)
        # These only look: a run that is told to stop does not wait for their end.
        looks = operation.preset in (Preset.WATCH, Preset.PROBE)
        try:
            while one.end is None and not (looks and stop()):
                await asyncio.sleep(0)
        finally:
            self.held.remove(one)
        if one.end is None:
            raise OperationStopped
        if isinstance(one.end, Exception):
            raise one.end
        return one.end

    def said(self) -> Any:
        """What a person has said of who decides."""
        return self.run_state.facts.finalizing, self.run_state.paused

    def publish(self) -> None:
        super().publish()
        self.shown()


@dataclass
class Parts:
    """What the run is made of; a test of the tests puts something wrong in."""

    admit: Admit = requests.admit
    engine: type[Engine] = Engine
    life: type[Life] = Life


class Game:
    """One run, the sites, and the model of it."""

    def __init__(self, parts: Parts, **request: Any) -> None:
        self.parts = parts
        self.loop = asyncio.new_event_loop()
        start = StartRequest.model_validate({"replica": "web01", **request})
        ref = ops.RunRef(run_id="run-1", replica="web01")
        self.sites, self.start = Sites(start, ref.run_id), start
        switch = start.switch
        self.model = Model(
            start.approvals, start.approval_expiry, switch.mode.value, switch.at or None
        )
        self.outcome: Outcome | None = None
        self.ended_why = ""
        self.spins = 0
        self.executions = 0
        self.failed_hook = False
        self._live(Run(Facts(run=ref, request=start)), taken_up=False)
        self.settle()

    def close(self) -> None:
        """End what still runs."""
        tasks = asyncio.all_tasks(self.loop) | {self.task}
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    # --- executions of the workflow ---

    def _live(self, run: Run, *, taken_up: bool) -> None:
        before = getattr(self, "runtime", None)
        self.run = run
        self.runtime = HeldRuntime(run, asked=self._asked, shown=self._shown)
        if before is not None:
            self.runtime.clock = before.clock
        self.executions += 1
        life = self.parts.life(self.parts.engine(run, self.runtime), lambda _: None, self._cleanup)
        self.task = self.loop.create_task(life.live(taken_up=taken_up))

    async def _cleanup(self) -> None:
        if self.sites.closed is not Outcome.COMMITTED:
            raise Wrong("the cleanup of a commit begins before the commit")

    def _go_on(self) -> None:
        """The next execution: everything crosses the wire."""
        if self.runtime.held:
            raise Wrong(f"operations are left running: {[h.operation for h in self.runtime.held]}")
        carried = self.run.carry(self.runtime.clock, self.runtime.clock)
        again = Carried.model_validate_json(carried.model_dump_json())
        self._live(Run.take_up(again), taken_up=True)

    # --- what is seen ---

    def status(self) -> Status:
        """What people are shown; it crosses the wire."""
        made = show.status(
            self.run,
            workflow_id="failback/web01",
            outcome=self.outcome,
            findings=(),
            started_at=self.runtime.clock,
        )
        sent = made.model_dump_json()
        if len(sent) > MOST_BYTES:
            raise Wrong(f"the status has {len(sent)} bytes")
        return Status.model_validate_json(sent)

    def _shown(self) -> None:
        """Whenever the run shows itself: what the workflow does then must not fail."""
        self.spins += 1
        if self.spins > 500:
            raise Wrong(f"it turns round and round in {self.run.phase}")
        status = self.status()
        show.markdown(status)
        self._policies()
        self.model.entered(status.phase.value, self.runtime.clock)

    def _policies(self) -> None:
        """What the run may decide by itself, because it was told to at the start or since."""
        run, model, policy = self.run, self.model, self.run.facts.finalizing
        automatic = not self.ended_why and not model.paused
        due = run.decision_since is not None and (
            self.runtime.clock >= run.decision_since + policy.after
        )
        if run.commit_asked and not model.committing:
            if policy.mode is not FinalizeMode.AUTO_COMMIT or not automatic or not due:
                raise Wrong(f"it decides to commit by itself: {policy}, {self.ended_why}")
            model.promised("commit", {})
        if run.undo_asked and not model.undoing:
            by_itself = policy.mode is FinalizeMode.AUTO_UNDO and automatic and due
            overrun = run.facts.switching.on_overrun is OnOverrun.UNDO
            guest = self.start.on_guest_timeout is GuestTimeoutPolicy.UNDO
            if not (by_itself or self.failed_hook or overrun or guest):
                raise Wrong(f"it decides to undo by itself: {policy}, {self.ended_why}")
            model.promised("undo", {})

    def _asked(self, name: str, argument: Any) -> None:
        model = self.model
        self._policies()
        if model.paused and name not in ANY_TIME and not (model.undoing or model.committing):
            raise Wrong(f"{name} is issued while the run is paused")
        busy = [h.operation.name for h in self.runtime.held if h.operation.name != name]
        undoes = getattr(argument, "phase", None) is Phase.UNDOING and name not in ANY_TIME
        if undoes and busy:
            raise Wrong(f"{name} of undo is issued beside {busy}")
        self.sites.asked(name, argument)

    # --- moves ---

    def settle(self) -> None:
        """Let the run go on until all of it waits; check what is always so."""
        if not self.task.done():
            self.loop.run_until_complete(self._quiet())
        while self.task.done() and isinstance(self.task.exception(), GoOnLater):
            self._go_on()
            self.loop.run_until_complete(self._quiet())
        if self.task.done() and self.outcome is None:
            self.outcome = self.task.result()
            self.run.phase = Phase.CLOSED
            self._ended(self.outcome)
        self._check()

    async def _quiet(self) -> None:
        self.spins = 0
        quiet, seen = 0, (-1, -1, -1)
        while quiet < SETTLED and not self.task.done():
            await asyncio.sleep(0)
            runtime = self.runtime
            now = (len(runtime.issued), runtime.published, len(runtime.held))
            quiet, seen = (quiet + 1 if now == seen else 0), now

    def _check(self) -> None:
        status = self.status()
        self._policies()
        if status.paused != self.model.paused:
            raise Wrong(f"paused is {status.paused}")
        if set(self.run.facts.attested_off) != self.model.attested:
            raise Wrong(f"attested are {self.run.facts.attested_off}, not {self.model.attested}")
        if status.phase is Phase.NEEDS_OPERATOR:
            call = status.operator
            if call is None or not (call.code and call.message and call.may):
                raise Wrong(f"NEEDS_OPERATOR does not say why or what may be done: {call}")
            now = self.runtime.clock
            if not any(self.model.allowed(k.value, {}, status, now) for k in call.may):
                raise Wrong(f"none of {call.may} would be accepted")
        elif status.operator is not None:
            raise Wrong(f"an operator is called for in {status.phase}")

    def _ended(self, outcome: Outcome) -> None:
        model = self.model
        if (outcome is Outcome.COMMITTED) != model.committing:
            raise Wrong(f"{outcome}, and a commit was accepted: {model.committing}")
        if (outcome is Outcome.UNDONE) != model.undoing and outcome is not Outcome.REFUSED:
            raise Wrong(f"{outcome}, and an undo was accepted: {model.undoing}")
        self.sites.ended(outcome, model.power_on_replica)

    def ask(self, kind: str, body: dict[str, Any]) -> Answer:
        """Send a request that is understood, and compare the answer with the model."""
        before, status, now = self._kept(), self.status(), self.runtime.clock
        got = self.parts.admit(self.run, RequestKind(kind), (body,), now)
        repeat = (kind, body.get("request_id", "")) in self.model.said
        self.model.answer(kind, body, status, now, got)
        if (repeat or not got.accepted) and self._kept() != before:
            raise Wrong(f"{kind} {body} was not accepted now and changed the run")
        if repeat and self.status().requests != status.requests:
            raise Wrong(f"a repeat of {kind} {body} was recorded again")
        waiting = [p.answer.request_id for p in self.run.pending if p.until > now]
        if waiting != [w.answer.request_id for w in self.model.waits if w.until > now]:
            raise Wrong(f"{waiting} wait for a second person, not {self.model.waits}")
        if kind == "adjust" and got.accepted and not got.pending and "finalize" in body:
            self.ended_why = ""
        if kind == "approve" and got.accepted:
            self.ended_why = "" if not self.run.finalize_ended else self.ended_why
        return got

    def garbage(self, kind: str, body: Any) -> None:
        """Send what cannot be understood: it is rejected, and recorded."""
        before = self._kept()
        got = self.parts.admit(self.run, RequestKind(kind), (body,), self.runtime.clock)
        if got.accepted or not got.message or self.run.answers[-1] != got:
            raise Wrong(f"{kind} {body!r} is answered {got}")
        if self._kept() != before:
            raise Wrong(f"{kind} {body!r} changed the run")

    def _kept(self) -> dict[str, Any]:
        """All that a rejected request must leave alone."""
        names = {one.name for one in fields(Run)} - {"answers", "pending"}
        kept = {name: getattr(self.run, name) for name in names}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}

    def cancel(self) -> None:
        """Somebody cancels the workflow."""
        call, phase = self.run.operator, self.run.phase.value
        if call is not None:
            phase = call.from_phase.value
        # Also where it was skipped: somebody may have powered the target on by hand.
        issued = any(row.name.value == "power_on_target" for row in self.run.steps)
        may = phase in {"PREFLIGHT", "SYNCING", "READY_TO_SWITCH", "SWITCHING", "AWAITING_DECISION"}
        may = may and not issued and not self.model.committing and self.start.approvals < 2
        before = self._kept()
        requests.cancelled(self.run, self.runtime.clock)
        if self.run.answers[-1].accepted != may:
            raise Wrong(f"cancellation: expected {may}, it answered {self.run.answers[-1]}")
        if may:
            self.model.promised("undo", {})
        elif self._kept() != before:
            raise Wrong("a cancellation that was rejected changed the run")

    def later(self, span: timedelta) -> None:
        """Time passes; whatever is due by then happens at its time."""
        end = self.runtime.clock + span
        for _ in range(40):
            due = [when for when in self.runtime.deadlines if when <= end]
            if not due or self.task.done():
                break
            self.runtime.clock = max(self.runtime.clock, min(due))
            self.settle()
        if not self.task.done():
            self.runtime.clock = max(self.runtime.clock, end)
        self.settle()

    def long_history(self) -> None:
        """The history has grown so long that another execution must go on, once it can."""
        self.runtime.long_history = True

    def workable(self) -> list[Held]:
        """Operations that may end: the watch goes on until it is stopped."""
        return [h for h in self.runtime.held if h.operation is not op.WATCH_DECISION]

    def finish(self, one: Held, *, good: bool = True) -> None:
        """It is applied, and the run is told. `good`: hooks hold, sites answer, no refusals."""
        name, argument = one.operation.name, one.argument
        self.sites.applied(name, argument)
        self.sites.answered(argument)
        one.end = healthy(one.operation, argument)
        if name == "preflight":
            one.end = ops.PreflightResult(plan=plan_for(self.start) if good else None)
        elif name == "protect_target" and not argument.snapshot:
            one.end = one.end.model_copy(update={"snapshot": None})
        elif name == "rebase_target" and not argument.snapshot:
            bare = one.end.protected.model_copy(update={"snapshot": None})
            one.end = one.end.model_copy(update={"protected": bare})
        elif name == "power_off":
            # It ran, so it is asked for anew who says that it is off.
            self.model.attested.discard(argument.vm.ref)
        elif name == "probe":
            one.end = ops.ProbeResult(reachable=good)
            decides = self.run.phase is Phase.AWAITING_DECISION
            if decides and not good and one.since == self.runtime.said():
                self.ended_why = "a site does not answer"
        elif name == "run_hook" and not good:
            self.failed_hook |= argument.hook.on_failure is HookPolicy.UNDO
            one.end = ops.HookResult(ok=False, evidence="exit status 1")

    def fail(self, one: Held, error: OperationError, *, applied: bool) -> None:
        """It fails; whether it was applied nobody knows."""
        if applied:
            self.sites.applied(one.operation.name, one.argument)
        if isinstance(one.argument, ops.RunHook):
            self.failed_hook |= one.argument.hook.on_failure is HookPolicy.UNDO
        one.end = error

    def stop(self, one: Held, *, applied: bool) -> None:
        """The worker has heard that it is to stop."""
        if applied:
            self.sites.applied(one.operation.name, one.argument)
        one.end = OperationStopped()

    def alarm(self, code: str, text: str) -> None:
        """The watch sees something."""
        for one in self.runtime.held:
            if one.operation is op.WATCH_DECISION:
                one.end = ops.WatchResult(alarm=text, code=code)
                if code in ENDED:
                    self.ended_why = code

    # --- the end ---

    def to_the_end(self, decision: str) -> Outcome:
        """People answer whatever the run asks for; it must end. Wrong when it does not."""
        for number in range(400):
            self.settle()
            if self.outcome is not None:
                return self.outcome
            for one in self.workable():
                self.finish(one)
            self.settle()
            if self.workable() or self.outcome is not None:
                continue
            phase = self.status().phase.value
            if phase == "NEEDS_OPERATOR":
                self._say("retry", number)
            elif self.model.paused and not (self.model.undoing or self.model.committing):
                self._say("resume", number)
            elif phase == "READY_TO_SWITCH":
                self._say("switch_over", number, ignore_budget=True)
            elif phase == "AWAITING_DECISION":
                self._say(decision, number)
            else:
                self.later(timedelta(minutes=1))
        held = [one.operation.name for one in self.runtime.held]
        raise Wrong(f"it does not end: {self.status().phase} {held} {self.model}")

    def _say(self, kind: str, number: int, **body: Any) -> None:
        """One person says it, and another agrees where that is asked for."""
        got = self.ask(kind, {"by": "ann", "request_id": f"end-{number}", **body})
        if got.pending:
            self.ask("approve", {"by": "bob", "of": f"end-{number}"})
