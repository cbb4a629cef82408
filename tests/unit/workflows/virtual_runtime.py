"""A Runtime with a clock of its own: time goes on only when every task waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio.contrib.pydantic import pydantic_data_converter

from failback.contracts import operations as ops
from failback.contracts.requests import Answer
from failback.contracts.start import StartRequest
from failback.contracts.words import Outcome, RequestKind
from tests.unit.workflows.fake_runtime import FakeRuntime
from workflows import operations as op
from workflows import requests
from workflows.carried import Carried
from workflows.engine import Engine, OperationStopped, Run
from workflows.facts import Facts
from workflows.life import Life

T = TypeVar("T")
CONVERTER = pydantic_data_converter.payload_converter
SETTLED = 50
"""Turns of the loop without a sign of progress after which every task waits."""


@dataclass
class VirtualRuntime(FakeRuntime):
    """As FakeRuntime, but the watch lasts, operations may take time, and waits end by the clock."""

    deadlines: list[datetime] = field(default_factory=list)
    takes: dict[str, timedelta] = field(default_factory=dict)
    """How long operations take, by name."""
    at: list[tuple[datetime, Callable[[], object]]] = field(default_factory=list)
    """What people do, and when."""

    async def run(
        self, operation: op.Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if operation is op.WATCH_DECISION and "watch_decision" not in self.script:
            self.issued.append((operation.name, argument))
            await self.wait(stop)
            raise OperationStopped
        if operation.name in self.takes and await self.elapse(stop, self.takes[operation.name]):
            raise OperationStopped
        return await super().run(operation, argument, title, stop)

    async def wait(
        self, condition: Callable[[], bool], timeout: timedelta | None = None, summary: str = ""
    ) -> bool:
        return await self.elapse(condition, timeout)

    async def elapse(self, condition: Callable[[], bool], timeout: timedelta | None = None) -> bool:
        """Let time go on, as an operation does that takes some: no wait of the workflow."""
        deadline = None if timeout is None else self.clock + timeout
        if deadline is not None:
            self.deadlines.append(deadline)
        try:
            while not condition():
                if deadline is not None and self.clock >= deadline:
                    return False
                await asyncio.sleep(0)
            return True
        finally:
            if deadline is not None:
                self.deadlines.remove(deadline)

    def now(self) -> datetime:
        return self.clock

    def after(self, span: timedelta, act: Callable[[], object]) -> None:
        """Somebody does this so long after the begin."""
        self.at.append((self.clock + span, act))

    async def drive(self, life: Coroutine[Any, Any, T]) -> T:
        """Run to the end; AssertionError when nothing will ever happen again."""
        task = asyncio.ensure_future(life)
        while not task.done():
            quiet, seen = 0, (-1, -1)
            while quiet < SETTLED and not task.done():
                await asyncio.sleep(0)
                done = (len(self.issued), self.published)
                quiet, seen = (quiet + 1 if done == seen else 0), done
            if task.done():
                break
            times = [*self.deadlines, *(when for when, _ in self.at)]
            if not times:
                task.cancel()
                raise AssertionError(f"it waits for ever in {self.run_state.phase}")
            self.clock = max(self.clock, min(times))
            for due in [one for one in self.at if one[0] <= self.clock]:
                self.at.remove(due)
                due[1]()
        return task.result()


@dataclass
class World:
    """One run on a virtual clock."""

    life: Life
    run: Run
    runtime: VirtualRuntime
    began: list[bool]
    cleaned: list[bool]

    def ask(self, kind: RequestKind, **body: Any) -> Answer:
        """What the run answers to a request now."""
        return requests.admit(self.run, kind, (body,), self.runtime.now())

    async def live(self) -> Outcome:
        """The whole life."""
        return await self.runtime.drive(self.life.live())


def on_the_wire(carried: Carried) -> Carried:
    """As the next execution gets it."""
    (payload,) = CONVERTER.to_payloads([carried])
    (raw,) = CONVERTER.from_payloads([payload], [Any])
    return Carried.model_validate(raw)


def world(
    carried: Carried | None = None, kind: type[VirtualRuntime] = VirtualRuntime, **request: Any
) -> World:
    """A run that has not begun, or one that is taken up."""
    start = StartRequest.model_validate({"replica": "web01", **request})
    ref = ops.RunRef(run_id="run-1", replica="web01")
    if carried is None:
        run = Run(Facts(run=ref, request=start))
    else:
        run = Run.take_up(on_the_wire(carried))
    runtime = kind(run)
    began: list[bool] = []
    cleaned: list[bool] = []

    async def cleanup() -> None:
        cleaned.append(True)

    return World(Life(Engine(run, runtime), began.append, cleanup), run, runtime, began, cleaned)
