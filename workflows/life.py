"""The life of one run, on any Runtime: preflight, pass 1, gate, switch, decision, and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

from failback.contracts import operations as ops
from failback.contracts.policies import FinalizePolicy, Limits
from failback.contracts.requests import Request
from failback.contracts.words import (
    FinalizeMode,
    OnOverrun,
    Outcome,
    Phase,
    StepName,
)
from workflows import operations as op
from workflows import requests
from workflows.beside import Over, beside
from workflows.engine import Engine, GoOnLater, OperationError, OperationStopped, UndoAsked
from workflows.gate import Gate
from workflows.steps import (
    AWAIT_DECISION,
    COMMIT,
    LIMITS,
    PREFLIGHT,
    after_gate,
    before_gate,
    head,
    rest_of_switch,
)

BUDGET = "Downtime budget"
LOOK_AGAIN = "Watch both VMs again"

PROBE_FAILED = "PROBE_FAILED"
ENDING = frozenset({"SPLIT_BRAIN", PROBE_FAILED})
"""Alarms after which nothing is decided without a person."""


class Life:
    """Walks one run from its phase to its end. GoOnLater: another execution goes on.

    Args:
        began: told once whether preflight accepted.
        cleanup: starts what is tidied up after a commit.
    """

    def __init__(
        self,
        engine: Engine,
        began: Callable[[bool], None],
        cleanup: Callable[[], Awaitable[None]],
    ) -> None:
        self.engine = engine
        self.run = engine.run
        self.runtime = engine.runtime
        self.began = began
        self.cleanup = cleanup
        self.written = Limits()
        """The limits that the movers know."""

    async def live(self, *, taken_up: bool = False) -> Outcome:
        """The whole life, or, if `taken_up`, the rest of it from the phase it was carried in."""
        try:
            life = self._rest() if taken_up else self._whole()
            outcome = await beside(life, self._keep_limits)
        except UndoAsked:
            await self.engine.undo()
            outcome = Outcome.UNDONE
        return outcome

    async def _whole(self) -> Outcome:
        await self.engine.step(PREFLIGHT)
        accepted = self.run.facts.plan is not None
        self.began(accepted)
        if not accepted:
            return Outcome.REFUSED
        await self.engine.forward(before_gate(self.run.facts.request.destination))
        return await self._from_gate()

    async def _rest(self) -> Outcome:
        match self.run.phase:
            case Phase.READY_TO_SWITCH:
                return await self._from_gate()
            case Phase.AWAITING_DECISION:
                return await self._from_decision()
            case Phase.SWITCHING:
                return await self._end_switch()
            case Phase.COMMITTING:
                return await self._commit()
            case _:
                raise UndoAsked

    async def _from_gate(self) -> Outcome:
        gate = Gate(self.engine)
        check, *switch = after_gate(self.run.facts.request.destination)
        run = self.run
        while True:
            await gate.hold()
            seen, stood = run.facts.switching, run.stood
            # The last look at both VMs belongs to the gate when there was one.
            await self.engine.forward((replace(check, phase=run.phase),))
            if run.facts.rebased:
                await gate.cycle()
            elif (run.paused or run.stood != stood) and self._looks_again():
                # It was held up there, for hours maybe: what the gate decided is no longer true.
                await self.engine.pause_point()
                await gate.cycle_if_due()
            elif run.facts.switching == seen:
                break
            # Else somebody has rescheduled during that look: the gate decides anew.
        await beside(self.engine.forward(switch), self._watch_budget)
        return await self._from_decision()

    async def _from_decision(self) -> Outcome:
        await self._decide()
        return await self._commit()

    async def _commit(self) -> Outcome:
        await self.engine.step(COMMIT)
        await self.cleanup()
        return Outcome.COMMITTED

    async def _end_switch(self) -> Outcome:
        """The commit that was asked of a run which was terminated in its switch."""
        await self.engine.forward(rest_of_switch(self.run.facts, self.run.finished()))
        return await self._commit()

    def _looks_again(self) -> bool:
        """The gate, the budget and the watch look anew after a wait; before, they went on with what
        had been true."""
        return self.runtime.patched("looks-again")

    # --- the switch ---

    async def _watch_budget(self, over: Over) -> None:
        """Act when the downtime, from the power-off of the replica to the power-on of the target,
        exceeds its budget. Hooks before and after these do not count: service runs."""
        budget = self.run.facts.switching.downtime_budget
        if budget is None:
            return
        if not self._looks_again():
            if not await self.runtime.wait(over, budget, BUDGET):
                self._overrun(budget)
            return
        off, on = StepName.POWER_OFF_REPLICA, StepName.POWER_ON_TARGET
        await self.runtime.wait(lambda: over() or off in self.run.started())
        if not over() and not await self.runtime.wait(
            lambda: over() or on in self.run.finished(), budget, BUDGET
        ):
            self._overrun(budget)

    def _overrun(self, budget: timedelta) -> None:
        run = self.run
        text = f"The switch takes longer than the downtime budget of {budget.total_seconds():.0f} s"
        issued = StepName.POWER_ON_TARGET in run.started()
        # Who said that the budget is to be ignored does not want to go back because of it.
        undo = run.facts.switching.on_overrun is OnOverrun.UNDO and not run.ignore_budget
        if undo and not issued and not run.undo_asked:
            requests.alarm(run, f"{text}: it is undone, as was asked for.")
            by = Request(by="downtime_budget", reason="the switch took longer than the budget")
            requests.ask_undo(run, by)
        else:
            requests.alarm(run, f"{text}; it goes on.")
        self.runtime.publish()

    # --- the decision ---

    async def _decide(self) -> None:
        """Await commit or undo. UndoAsked; GoOnLater when the history has grown long."""
        run, runtime = self.run, self.runtime
        self.engine.enter(Phase.AWAITING_DECISION)
        if run.decision_since is None:
            run.decision_since = runtime.now()
        if not self._decided():
            # What was said to power production on may be wrong by the time somebody decides.
            run.facts = run.facts.model_copy(update={"attested_off": ()})
        # The watch sees the decision too and ends itself, its activity included.
        await beside(self._timer(), self._watch)
        if run.undo_asked:
            raise UndoAsked
        if not run.commit_asked:
            raise GoOnLater

    def _decided(self) -> bool:
        return self.run.undo_asked or self.run.commit_asked

    async def _timer(self) -> None:
        """Return when somebody has decided, or the policy has, or the history is long."""
        run, runtime = self.run, self.runtime
        while not self._decided() and not runtime.history_is_long():
            policy, seen = run.facts.finalizing, self._said()
            self._set_timer(policy)
            runtime.publish()
            due = run.finalize_at
            changed = await runtime.wait(
                partial(self._woken, seen),
                None if due is None else max(due - runtime.now(), timedelta(0)),
                f"Decide by itself: {policy.mode}",
            )
            if not changed:
                await self._by_itself(policy.mode, seen)
            if run.facts.finalizing != policy:
                self._policy_changed(policy)

    def _said(self) -> tuple[FinalizePolicy, bool, str]:
        return self.run.facts.finalizing, self.run.paused, self.run.finalize_ended

    def _woken(self, seen: tuple[FinalizePolicy, bool, str]) -> bool:
        return self._decided() or self._said() != seen or self.runtime.history_is_long()

    def _set_timer(self, policy: FinalizePolicy) -> None:
        """Let the timer run, or keep what is left of it while the run is paused."""
        run, now = self.run, self.runtime.now()
        if policy.mode is FinalizeMode.MANUAL or run.finalize_ended:
            run.finalize_at = None
        elif run.paused:
            if run.finalize_at is not None:
                run.soak_left, run.finalize_at = run.finalize_at - now, None
        elif run.finalize_at is None:
            left = run.soak_left if run.soak_left is not None else policy.after
            run.soak_left, run.finalize_at = None, now + left

    def _policy_changed(self, before: FinalizePolicy) -> None:
        """The time that has run counts, so that the end can be put off; for another way to decide,
        or one that had ended, it begins anew."""
        run, policy = self.run, self.run.facts.finalizing
        left = run.soak_left if run.finalize_at is None else run.finalize_at - self.runtime.now()
        elapsed = timedelta(0)
        if policy.mode is before.mode and left is not None:
            # Without the time in which the run was paused.
            elapsed = before.after - left
        run.finalize_at, run.soak_left = None, policy.after - elapsed

    async def _by_itself(self, mode: FinalizeMode, seen: tuple[FinalizePolicy, bool, str]) -> None:
        run = self.run
        # The watch may have been away all the time: a worker that was down has asked nobody.
        probes = run.facts.finalizing.probes if mode is FinalizeMode.AUTO_COMMIT else ()
        trouble = await self.engine.trouble(AWAIT_DECISION, probes)
        if self._said() != seen:
            # Paused, adjusted or alarmed while the sites were asked: it is no longer what was said.
            return
        if trouble:
            said = trouble.rstrip(".")
            self._end_automatism(f"a last look at the VMs and the workload found trouble: {said}")
        elif mode is FinalizeMode.AUTO_COMMIT:
            requests.ask_commit(run, Request(by="auto_commit", reason="every probe held"))
        else:
            requests.ask_undo(run, Request(by="auto_undo", reason="nobody committed in time"))

    def _end_automatism(self, why: str) -> None:
        run = self.run
        if run.facts.finalizing.mode is not FinalizeMode.MANUAL and not run.finalize_ended:
            run.finalize_ended = f"{why[:1900]}; a person must decide"
            requests.alarm(run, f"{run.facts.finalizing.mode} has ended: {run.finalize_ended}.")
            self.runtime.publish()

    async def _watch(self, over: Over) -> None:
        """Watch power states and probes; one alarm a quarter of an hour is enough to wake us."""
        run, runtime = self.run, self.runtime

        def ended() -> bool:
            return self._decided() or over()

        failed: FinalizePolicy | None = None
        while not ended():
            (argument,) = AWAIT_DECISION.arguments(run.facts, AWAIT_DECISION)
            asked = run.facts.finalizing
            by_hand = asked.mode is FinalizeMode.MANUAL
            if run.finalize_ended or (by_hand and asked == failed):
                # What failed would end the next watch at once, and power states count for more.
                argument = argument.model_copy(update={"probes": ()})
            try:
                result: ops.WatchResult = await runtime.run(
                    AWAIT_DECISION.operation,
                    argument,
                    AWAIT_DECISION.title,
                    partial(self._watched_else, ended, self._said()),
                )
            except OperationStopped:
                continue
            except OperationError as error:
                requests.alarm(run, f"The watch of the power states failed: {error.message}")
                self._end_automatism("the watch failed")
            else:
                known = result.alarm in run.alarms
                if result.code == PROBE_FAILED:
                    failed = asked
                if not known:
                    requests.alarm(run, result.alarm)
                if result.code in ENDING:
                    self._end_automatism(result.alarm.rstrip("."))
                if not known:
                    # Something else may happen meanwhile: look on at once.
                    continue
            runtime.publish()
            if not self._looks_again():
                await runtime.wait(ended, requests.ALARM_INTERVAL, LOOK_AGAIN)
            elif not (argument.probes and failed == asked):
                # Else the power states are watched on at once, without the probe that has failed.
                otherwise = partial(self._watched_else, ended, self._said())
                await runtime.wait(otherwise, requests.ALARM_INTERVAL, LOOK_AGAIN)

    def _watched_else(
        self, ended: Callable[[], bool], seen: tuple[FinalizePolicy, bool, str]
    ) -> bool:
        policy, _, gone = self._said()
        return ended() or (policy.probes, bool(gone)) != (seen[0].probes, bool(seen[2]))

    # --- limits ---

    async def _keep_limits(self, over: Over) -> None:
        """Beside everything else: write the limits for the movers whenever they are changed."""
        run = self.run

        def due() -> bool:
            return run.facts.plan is not None and self._limits_wanted() != self.written

        # Nothing is moved any more once a decision was accepted, and a run that has ended in the
        # catalog takes no limits, however often it is tried.
        while not over() and not self._decided():
            if due():
                await self._write_limits()
            await self.runtime.wait(lambda: over() or self._decided() or due())

    def _limits_wanted(self) -> Limits:
        return self.run.facts.limits or self.run.facts.request.limits

    async def _write_limits(self) -> None:
        facts, self.written = self.run.facts, self._limits_wanted()
        argument = ops.SetLimits(
            run=facts.run,
            step=StepName.ADJUST,
            patience=head(facts, PREFLIGHT)["patience"],
            generation=facts.generation,
            limits=self.written,
        )
        try:
            await self.runtime.run(op.SET_LIMITS, argument, LIMITS, self._decided)
        except OperationStopped:
            return
        except OperationError as error:
            requests.alarm(self.run, f"The limits could not be changed: {error.message}")
            self.runtime.publish()
