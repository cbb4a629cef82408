"""Lives of a run on a virtual clock, and the commands that each gives the server.

A command is what a replay compares: the kind, and the type of activity or child workflow. Inputs,
time limits and the lengths of timers are no part of it, they may change freely.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

from failback.contracts.operations import PreflightResult
from failback.contracts.plan import Carry
from failback.contracts.words import Phase, RequestKind
from tests.unit.workflows.fake_runtime import PLAN
from tests.unit.workflows.virtual_runtime import VirtualRuntime, world
from workflows import operations as op
from workflows.engine import GoOnLater, OperationError, OperationStopped

MINUTE = timedelta(minutes=1)
Act = tuple[RequestKind, dict[str, Any]]
React = dict[Phase, tuple[timedelta, list[Act]]]
"""What people do, so long after a phase was entered."""


@dataclass
class Notebook(VirtualRuntime):
    """Writes down every command."""

    commands: list[str] = field(default_factory=list)
    react: React = field(default_factory=dict)
    ask: Callable[..., object] = lambda kind, **body: None
    before: dict[int, Callable[[str], object]] = field(default_factory=dict)
    """What happens when the operation of that number is issued; it may raise."""
    numbers: Iterator[int] = field(default_factory=count)
    shown: Phase | None = None

    async def run(
        self, operation: op.Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if stop():
            raise OperationStopped
        self.commands.append(f"activity {operation.name}")
        if (act := self.before.get(next(self.numbers))) is not None:
            await asyncio.sleep(0)
            act(operation.name)
        if stop():
            self.commands.append(f"cancel {operation.name}")
            raise OperationStopped
        try:
            return await super().run(operation, argument, title, stop)
        except OperationStopped:
            self.commands.append(f"cancel {operation.name}")
            raise

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
            if phase in self.react:
                after, acts = self.react[phase]
                self.after(after, lambda: [self.ask(kind, **body) for kind, body in acts])


COMMIT: React = {Phase.AWAITING_DECISION: (MINUTE, [(RequestKind.COMMIT, {})])}
UNDO: React = {Phase.AWAITING_DECISION: (MINUTE, [(RequestKind.UNDO, {})])}
SWITCH: React = {Phase.READY_TO_SWITCH: (25 * MINUTE, [(RequestKind.SWITCH_OVER, {})])}
RETRY: React = {Phase.NEEDS_OPERATOR: (MINUTE, [(RequestKind.RETRY, {})])}
GIVE_UP: React = {
    # Where the way back is closed (the commit has begun), the retry goes on forward.
    Phase.NEEDS_OPERATOR: (MINUTE, [(RequestKind.UNDO, {}), (RequestKind.RETRY, {})])
}
FOLLOW: React = {Phase.NEEDS_OPERATOR: (MINUTE, [(RequestKind.RETRY, {"rebase_target": True})])}
TWO: React = {
    Phase.AWAITING_DECISION: (
        MINUTE,
        [
            (RequestKind.COMMIT, {"by": "ann", "request_id": "c1"}),
            (RequestKind.APPROVE, {"by": "bob", "of": "c1"}),
        ],
    )
}

MANUAL = {"switch": {"mode": "manual", "resync_interval": "PT10M"}}
SCHEDULED = {"switch": {"mode": "scheduled", "at": "2026-01-01T02:00:00Z"}}
DESTINATIONS: dict[str, dict[str, Any]] = {
    "original": {},
    "recovered": {"destination": "recovered", "recovered": "production:web01"},
    "new": {"destination": "new"},
    "manual": MANUAL,
}


def carrying(argument: Any, number: int) -> PreflightResult:
    """A plan that carries hardware over."""
    carry = Carry(cpus=4, memory_mb=8, cpus_before=2, memory_mb_before=8)
    return PreflightResult(plan=PLAN.model_copy(update={"carry": carry}))


def growing(at: int) -> Callable[[Any, int], OperationError | None]:
    """A replica whose disk has grown by the look of that number."""

    def look(argument: Any, number: int) -> OperationError | None:
        return OperationError("ReplicaGrown", "It has grown.") if number == at else None

    return look


@dataclass(frozen=True)
class Life:
    """One life: what was asked, what people do, and what happens at which operation."""

    request: dict[str, Any] = field(default_factory=dict)
    react: React = field(default_factory=dict)
    undo_at: int | None = None
    pause_at: int | None = None
    fail_at: int | None = None
    script: dict[str, Callable[[Any, int], Any]] = field(default_factory=dict)
    long: bool = False

    async def commands(self) -> list[str]:
        """Live it; everything it gave the server."""
        made = world(kind=Notebook, **self.request)
        notebook = made.runtime
        assert isinstance(notebook, Notebook)
        notebook.ask, notebook.react = made.ask, self.react
        notebook.script.update(self.script)
        notebook.long_history = self.long

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
        try:
            outcome = await made.live()
            ending = f"complete {outcome.value}"
        except GoOnLater:
            ending = "continue as new"
        if made.cleaned:
            notebook.commands.append("child FailbackCleanup")
        return [*notebook.commands, ending]


NAMED: dict[str, Life] = {
    "scheduled": Life(SCHEDULED, COMMIT),
    "auto-commit": Life({"finalize": {"mode": "auto_commit", "after": "PT1H"}}),
    "auto-commit-probes": Life(
        {"finalize": {"mode": "auto_commit", "after": "PT1H", "probes": [{"kind": "tools"}]}},
    ),
    "approvals": Life({"approvals": 2}, TWO),
    "hook": Life({"hooks": [{"name": "dns", "when": "after", "step": "power_on_target"}]}, COMMIT),
    "carry-over-commit": Life({"carry_over": ["cpu"]}, COMMIT, script={"preflight": carrying}),
    "carry-over-undo": Life({"carry_over": ["cpu"]}, UNDO, script={"preflight": carrying}),
    "long-history": Life(MANUAL, {**SWITCH, **COMMIT}, long=True),
    "rebase": Life(react={**COMMIT, **FOLLOW}, script={"check_drift": growing(0)}),
    "rebase-in-the-gate": Life(
        MANUAL, {**SWITCH, **COMMIT, **FOLLOW}, script={"check_drift": growing(1)}
    ),
    "refused": Life(script={"preflight": lambda argument, number: PreflightResult()}),
}


async def all_lives() -> dict[str, list[str]]:
    """By name, the commands of every life."""
    lives = dict(NAMED)
    for place, request in DESTINATIONS.items():
        there = {**SWITCH, **COMMIT}
        back = {**SWITCH, **UNDO}
        lives[f"{place}-commit"] = Life(request, there)
        lives[f"{place}-undo"] = Life(request, back)
        forward = await _operations(lives[f"{place}-commit"])
        for number in range(forward):
            lives[f"{place}-undo-at-{number}"] = Life(request, there, undo_at=number)
            lives[f"{place}-pause-at-{number}"] = Life(request, there, pause_at=number)
            lives[f"{place}-retry-at-{number}"] = Life(request, {**there, **RETRY}, fail_at=number)
            lives[f"{place}-give-up-at-{number}"] = Life(
                request, {**there, **GIVE_UP}, fail_at=number
            )
        for number in range(forward, await _operations(lives[f"{place}-undo"])):
            lives[f"{place}-undo-retry-at-{number}"] = Life(
                request, {**back, **RETRY}, fail_at=number
            )
    return {name: await life.commands() for name, life in lives.items()}


async def _operations(life: Life) -> int:
    return sum(one.startswith("activity ") for one in await life.commands())
