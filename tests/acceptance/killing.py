"""Kills the worker at a chosen moment of every step, from outside.

The catalog is what holds a step: every attempt records its intent there before it sends anything,
and its result before Temporal hears of it. Whoever holds the catalog's write lock therefore holds
the worker before the first of these, or between the operation and the second.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum

from failback.contracts.words import Phase, StepName
from tests.acceptance.scene import Scene

QUIET_S = 0.25
"""A site that has not been called for so long has been asked for all that the step needs."""


class Moment(Enum):
    """When the worker dies, seen from one step."""

    BEFORE = "before the operation"
    APPLIED = "applied, not recorded"
    AFTER = "recorded, not heard of"


@dataclass
class Cell:
    """One cell of the matrix, and what was seen of it."""

    step: StepName
    moment: Moment
    hit: str = "missed"


@dataclass
class Killer:
    """Kills the workers of one scene, step by step."""

    scene: Scene
    order: list[StepName]
    """The steps in which the run goes, to know which one is next."""
    cells: list[Cell] = field(default_factory=list)

    def kill_at(self, steps: Sequence[StepName], moment: Moment) -> None:
        """Kill at this moment of each of these steps, in their order; a new worker goes on."""
        for step in steps:
            cell = Cell(step, moment)
            self.cells.append(cell)
            match moment:
                case Moment.BEFORE:
                    self._before(cell)
                case Moment.APPLIED:
                    self._applied(cell)
                case Moment.AFTER:
                    self._wait(step, finished=True)
                    cell.hit = "finished row seen"
                    self._kill()

    def _before(self, cell: Cell) -> None:
        """Hold the catalog while the step is about to begin: nothing has been sent."""
        with closing(self._database()) as database:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                database.execute("begin immediate")
                row = self._row(database, cell.step)
                if row is not None:
                    cell.hit = "too late: " + ("finished" if row[1] else "begun")
                    break
                if self._is_next(database, cell.step):
                    # The worker stands in front of our lock, or is on its way to it.
                    self._quiet()
                    cell.hit = "held before its intent"
                    break
                database.execute("rollback")
                time.sleep(0.002)
            self._kill(restart=False)
            database.rollback()
        self.scene.stack.worker(ready=False)

    def _applied(self, cell: Cell) -> None:
        """Hold the catalog once the intent is there; the operation goes on, its record does not."""
        self._wait(cell.step, finished=False)
        with closing(self._database()) as database:
            database.execute("begin immediate")
            row = self._row(database, cell.step)
            # The next worker starts meanwhile; the step stays with the one that began it.
            doomed = self.scene.stack.workers[-1]
            self.scene.stack.worker(ready=False)
            calls = self._quiet()
            cell.hit = "too late: finished" if row and row[1] else f"held after {calls} calls"
            doomed.kill()
            database.rollback()

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.scene.stack.catalog_file, timeout=30, isolation_level=None)

    def _run_id(self, database: sqlite3.Connection) -> str | None:
        row = database.execute("select run_id from run order by started_at desc limit 1").fetchone()
        return row[0] if row else None

    def _row(self, database: sqlite3.Connection, step: StepName) -> tuple[str, str] | None:
        """(intent, finished) of a step; finished only when all its rows are."""
        rows = database.execute(
            "select intent_at, finished_at from step where run_id = ? and step = ?",
            (self._run_id(database), step.value),
        ).fetchall()
        if not rows:
            return None
        return rows[0][0], rows[0][1] if all(done for _, done in rows) else ""

    def _is_next(self, database: sqlite3.Connection, step: StepName) -> bool:
        """Whether the step that comes before this one in the run has finished."""
        order = self.order
        at = order.index(step)
        if at == 0:
            plan = database.execute(
                "select plan from run where run_id = ?", (self._run_id(database),)
            ).fetchone()
            return bool(plan and plan[0])
        before = self._row(database, order[at - 1])
        return bool(before and before[1])

    def _wait(self, step: StepName, *, finished: bool) -> None:
        url = f"file:{self.scene.stack.catalog_file}?mode=ro"
        deadline = time.monotonic() + 60
        with closing(sqlite3.connect(url, uri=True, timeout=5)) as database:
            while time.monotonic() < deadline:
                row = self._row(database, step)
                if row is not None and (row[1] or not finished):
                    return
                time.sleep(0.002)
        raise AssertionError(f"step {step} was not reached: {self.scene.status()}")

    def _quiet(self) -> int:
        """Wait until the sites are not called any more; the number of calls so far."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_S:
            calls = sum(sum(self.scene.lab.calls(site).values()) for site in ("production", "dr"))
            if calls != last:
                last, since = calls, time.monotonic()
            time.sleep(0.02)
        return last

    def _kill(self, *, restart: bool = True) -> None:
        self.scene.stack.workers[-1].kill()
        if restart:
            self.scene.stack.worker(ready=False)

    def decided(self) -> None:
        """Wait for the decision."""
        self.scene.until(Phase.AWAITING_DECISION, timeout_s=60)


def printed(cells: Sequence[Cell]) -> str:
    """The matrix, a line for each cell."""
    width = max(len(cell.step.value) for cell in cells)
    return "\n".join(f"{c.step.value:<{width}}  {c.moment.value:<24}  {c.hit}" for c in cells)
