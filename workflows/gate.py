"""The gate between the passes: wait until the switch is due, and keep the difference small."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from failback.contracts.policies import SwitchPolicy
from failback.contracts.status import Cycle, GateStatus
from failback.contracts.words import Phase, StepName, SwitchMode
from workflows.engine import Engine, GoOnLater, Run
from workflows.prediction import cycle_time, predict
from workflows.steps import READY_TO_SWITCH, RESYNC

KEPT_CYCLES = 20


class Gate:
    """One wait between the passes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.run = engine.run
        self.runtime = engine.runtime

    async def hold(self) -> None:
        """Return when the switch is due. UndoAsked when an undo was accepted meanwhile, GoOnLater
        when the history has grown so long that another execution must go on."""
        note_cycle(self.run, StepName.FREEZE_REPLICA, StepName.TRANSPORT_CHANGES)
        if self.run.phase is not Phase.READY_TO_SWITCH:
            if not self._look():
                self.run.gate = None
                return
            await self.engine.step(READY_TO_SWITCH)
        while self._look():
            await self._wait()
            await self.engine.pause_point()
            if self.runtime.history_is_long():
                raise GoOnLater
            if self._look():
                await self.cycle_if_due()
        self.run.gate = None

    def _look(self) -> str:
        """Why the switch does not begin now; empty when it does."""
        run, now = self.run, self.runtime.now()
        policy = run.facts.switching
        prediction = predict(run.facts, run.steps, now)
        holds = _not_due(policy, now, asked=run.switch_asked)
        budget = policy.downtime_budget
        if not holds and budget is not None and not run.ignore_budget:
            holds = _over(prediction.downtime, budget)
        run.gate = GateStatus(
            mode=policy.mode,
            switch_at=policy.at if policy.mode is SwitchMode.SCHEDULED else None,
            prediction=prediction,
            downtime_budget=budget,
            holds=holds,
            next_cycle_at=self._next_cycle(),
        )
        return holds

    async def _wait(self) -> None:
        """Until something is due, is asked for, or the policy has changed."""
        run, seen = self.run, self.run.facts.switching
        now, times = self.runtime.now(), [self._next_cycle()]
        # Past its time the switch waits only for the budget, and that is looked at after a cycle.
        scheduled = seen.at if seen.mode is SwitchMode.SCHEDULED else None
        if scheduled is not None and scheduled > now and not run.switch_asked:
            times.append(scheduled)
        left = min(times) - now
        asked = run.switch_asked, run.ignore_budget
        self.runtime.publish()
        if left > timedelta(0) and not run.paused:
            await self.runtime.wait(
                lambda: (
                    run.paused
                    or run.undo_asked
                    or run.facts.switching != seen
                    or (run.switch_asked, run.ignore_budget) != asked
                ),
                left,
                "Next cycle" if times[0] == min(times) else "Scheduled switch",
            )

    async def cycle_if_due(self) -> None:
        """One re-sync, if the interval since the last one is over."""
        if self.runtime.now() >= self._next_cycle():
            await self.cycle()

    def _in_window(self, when: datetime) -> datetime:
        """The first moment from `when` on in which disks may be copied: a cycle that began earlier
        would wait with its read snapshot open, and that grows."""
        window = (self.run.facts.limits or self.run.facts.request.limits).window
        return when if window is None else when + window.opens_in(when)

    def _next_cycle(self) -> datetime:
        """When the next cycle begins: one interval after the last one began; for a scheduled switch
        the last one begins as late as lets it end in time."""
        policy, newest = self.run.facts.switching, self.run.facts.cycles[-1]
        regular = max(newest.began_at + policy.resync_interval, newest.ended_at)
        regular = self._in_window(regular)
        if policy.mode is not SwitchMode.SCHEDULED or policy.at is None:
            return regular
        latest = policy.at - 1.5 * cycle_time(self.run.facts.cycles) - timedelta(seconds=5)
        latest = self._in_window(latest)
        return min(regular, latest) if latest > newest.ended_at else regular

    async def cycle(self) -> None:
        """One re-sync, in the phase the run is in. Its number is set before its first step: from
        then on its read snapshot may exist, and undo looks for that one."""
        facts = self.run.facts
        number = facts.cycle + 1
        kept = (1, facts.cycle)
        self.run.facts = facts.model_copy(
            update={
                "cycle": number,
                "frozen": None,
                # Numbers of pass 1 and of the newest cycle stay for people; the ledger has all.
                "differences": tuple(d for d in facts.differences if d.pass_no in kept[:1]),
                "transfers": facts.transfers[: len(facts.known.pairs)],
            }
        )
        await self.engine.forward([replace(step, phase=self.run.phase) for step in RESYNC])
        note_cycle(self.run, StepName.RESYNC_FREEZE, StepName.RESYNC_TRANSPORT)


def _over(predicted: timedelta, budget: timedelta) -> str:
    if predicted <= budget:
        return ""
    return (
        f"the predicted downtime of {predicted.total_seconds():.0f} s is over the budget of "
        f"{budget.total_seconds():.0f} s"
    )


def _not_due(policy: SwitchPolicy, now: datetime, *, asked: bool) -> str:
    if asked or policy.mode is SwitchMode.AUTO:
        return ""
    if policy.mode is SwitchMode.MANUAL:
        return "it waits for switch_over"
    assert policy.at is not None
    return "" if now >= policy.at else f"the switch is at {policy.at:%Y-%m-%d %H:%M:%S %z}"


def note_cycle(run: Run, freeze: StepName, transport: StepName) -> None:
    """Keep the numbers of a cycle that is complete."""
    facts = run.facts
    if facts.cycles and facts.cycles[-1].number >= facts.cycle:
        return
    rows = {row.name: row for row in run.steps}
    frozen, moved = rows[freeze], rows[transport]
    assert frozen.started_at is not None
    assert frozen.finished_at is not None
    assert moved.started_at is not None
    assert moved.finished_at is not None
    results = facts.transfers[-len(facts.known.pairs) :] if facts.known.pairs else ()
    cycle = Cycle(
        number=facts.cycle,
        began_at=frozen.started_at,
        frozen_at=frozen.finished_at,
        ended_at=moved.finished_at,
        different_bytes=sum(one.different_bytes for one in results),
        written_bytes=sum(one.written_bytes for one in results),
        examined_bytes=sum(one.examined_bytes for one in results),
        transport_s=(moved.finished_at - moved.started_at).total_seconds(),
    )
    cycles = (*facts.cycles, cycle)[-KEPT_CYCLES:]
    run.facts = facts.model_copy(update={"cycles": cycles})
