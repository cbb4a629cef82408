"""Lives of a run on a virtual clock, and the commands that each gives the server.

A command is what a replay compares: the kind, and the type of activity or child workflow. Inputs,
time limits and the lengths of timers are no part of it, they may change freely.

A life stays what it is under its name: what is lived otherwise is another life and has another one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

from failback.contracts.operations import HookResult, PreflightResult, ProbeResult, WatchResult
from failback.contracts.plan import Carry, RunPlan
from failback.contracts.remains import RecordedStep, Remains
from failback.contracts.requests import Request
from failback.contracts.words import Phase, RequestKind, StepName
from tests.unit.workflows.fake_runtime import PLAN, plan_for
from tests.unit.workflows.virtual_runtime import VirtualRuntime, World, world
from workflows import operations as op
from workflows import rebuild
from workflows.carried import Carried
from workflows.engine import GoOnLater, OperationError, OperationStopped

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
Act = tuple[RequestKind, dict[str, Any]]
React = dict[Phase, list[tuple[timedelta, list[Act]]]]
"""What people do, so long after a phase was entered."""
Script = dict[str, Callable[[Any, int], Any]]
BESIDE = (op.PROBE, op.RUN_HOOK, op.WATCH_DECISION, op.SET_LIMITS)
"""Operations that are no steps, and that no journal tells of."""


@dataclass
class Notebook(VirtualRuntime):
    """Writes down every command, and what the catalog's journal would know."""

    commands: list[str] = field(default_factory=list)
    react: React = field(default_factory=dict)
    ask: Callable[..., object] = lambda kind, **body: None
    before: dict[int, Callable[[str], object]] = field(default_factory=dict)
    """What happens when the operation of that number is issued; it may raise."""
    on: Mapping[tuple[str, int], list[Act]] = field(default_factory=dict)
    """What people do when an operation of that name is issued for that time."""
    numbers: Iterator[int] = field(default_factory=count)
    shown: Phase | None = None
    journal: dict[tuple[str, str, str], RecordedStep] = field(default_factory=dict)

    async def run(
        self, operation: op.Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if stop():
            raise OperationStopped
        self.commands.append(f"activity {operation.name}")
        key = self._intent(operation, argument)
        time = self.commands.count(f"activity {operation.name}") - 1
        acts = self.on.get((operation.name, time), [])
        if (act := self.before.get(next(self.numbers))) is not None:
            await asyncio.sleep(0)
            act(operation.name)
        self._say(acts)
        if stop() and operation.name not in self.stubborn:
            self.commands.append(f"cancel {operation.name}")
            raise OperationStopped
        try:
            result = await super().run(
                operation,
                argument,
                title,
                lambda: stop() and operation.name not in self.stubborn,
            )
        except OperationStopped:
            self.commands.append(f"cancel {operation.name}")
            raise
        if key in self.journal:
            done = {"finished_at": self.clock, "evidence": result.model_dump_json()}
            self.journal[key] = self.journal[key].model_copy(update=done)
        return result

    def _intent(self, operation: op.Operation[Any, Any], argument: Any) -> tuple[str, str, str]:
        if operation in BESIDE:
            return ("", "", "")
        plan = getattr(argument, "plan", None)
        disk = str(getattr(plan, "address", ""))
        mark = f"failback/run-1/{getattr(argument, 'purpose', '')}"
        key = (str(argument.step), disk, mark)
        self.journal[key] = RecordedStep(
            step=key[0], object=disk, mark=mark, intent_at=self.clock, started_at=self.clock
        )
        return key

    async def wait(
        self, condition: Callable[[], bool], timeout: timedelta | None = None, summary: str = ""
    ) -> bool:
        if timeout is None or condition():
            return await super().wait(condition, timeout)
        self.commands.append("timer")
        met = await super().wait(condition, timeout)
        if met:
            self.commands.append("cancel timer")
        return met

    def patched(self, name: str) -> bool:
        new = super().patched(name)
        if new and (marker := f"marker {name}") not in self.commands:
            self.commands.append(marker)
        return new

    def publish(self) -> None:
        super().publish()
        if (phase := self.run_state.phase) is not self.shown:
            self.shown = phase
            self.commands.append("search attributes")
            for after, acts in self.react.get(phase, []):
                self.after(after, partial(self._say, acts))

    def _say(self, acts: list[Act]) -> None:
        for kind, body in acts:
            self.ask(kind, **body)


def says(kind: RequestKind, **body: Any) -> list[Act]:
    """One person asks for one thing."""
    return [(kind, body)]


COMMITS, UNDOES, SWITCHES = (
    says(RequestKind.COMMIT),
    says(RequestKind.UNDO),
    says(RequestKind.SWITCH_OVER),
)
PAUSES, RESUMES = says(RequestKind.PAUSE), says(RequestKind.RESUME)
COMMIT: React = {Phase.AWAITING_DECISION: [(MINUTE, COMMITS)]}
LATE_COMMIT: React = {Phase.AWAITING_DECISION: [(5 * HOUR, COMMITS)]}
UNDO: React = {Phase.AWAITING_DECISION: [(MINUTE, UNDOES)]}
SWITCH: React = {Phase.READY_TO_SWITCH: [(25 * MINUTE, SWITCHES)]}
RETRY: React = {Phase.NEEDS_OPERATOR: [(MINUTE, says(RequestKind.RETRY))]}
LATE_RETRY: React = {Phase.NEEDS_OPERATOR: [(30 * MINUTE, says(RequestKind.RETRY))]}
GIVE_UP: React = {
    # Where the way back is closed (the commit has begun), the retry goes on forward.
    Phase.NEEDS_OPERATOR: [(MINUTE, UNDOES + says(RequestKind.RETRY))]
}
FOLLOW: React = {Phase.NEEDS_OPERATOR: [(MINUTE, says(RequestKind.RETRY, rebase_target=True))]}


def by_two(kind: RequestKind) -> list[Act]:
    """One asks and another one approves."""
    approval = says(RequestKind.APPROVE, by="bob", of="r1")
    return says(kind, by="ann", request_id="r1") + approval


TWO: React = {Phase.AWAITING_DECISION: [(MINUTE, by_two(RequestKind.COMMIT))]}

MANUAL = {"switch": {"mode": "manual", "resync_interval": "PT10M"}}
SCHEDULED = {"switch": {"mode": "scheduled", "at": "2026-01-01T02:00:00Z"}}
LIMITED = {"limits": {"bandwidth_bytes_per_s": 1000}}
AUTO_COMMIT = {"finalize": {"mode": "auto_commit", "after": "PT1H"}}
AUTO_UNDO = {
    "finalize": {"mode": "auto_undo", "after": "PT1H", "accept_loss_of_production_writes": True}
}
RECOVERED = {"destination": "recovered", "recovered": "production:web01"}
NEW = {"destination": "new"}
DESTINATIONS: dict[str, dict[str, Any]] = {
    "original": {},
    "recovered": RECOVERED,
    "new": NEW,
    "manual": MANUAL,
}


def reschedule(**switch: Any) -> list[Act]:
    """Another policy of when the work moves over."""
    return says(RequestKind.RESCHEDULE, switch=switch)


def adjust(**change: Any) -> list[Act]:
    """Other limits, or another way to decide."""
    return says(RequestKind.ADJUST, **change)


def carrying(argument: Any, number: int) -> PreflightResult:
    """A plan that carries hardware over."""
    carry = Carry(cpus=4, memory_mb=8, cpus_before=2, memory_mb_before=8)
    return PreflightResult(plan=PLAN.model_copy(update={"carry": carry}))


def without_source(argument: Any, number: int) -> PreflightResult:
    """The old source VM was deleted: it is replaced, and cannot be powered off."""
    plan = plan_for(argument.request)
    return PreflightResult(plan=plan.model_copy(update={"old_source_there": False}))


def failing(
    code: str, *at: int, unreachable: bool = False
) -> Callable[[Any, int], OperationError | None]:
    """An operation that fails at these times."""

    def fails(argument: Any, number: int) -> OperationError | None:
        return OperationError(code, "It fails.", unreachable=unreachable) if number in at else None

    return fails


def away(name: str, *at: int) -> Script:
    """A site that cannot be reached at that call, nor at the first two probes after it."""
    return {name: failing("SiteUnreachable", *at, unreachable=True), "probe": back_at(2)}


def back_at(number: int) -> Callable[[Any, int], ProbeResult]:
    """Probes of sites that answer from that one on."""
    return lambda argument, count: ProbeResult(reachable=count >= number, evidence="dr is away")


def seeing(code: str) -> Script:
    """A watch that sees something at once; the next ones see the same."""
    alarm = WatchResult(alarm="It saw something.", code=code)
    return {"watch_decision": lambda argument, number: alarm}


def blind(argument: Any, number: int) -> Any:
    """A watch that fails once; the next one sees nothing new."""
    if number == 0:
        return OperationError("SiteUnreachable", "It fails.")
    return WatchResult(alarm="The watch of the power states failed: It fails.", code="NOTHING")


def hook(policy: str) -> dict[str, Any]:
    """A call before the switch, which fails (see `unanswered`)."""
    name = {"name": "dns", "when": "before", "step": "power_off_replica"}
    return {"hooks": [{**name, "on_failure": policy}]}


def unanswered(argument: Any, number: int) -> HookResult:
    """A call that fails once."""
    return HookResult(ok=number > 0, output="no", evidence="exit status 1")


@dataclass(frozen=True)
class Life:
    """One life: what was asked, what people do, and what happens at which operation."""

    request: dict[str, Any] = field(default_factory=dict)
    react: React = field(default_factory=dict)
    undo_at: int | None = None
    pause_at: int | None = None
    fail_at: int | None = None
    script: Script = field(default_factory=dict)
    long: bool = False
    takes: dict[str, timedelta] = field(default_factory=dict)
    """How long operations take, by name."""
    on: Mapping[tuple[str, int], list[Act]] = field(default_factory=dict)
    """What people do when an operation of that name is issued for that time."""
    stubborn: frozenset[str] = frozenset()
    """Operations that come to their end although they were asked to stop."""
    late: tuple[RequestKind, ...] = ()
    """What is asked while this execution of the workflow ends, as the next one shall go on."""
    then: React | None = None
    """What people do in the next execution; None: this life ends with the first one."""
    ended_at: int | None = None
    """The operation at which somebody terminates the workflow; reconcile takes the run up."""
    finish: Phase = Phase.UNDOING
    """Where reconcile lets it go on."""
    shows: tuple[str, ...] = ()
    """Commands without which it is not the life that its name says."""

    async def commands(self, off: frozenset[str] = frozenset()) -> list[str]:
        """Live it; everything it gave the server.

        Args:
            off: patches whose places the run had passed when they came.
        """
        try:
            return await self._commands(off)
        except Exception as error:
            # A change has left people waiting for what does not come, or worse: it has a name too.
            return [f"{FAILED}: {type(error).__name__}: {error}"]

    async def _commands(self, off: frozenset[str]) -> list[str]:
        if self.ended_at is not None:
            return await self._reconciled(off)
        made = self._begin(None, self.react, off, long=self.long)
        ending = await _lived(made, taken_up=False)
        commands = [*_notebook(made).commands, ending]
        if self.then is None or ending != CONTINUED:
            return commands
        for kind in self.late:
            made.ask(kind)
        carried = made.run.carry(made.runtime.clock, made.runtime.clock)
        return commands + await self._taken_up(carried, self.then, off)

    async def remains(self, off: frozenset[str] = frozenset()) -> Remains:
        """What the catalog knows when the workflow is terminated at `ended_at`."""
        # In a loop of its own, which ends whatever is left of the run.
        return await asyncio.to_thread(asyncio.run, self._terminated(off))

    async def _terminated(self, off: frozenset[str]) -> Remains:
        assert self.ended_at is not None
        made = self._begin(None, self.react, off)
        notebook, began = _notebook(made), made.runtime.clock
        known: list[RecordedStep] = []
        life = asyncio.ensure_future(made.live())

        def terminate(name: str) -> None:
            known.extend(notebook.journal.values())
            life.cancel()

        notebook.before[self.ended_at] = terminate
        with contextlib.suppress(asyncio.CancelledError):
            await life
        return Remains(
            replica="web01",
            run_id="run-1",
            started_at=began,
            request=made.run.facts.request,
            plan=_planned(known),
            steps=tuple(known),
        )

    async def _reconciled(self, off: frozenset[str]) -> list[str]:
        """What the run does that reconcile has taken up; what was before does not count."""
        remains, now = await self.remains(off), datetime.fromisoformat("2026-01-02T00:00:00Z")
        carried = rebuild.carried(remains, self.finish, Request(by="ann"), now)
        return await self._taken_up(carried, self.react, off)

    async def _taken_up(self, carried: Carried, react: React, off: frozenset[str]) -> list[str]:
        made = self._begin(carried, react, off)
        made.runtime.clock = carried.started_at + timedelta(days=1)
        ending = await _lived(made, taken_up=True)
        return [*_notebook(made).commands, ending]

    def _begin(
        self, carried: Carried | None, react: React, off: frozenset[str], *, long: bool = False
    ) -> World:
        made = world(carried, kind=Notebook, **self.request)
        notebook = _notebook(made)
        notebook.ask, notebook.react, notebook.passed_by = made.ask, react, off
        notebook.script.update(self.script)
        notebook.long_history, notebook.stubborn = long, self.stubborn
        notebook.takes, notebook.on = self.takes, self.on

        async def cleanup() -> None:
            notebook.commands.append("child FailbackCleanup")

        made.life.cleanup = cleanup

        def fail(name: str) -> None:
            raise OperationError("DiskFull", f"{name} failed.")

        def pause(name: str) -> None:
            made.ask(RequestKind.PAUSE)
            notebook.after(MINUTE, lambda: made.ask(RequestKind.RESUME))

        if self.undo_at is not None:
            notebook.before[self.undo_at] = lambda _: made.ask(RequestKind.UNDO)
        if self.pause_at is not None:
            notebook.before[self.pause_at] = pause
        if self.fail_at is not None:
            notebook.before[self.fail_at] = fail
        return made


CONTINUED = "continue as new"
FAILED = "it cannot be lived any more"


def _notebook(made: World) -> Notebook:
    assert isinstance(made.runtime, Notebook)
    return made.runtime


async def _lived(made: World, *, taken_up: bool) -> str:
    try:
        outcome = await made.runtime.drive(made.life.live(taken_up=taken_up))
    except GoOnLater:
        return CONTINUED
    return f"complete {outcome.value}"


def _planned(journal: list[RecordedStep]) -> RunPlan | None:
    """The plan that preflight has left in the journal."""
    rows = [row for row in journal if row.step == StepName.PREFLIGHT.value and row.evidence]
    return PreflightResult.model_validate_json(rows[0].evidence).plan if rows else None


BUDGET = {"downtime_budget": "PT5M"}
MARKER = "marker looks-again"
COMMITTED, UNDONE, REFUSED = "complete COMMITTED", "complete UNDONE", "complete REFUSED"
LAST_LOOK = ("check_drift", 2)
"""The look before the switch of a MANUAL run whose SWITCH comes after two cycles."""

GATE: dict[str, Life] = {
    "scheduled": Life(SCHEDULED, COMMIT, shows=("timer", COMMITTED)),
    "rescheduled": Life(
        SCHEDULED,
        {
            Phase.READY_TO_SWITCH: [(5 * MINUTE, reschedule(at="2026-01-01T01:00:00Z"))],
            **COMMIT,
        },
        shows=("cancel timer", COMMITTED),
    ),
    "scheduled-by-reschedule": Life(
        MANUAL,
        {
            Phase.READY_TO_SWITCH: [
                (5 * MINUTE, reschedule(mode="scheduled", at="2026-01-01T01:00:00Z"))
            ],
            **COMMIT,
        },
        shows=("cancel timer", COMMITTED),
    ),
    "held-back-by-reschedule": Life(
        SCHEDULED,
        {
            Phase.READY_TO_SWITCH: [(HOUR, reschedule(mode="manual")), (3 * HOUR, SWITCHES)],
            **COMMIT,
        },
        shows=("cancel timer", COMMITTED),
    ),
    "pause-in-the-gate": Life(
        MANUAL,
        {
            Phase.READY_TO_SWITCH: [
                (5 * MINUTE, PAUSES),
                (HOUR, RESUMES),
                (HOUR + 25 * MINUTE, SWITCHES),
            ],
            **COMMIT,
        },
        shows=("cancel timer", COMMITTED),
    ),
    "undo-in-the-gate": Life(
        MANUAL, {Phase.READY_TO_SWITCH: [(25 * MINUTE, UNDOES)]}, shows=("cancel timer", UNDONE)
    ),
    "undo-while-paused-in-the-gate": Life(
        MANUAL,
        {Phase.READY_TO_SWITCH: [(5 * MINUTE, PAUSES), (HOUR, UNDOES)]},
        shows=("cancel timer", UNDONE),
    ),
    "switch-over-by-two": Life(
        {**MANUAL, "approvals": 2},
        {Phase.READY_TO_SWITCH: [(25 * MINUTE, by_two(RequestKind.SWITCH_OVER))], **TWO},
        shows=(COMMITTED,),
    ),
    "undo-by-two": Life(
        {"approvals": 2},
        {Phase.AWAITING_DECISION: [(MINUTE, by_two(RequestKind.UNDO))]},
        shows=(UNDONE,),
    ),
    "last-look-trouble": Life(
        MANUAL,
        {**SWITCH, **LATE_RETRY, **COMMIT},
        script={"check_drift": failing("VmChanged", LAST_LOOK[1])},
        shows=(MARKER, COMMITTED),
    ),
    "last-look-pause": Life(
        MANUAL,
        {Phase.READY_TO_SWITCH: [(25 * MINUTE, SWITCHES), (HOUR, RESUMES)], **COMMIT},
        on={LAST_LOOK: PAUSES},
        shows=("cancel check_drift", MARKER, COMMITTED),
    ),
    "last-look-that-cannot-be-paused": Life(
        MANUAL,
        {Phase.READY_TO_SWITCH: [(25 * MINUTE, SWITCHES), (HOUR, RESUMES)], **COMMIT},
        on={LAST_LOOK: PAUSES},
        stubborn=frozenset({"check_drift"}),
        shows=(MARKER, COMMITTED),
    ),
    "last-look-reschedule": Life(
        MANUAL,
        {Phase.READY_TO_SWITCH: [(25 * MINUTE, SWITCHES), (HOUR, SWITCHES)], **COMMIT},
        on={LAST_LOOK: reschedule(mode="manual")},
        shows=(COMMITTED,),
    ),
    "last-look-undo": Life(MANUAL, SWITCH, on={LAST_LOOK: UNDOES}, shows=(UNDONE,)),
}

BUDGETS: dict[str, Life] = {
    "budget-kept": Life({"switch": BUDGET}, COMMIT, shows=(MARKER, "cancel timer", COMMITTED)),
    "budget-overrun-continue": Life(
        {"switch": BUDGET}, COMMIT, takes={"verify": 10 * MINUTE}, shows=(MARKER, COMMITTED)
    ),
    "budget-overrun-undo": Life(
        {"switch": {**BUDGET, "on_overrun": "undo"}},
        takes={"verify": 10 * MINUTE},
        shows=(MARKER, "cancel verify", UNDONE),
    ),
    "budget-overrun-at-the-power-on": Life(
        {"switch": {**BUDGET, "on_overrun": "undo"}},
        COMMIT,
        takes={"power_on": 10 * MINUTE},
        shows=(MARKER, COMMITTED),
    ),
    "budget-too-small": Life(
        {"switch": {"downtime_budget": "PT1S", "resync_interval": "PT10M"}},
        {
            Phase.READY_TO_SWITCH: [
                (25 * MINUTE, says(RequestKind.SWITCH_OVER, ignore_budget=True))
            ],
            **COMMIT,
        },
        shows=("timer", MARKER, COMMITTED),
    ),
}

UNREACHABLE: dict[str, Life] = {
    "site-away": Life(
        react=COMMIT,
        script=away("calculate_difference", 0),
        shows=("timer", "activity probe", COMMITTED),
    ),
    "site-away-in-the-switch": Life(
        react=COMMIT,
        script=away("calculate_difference", 1),
        shows=("timer", "activity probe", COMMITTED),
    ),
    "site-away-until-retry": Life(
        react={**COMMIT, **RETRY},
        script={**away("calculate_difference", 0), "probe": back_at(99)},
        shows=("activity probe", "cancel timer", COMMITTED),
    ),
    "site-away-until-undo": Life(
        react={Phase.NEEDS_OPERATOR: [(10 * MINUTE, UNDOES)]},
        script={**away("calculate_difference", 0), "probe": back_at(99)},
        shows=("activity probe", "cancel timer", UNDONE),
    ),
    "site-away-in-the-gate": Life(
        MANUAL,
        {**SWITCH, **COMMIT},
        script=away("calculate_difference", 1),
        shows=("activity probe", COMMITTED),
    ),
    "site-away-in-the-undo": Life(
        react=UNDO,
        script=away("restore_replica", 0, 1),
        shows=("timer", "activity probe", UNDONE),
    ),
    "site-away-in-the-commit": Life(
        react=COMMIT, script=away("close_run", 0), shows=("timer", "activity probe", COMMITTED)
    ),
    "site-away-without-auto-retry": Life(
        {"auto_retry": False},
        {**COMMIT, **RETRY},
        script=away("calculate_difference", 0),
        shows=(COMMITTED,),
    ),
}

DECISION: dict[str, Life] = {
    "auto-commit": Life(AUTO_COMMIT, shows=("timer", "activity probe", COMMITTED)),
    "auto-commit-probes": Life(
        {"finalize": {"mode": "auto_commit", "after": "PT1H", "probes": [{"kind": "tools"}]}},
        shows=("timer", "activity probe", COMMITTED),
    ),
    "auto-commit-trouble": Life(
        AUTO_COMMIT, LATE_COMMIT, script={"probe": back_at(9)}, shows=("activity probe", COMMITTED)
    ),
    "auto-commit-pause": Life(
        AUTO_COMMIT,
        {Phase.AWAITING_DECISION: [(MINUTE, PAUSES), (2 * HOUR, RESUMES)]},
        shows=("cancel timer", "activity probe", COMMITTED),
    ),
    "auto-undo": Life(AUTO_UNDO, shows=("timer", "activity probe", UNDONE)),
    "auto-undo-commit-in-time": Life(AUTO_UNDO, COMMIT, shows=("cancel timer", COMMITTED)),
    "auto-undo-trouble": Life(
        AUTO_UNDO, LATE_COMMIT, script={"probe": back_at(9)}, shows=("activity probe", COMMITTED)
    ),
    "auto-undo-put-off": Life(
        AUTO_UNDO,
        {Phase.AWAITING_DECISION: [(MINUTE, adjust(finalize={"after": "PT3H"}))]},
        shows=("cancel timer", "activity probe", UNDONE),
    ),
    "auto-commit-by-adjust": Life(
        react={Phase.AWAITING_DECISION: [(HOUR, adjust(**AUTO_COMMIT))]},
        shows=("timer", "activity probe", COMMITTED),
    ),
    "pause-in-the-decision": Life(
        react={Phase.AWAITING_DECISION: [(MINUTE, PAUSES), (HOUR, RESUMES), (2 * HOUR, COMMITS)]},
        shows=(COMMITTED,),
    ),
    "undo-while-paused-in-the-decision": Life(
        react={Phase.AWAITING_DECISION: [(MINUTE, PAUSES), (HOUR, UNDOES)]}, shows=(UNDONE,)
    ),
    "approvals": Life({"approvals": 2}, TWO, shows=(COMMITTED,)),
    "watch-failed": Life(
        AUTO_COMMIT, LATE_COMMIT, script={"watch_decision": blind}, shows=(MARKER, COMMITTED)
    ),
    "watch-sees-two-copies": Life(
        AUTO_COMMIT, LATE_COMMIT, script=seeing("SPLIT_BRAIN"), shows=(MARKER, COMMITTED)
    ),
    "watch-sees-an-old-snapshot": Life(
        AUTO_UNDO, script=seeing("SNAPSHOT_OLD"), shows=(MARKER, "activity probe", UNDONE)
    ),
    "watch-sees-a-failed-probe": Life(
        {"finalize": {"mode": "manual", "probes": [{"kind": "tools"}]}},
        LATE_COMMIT,
        script=seeing("PROBE_FAILED"),
        shows=(MARKER, COMMITTED),
    ),
}

LIMITS: dict[str, Life] = {
    "limits-at-start": Life(LIMITED, COMMIT, shows=("activity set_limits", COMMITTED)),
    "limits-adjusted": Life(
        react={
            Phase.SYNCING: [(MINUTE, adjust(**LIMITED)), (2 * MINUTE, adjust(limits={"note": "n"}))]
        }
        | COMMIT,
        takes={"transport_changes": 10 * MINUTE},
        shows=("activity set_limits", COMMITTED),
    ),
    "limits-that-cannot-be-written": Life(
        LIMITED, COMMIT, script={"set_limits": failing("CatalogUnavailable", 0)}, shows=(COMMITTED,)
    ),
}

TAKEN_UP: dict[str, Life] = {
    "long-history": Life(MANUAL, {**SWITCH, **COMMIT}, long=True, shows=(CONTINUED,)),
    "taken-up-in-the-gate": Life(
        MANUAL, long=True, then={**SWITCH, **COMMIT}, shows=(CONTINUED, COMMITTED)
    ),
    "taken-up-in-the-gate-recovered": Life(
        {**MANUAL, **RECOVERED}, long=True, then={**SWITCH, **UNDO}, shows=(CONTINUED, UNDONE)
    ),
    "taken-up-in-the-gate-new": Life(
        {**MANUAL, **NEW}, long=True, then={**SWITCH, **UNDO}, shows=(CONTINUED, UNDONE)
    ),
    "taken-up-in-the-gate-with-limits": Life(
        {**MANUAL, **LIMITED}, long=True, then={**SWITCH, **COMMIT}, shows=(CONTINUED, COMMITTED)
    ),
    "taken-up-in-the-gate-scheduled": Life(
        {"switch": {"mode": "scheduled", "at": "2026-01-03T02:00:00Z"}},
        long=True,
        then=COMMIT,
        shows=(CONTINUED, COMMITTED),
    ),
    "taken-up-in-the-gate-paused": Life(
        MANUAL,
        {Phase.READY_TO_SWITCH: [(5 * MINUTE, PAUSES), (6 * MINUTE, RESUMES)]},
        long=True,
        late=(RequestKind.PAUSE,),
        then={Phase.READY_TO_SWITCH: [(HOUR, RESUMES), (2 * HOUR, SWITCHES)], **COMMIT},
        shows=(CONTINUED, COMMITTED),
    ),
    "taken-up-in-the-gate-with-a-pending-request": Life(
        {**MANUAL, "approvals": 2, "approval_expiry": "P3D"},
        {
            Phase.READY_TO_SWITCH: [
                (MINUTE, says(RequestKind.SWITCH_OVER, by="ann", request_id="s1"))
            ]
        },
        long=True,
        then={
            Phase.READY_TO_SWITCH: [(MINUTE, says(RequestKind.APPROVE, by="bob", of="s1"))],
            **TWO,
        },
        shows=(CONTINUED, COMMITTED),
    ),
    "taken-up-with-an-undo": Life(
        MANUAL, long=True, late=(RequestKind.UNDO,), then={}, shows=(CONTINUED, UNDONE)
    ),
    "taken-up-in-the-decision": Life(long=True, then=COMMIT, shows=(CONTINUED, COMMITTED)),
    "taken-up-in-the-decision-undo": Life(long=True, then=UNDO, shows=(CONTINUED, UNDONE)),
    "taken-up-in-the-decision-auto-commit": Life(
        AUTO_COMMIT, long=True, then={}, shows=(CONTINUED, "activity probe", COMMITTED)
    ),
    "taken-up-with-a-commit": Life(
        long=True, late=(RequestKind.COMMIT,), then={}, shows=(CONTINUED, COMMITTED)
    ),
    "taken-up-with-a-commit-and-limits": Life(
        LIMITED, long=True, late=(RequestKind.COMMIT,), then={}, shows=(CONTINUED, COMMITTED)
    ),
}

OTHERS: dict[str, Life] = {
    "hook": Life({"hooks": [{"name": "dns", "when": "after", "step": "power_on_target"}]}, COMMIT),
    "hook-failed-stop": Life(
        hook("stop"), {**COMMIT, **RETRY}, script={"run_hook": unanswered}, shows=(COMMITTED,)
    ),
    "hook-failed-undo": Life(hook("undo"), script={"run_hook": unanswered}, shows=(UNDONE,)),
    "carry-over-commit": Life({"carry_over": ["cpu"]}, COMMIT, script={"preflight": carrying}),
    "carry-over-undo": Life({"carry_over": ["cpu"]}, UNDO, script={"preflight": carrying}),
    "rebase": Life(
        react={**COMMIT, **FOLLOW},
        script={"check_drift": failing("ReplicaGrown", 0)},
        shows=("activity rebase_target", COMMITTED),
    ),
    "rebase-in-the-gate": Life(
        MANUAL,
        {**SWITCH, **COMMIT, **FOLLOW},
        script={"check_drift": failing("ReplicaGrown", 1)},
        shows=("activity rebase_target", COMMITTED),
    ),
    "rebase-undo": Life(
        react={**UNDO, **FOLLOW},
        script={"check_drift": failing("ReplicaGrown", 0)},
        shows=("activity rebase_target", UNDONE),
    ),
    "recovered-source-gone-commit": Life(
        RECOVERED,
        COMMIT,
        script={"preflight": without_source},
        shows=("activity replace_source", COMMITTED),
    ),
    "recovered-source-gone-undo": Life(
        RECOVERED,
        UNDO,
        script={"preflight": without_source},
        shows=("activity replace_source", UNDONE),
    ),
    "target-stays-off": Life({"power_on_target": False}, COMMIT, shows=(COMMITTED,)),
    "replica-stays-off": Life(
        react={Phase.AWAITING_DECISION: [(MINUTE, says(RequestKind.UNDO, power_on_replica=False))]},
        shows=(UNDONE,),
    ),
    "guest-timeout-undo": Life(
        {"on_guest_timeout": "undo"},
        script={"power_off": failing("GuestShutdownTimeout", 1)},
        shows=(UNDONE,),
    ),
    "refused": Life(
        script={"preflight": lambda argument, number: PreflightResult()}, shows=(REFUSED,)
    ),
}

NAMED: dict[str, Life] = {
    **GATE,
    **BUDGETS,
    **UNREACHABLE,
    **DECISION,
    **LIMITS,
    **TAKEN_UP,
    **OTHERS,
}


async def all_lives() -> dict[str, Life]:
    """Every life, by name."""
    lives = dict(NAMED)
    for place, request in DESTINATIONS.items():
        there = {**SWITCH, **COMMIT}
        back = {**SWITCH, **UNDO}
        lives[f"{place}-commit"] = Life(request, there, shows=(COMMITTED,))
        lives[f"{place}-undo"] = Life(request, back, shows=(UNDONE,))
        forward = await _operations(lives[f"{place}-commit"])
        for number in range(forward):
            lives[f"{place}-undo-at-{number}"] = Life(request, there, undo_at=number)
            lives[f"{place}-pause-at-{number}"] = Life(request, there, pause_at=number)
            lives[f"{place}-retry-at-{number}"] = Life(request, {**there, **RETRY}, fail_at=number)
            lives[f"{place}-give-up-at-{number}"] = Life(
                request, {**there, **GIVE_UP}, fail_at=number
            )
            left = Life(request, there, ended_at=number, shows=(UNDONE,))
            lives[f"{place}-reconcile-undo-at-{number}"] = left
        for number in range(forward, await _operations(lives[f"{place}-undo"])):
            lives[f"{place}-undo-retry-at-{number}"] = Life(
                request, {**back, **RETRY}, fail_at=number
            )
        # The last operation of a run that commits closes it: all before was done.
        closing = replace(left, finish=Phase.COMMITTING, shows=(COMMITTED,))
        lives[f"{place}-reconcile-commit"] = closing
    return lives


async def _operations(life: Life) -> int:
    """How many there are; more where runs that began under earlier code have more."""
    ways = [await life.commands(), await life.commands(EVERY)]
    return max(sum(one.startswith("activity ") for one in commands) for commands in ways)


class _Every(frozenset[str]):
    """The names of all patches that there are and will be."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY = _Every()
