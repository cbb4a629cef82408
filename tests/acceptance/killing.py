"""Kills the worker at a chosen moment of every step, from outside, and never too late.

What holds a step is put in place before the run can reach it, so that no moment is a question of
speed. A trigger in the catalog's file refuses the step's intent: it cannot begin. Then the file is
locked for writing, the trigger goes, and the attempt stands in front of the lock: that is *before*.
For the other two moments the Temporal server is frozen next, so that it hears of nothing and gives
nobody another attempt, and the lock is let go. *Applied*: the site's reply to the step's last
change is held; bytes are held by the lock after the first segment; what has no such call is refused
its record. *After*: the record is in the catalog, and the server has not heard of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflowservice.v1 import ResetStickyTaskQueueRequest
from temporalio.service import RPCError, RPCStatusCode

from failback.contracts.requests import Request
from failback.contracts.words import Destination, Phase, StepName
from tests.acceptance.deeds import Deed, deeds, operation_of
from tests.acceptance.scene import Scene
from tests.helpers.matrix import PROPERTY
from tests.helpers.stack import until

WINDOW_S = 1.5
"""How long the catalog is kept locked for a step that does not come, before others may write."""
EVENT_S = 60.0
OPERATIONS = operation_of()
ENDING = (StepName.COMMIT, StepName.UNDO_CLOSE)
PER_DISK = frozenset({"transport_changes", "verify"})
REFUSED = "malformed JSON"
"""What a trigger makes SQLite say: an error of the database and not of a record, so that the worker
takes the catalog for unavailable, and tries again."""


class Moment(Enum):
    """When the worker dies, seen from one step."""

    BEFORE = "before the operation"
    APPLIED = "applied, not recorded"
    AFTER = "recorded, not heard of"


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, and what was seen when the worker died."""

    destination: Destination
    step: StepName
    moment: Moment
    seen: str


def noted(request: pytest.FixtureRequest) -> Callable[[Cell], None]:
    """Writes cells down for the table at the end of the session."""

    def note(cell: Cell) -> None:
        told = (cell.destination.value, cell.step.value, cell.moment.name.lower(), cell.seen)
        request.node.user_properties.append((PROPERTY, "|".join(told)))

    return note


@dataclass
class Killer:
    """Kills the workers of one scene, step by step."""

    scene: Scene
    destination: Destination
    order: list[StepName]
    """The steps in which the run goes, to know which one is next."""
    note: Callable[[Cell], None]
    """Told of each cell, and of what was seen of it."""
    disks: int = 2
    known: dict[StepName, Deed] = field(init=False)
    asked: set[StepName] = field(default_factory=set)
    stood: set[str] = field(default_factory=set)
    """Activities of earlier steps: another attempt of them is not the step that is waited for."""
    begun: dict[StepName, int] = field(default_factory=dict)
    """How many attempts each step had begun when its worker died: whoever goes on begins more."""

    def __post_init__(self) -> None:
        self.known = deeds(self.destination)

    def expect(self, step: StepName) -> None:
        """From here on the run does not pass the beginning of this step unseen."""
        with closing(self._database()) as database:
            database.execute("begin immediate")
            _refuse(database, "begin", _begins(step))
            database.execute("commit")

    def kill_at(self, steps: Sequence[StepName], moment: Moment) -> None:
        """Kill at this moment of each of these steps, in their order; a new worker goes on. The
        first of them is expected already."""
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            with closing(self._database()) as database:
                self._stand(database, step)
                if moment is Moment.BEFORE:
                    hit = self._before(database, step, following)
                else:
                    hit = self._later(database, step, following, moment)
            self.begun[step] = self._begun(step)
            self.note(Cell(self.destination, step, moment, hit))
            self._forget_worker()
            self.scene.stack.worker(ready=False)

    def turn_back_at(self, step: StepName, after: StepName, first: StepName) -> None:
        """Undo a run while it stands at the beginning of this step, which comes after another one,
        and expect the step `first` of its way back. Nobody dies."""
        with closing(self._database()) as database:
            until(f"{after} has finished", lambda: self._finished(after), EVENT_S)
            self._stand(database, step)
            assert self.scene.ask_undo().accepted
            _refuse(database, "begin", _begins(first))
            database.execute("commit")

    # --- the moments ---

    def _before(self, database: sqlite3.Connection, step: StepName, then: StepName | None) -> str:
        """The worker stands in front of its intent, and dies there."""
        deed, calls = self.known[step], self._calls(step)
        assert deed.done is None or not deed.done(self.scene), f"{step} was done before it began"
        self.scene.stack.workers[-1].kill()
        assert self._calls(step) == calls, f"{step} had sent {deed.method}"
        assert deed.done is None or not deed.done(self.scene), f"{step} was done"
        if then is not None:
            _refuse(database, "begin", _begins(then))
        database.execute("commit")
        return "not begun"

    def _later(
        self, database: sqlite3.Connection, step: StepName, then: StepName | None, moment: Moment
    ) -> str:
        """The operation is applied; its record is not there, or nobody has heard of it."""
        deed = self.known[step]
        assert deed.done is None or not deed.done(self.scene), f"{step} was done before it began"
        rule, recorded = 0, moment is Moment.AFTER or deed.one_transaction
        calls = self._calls(step)
        if not recorded and deed.method:
            rule = self.scene.lab.fault(
                "hold-after", method=deed.method, site=deed.site, count=0, wait_task=True
            )
        elif not recorded:
            _refuse(database, "record", _records(step))
        with self._deaf():
            heard = len(self.scene.stack.workers[-1].output)
            database.execute("commit")
            if recorded:
                until(f"{step} is recorded", lambda: self._finished(step), EVENT_S)
                hit = "recorded"
            elif rule:
                until(f"{deed.method} is held", lambda: self._held(rule), EVENT_S)
                hit = deed.method
            elif deed.moves:
                hit = self._moving(database, deed)
            else:
                until(f"{step} is refused its record", lambda: self._refused(heard), EVENT_S)
                hit = "reads only" if deed.done is None else "changed"
            if not recorded:
                assert not self._finished(step), f"{step} had been recorded"
            self.scene.stack.workers[-1].kill()
            if rule:
                until("the held call has ended", lambda: not self._held(rule))
                self.scene.lab.delete(f"/faults/{rule}")
                assert self._calls(step) > calls
            if deed.done is not None:
                # A guest that was asked to shut down does so in its own time.
                until(f"{step} is applied", lambda: bool(deed.done and deed.done(self.scene)), 10)
            if database.in_transaction:
                database.execute("rollback")
            self._go_on(database, then)
        return "one transaction" if deed.one_transaction else hit

    def _moving(self, database: sqlite3.Connection, deed: Deed) -> str:
        """Lock the catalog as soon as a segment is in it: the mover has the next one in its hands,
        or is refused its record."""
        assert deed.done is not None
        deadline = time.monotonic() + EVENT_S
        while time.monotonic() < deadline:
            database.execute("begin immediate")
            if deed.done(self.scene):
                return "segments written"
            database.execute("rollback")
            time.sleep(0.002)
        raise AssertionError("no segment was written")

    def _go_on(self, database: sqlite3.Connection, then: StepName | None) -> None:
        """Take away what refused a record, and expect the next step, while nobody works."""
        database.execute("begin immediate")
        _allow(database, "record")
        if then is not None:
            _refuse(database, "begin", _begins(then))
        database.execute("commit")

    # --- reaching a step ---

    def _stand(self, database: sqlite3.Connection, step: StepName) -> None:
        """Return with the catalog locked, and with an attempt of the step in front of the lock."""
        deadline = time.monotonic() + EVENT_S
        while time.monotonic() < deadline:
            pause = 0.002
            if self._due(step):
                database.execute("begin immediate")
                _allow(database, "begin")
                locked = time.time()
                self._ask(step)
                if self._standing(step, locked):
                    return
                database.execute("rollback")
                pause = 0.2
            time.sleep(pause)
        raise AssertionError(f"step {step} was not reached: {self.scene.status()}")

    def _due(self, step: StepName) -> bool:
        """Whether the step that comes before this one in the run has finished, and, where it was
        recorded when its worker died, has finished again."""
        at = self.order.index(step) if step in self.order else 0
        if at == 0:
            return True
        before = self.order[at - 1]
        again = self._begun(before) >= self.begun.get(before, 0) + self._number(before)
        recorded = before is StepName.PREFLIGHT or before in ENDING
        return self._finished(before) and (again or recorded)

    def _ask(self, step: StepName) -> None:
        """What a person must ask for does not come by itself."""
        ask = {StepName.COMMIT: self.scene.client.commit, StepName.SETTLE: self.scene.client.undo}
        if step in ask and step not in self.asked:
            self.asked.add(step)
            assert self.scene.wait(ask[step](self.scene.key, Request(by="ann"))).accepted

    def _standing(self, step: StepName, locked: float) -> bool:
        """Whether every attempt of the step was handed out since the catalog is locked, so that it
        must be on its way to the lock."""
        # A cleanup is a workflow of its own, which numbers its activities anew.
        others = set() if step is StepName.CLEAN_TARGET else self.stood
        started = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        deadline = time.monotonic() + WINDOW_S
        while time.monotonic() < deadline:
            found = [
                one
                for one in self._pending(step)
                if one.activity_type.name == OPERATIONS[step]
                and one.state == started
                and one.last_started_time.ToNanoseconds() > locked * 1e9
                and one.activity_id not in others
            ]
            if len(found) == self._number(step):
                self.stood |= {one.activity_id for one in found}
                return True
            time.sleep(0.01)
        return False

    def _pending(self, step: StepName) -> list[Any]:
        handle = self.scene.handle
        if step is StepName.CLEAN_TARGET:
            handle = self.scene.temporal.get_workflow_handle(f"failback-cleanup/{self._run_id()}")
        try:
            described = self.scene.wait(asyncio.wait_for(handle.describe(), 10))
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return []
        return list(described.raw_description.pending_activities)

    # --- what is seen ---

    def _run_id(self) -> str:
        return self._one("select run_id from run order by started_at desc limit 1") or ""

    def _finished(self, step: StepName) -> bool:
        """Whether the step is recorded as done, for each of its disks where it has several."""
        if step is StepName.PREFLIGHT:
            return bool(self._one("select max(plan) from run"))
        if step in ENDING:
            return bool(self._one("select max(ended_at) from run"))
        done = self._one(
            "select count(*) = count(finished_at) and count(*) >= ? from step where step = ?",
            self._number(step),
            step.value,
        )
        return bool(done)

    def _begun(self, step: StepName) -> int:
        query = "select coalesce(sum(attempts), 0) from step where step = ?"
        return int(self._one(query, step.value))

    def _number(self, step: StepName) -> int:
        """How many attempts of a step run side by side."""
        return self.disks if OPERATIONS[step] in PER_DISK else 1

    def _one(self, query: str, *values: object) -> Any:
        with self.scene.reading() as database:
            row = database.execute(query, values).fetchone()
        return row[0] if row else None

    def _calls(self, step: StepName) -> int:
        """How often the step's method was called at its site so far."""
        deed = self.known[step]
        return self.scene.lab.calls(deed.site).get(deed.method, 0)

    def _held(self, rule: int) -> bool:
        return bool(self.scene.lab.get(f"/faults/{rule}")["holding"])

    def _refused(self, heard: int) -> bool:
        return REFUSED in self.scene.stack.workers[-1].output[heard:]

    # --- the processes ---

    @contextmanager
    def _deaf(self) -> Iterator[None]:
        """The Temporal server stands still: it hears of no result, and no timer of it fires."""
        server = self.scene.server
        assert server is not None and server.child is not None
        server.child.freeze()
        try:
            yield
        finally:
            server.child.thaw()

    def _forget_worker(self) -> None:
        """The server asks the dead worker first, for as long as it may know the run: wait no time
        for that in every cell."""
        request = ResetStickyTaskQueueRequest(
            namespace="default",
            execution=WorkflowExecution(workflow_id=f"failback/{self.scene.key}"),
        )
        try:
            self.scene.wait(self.scene.temporal.workflow_service.reset_sticky_task_queue(request))
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.scene.stack.catalog_file, timeout=30, isolation_level=None)

    def decided(self) -> None:
        """Wait for the decision."""
        self.scene.until(Phase.AWAITING_DECISION, timeout_s=EVENT_S)


def _begins(step: StepName) -> str:
    """When a step begins: what is written first of it."""
    if step is StepName.PREFLIGHT:
        return "insert on run"
    if step in ENDING:
        return "update on run when new.ended_at is not null and old.ended_at is null"
    return f"insert on step when new.step = '{step.value}'"


def _records(step: StepName) -> str:
    """When what a step did is recorded, or that it failed."""
    if step is StepName.PREFLIGHT:
        return "update on run when new.plan is not null"
    told = "new.finished_at is not null or new.failing_since is not null"
    return f"update on step when new.step = '{step.value}' and ({told})"


def _refuse(database: sqlite3.Connection, name: str, when: str) -> None:
    database.execute(
        f"create trigger matrix_{name} before {when} begin select json('{name} refused'); end"
    )


def _allow(database: sqlite3.Connection, name: str) -> None:
    database.execute(f"drop trigger if exists matrix_{name}")
