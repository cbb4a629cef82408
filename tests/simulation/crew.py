"""Attempts of activities as threads of which one runs at a time: every schedule is the seed's.

At each point where the outside world could step in (a call to a site, a write to the catalog or the
ledger, a request to a disk, a pause) the seed decides what happens: nothing, or the attempt dies,
its reply is lost, the storage loses what was not flushed, the attempt freezes and goes on much
later as a zombie, the guest writes, or a person asks for something. Time is counted in points too,
so that neither a slow machine nor the wall clock changes a schedule.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from failback.errors import OperationFailed, SiteBusy, SiteUnreachable

MOST_FAULTS = 6
"""In one run: enough to meet each other, few enough that every run ends."""
MOST_POINTS = 20_000
"""Of one run, and a few hundred are usual: beyond it, it is said to go round in circles."""
POINT_S = 0.05
"""Virtual seconds from one point to the next."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Wrong(AssertionError):
    """Something that must hold does not."""


class Died(BaseException):
    """The worker is gone at this instant; nothing of it runs any more."""


@dataclass
class Attempt:
    """One attempt, in a thread of its own."""

    name: str
    work: Callable[[], Any]
    cancel: Callable[[], None] = lambda: None
    result: Any = None
    error: BaseException | None = None
    state: str = "new"
    """`new`, `running`, `frozen` or `ended`."""
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    yielded: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Crew:
    """Runs attempts, and steps in where the seed says so."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.faults = MOST_FAULTS
        self.quiet = False
        """Nothing goes wrong while this is set."""
        self.trace: list[str] = []
        self.zombies: list[Attempt] = []
        self.current: Attempt | None = None
        self.wrong: Exception | None = None
        """What did not hold: attempts turn exceptions into errors of their own, so it is kept."""
        self.points = 0
        self.slept_s = 0.0
        self.over = False
        self.stop: Callable[[], bool] = lambda: False
        self.cut: Callable[[], None] = lambda: None
        self.guest: Callable[[], None] = lambda: None
        self.people: Callable[[], None] = lambda: None
        self.impatient: Callable[[], None] = lambda: None
        """Somebody does not wait for a task that takes long, and goes back."""
        self.tick: Callable[[], None] = lambda: None
        """What the sites do by themselves."""
        self.watch: Callable[[], None] = lambda: None
        """Checks what must hold at every moment."""

    def note(self, text: str) -> None:
        """One line of the trace."""
        self.trace.append(text)

    def digest(self) -> str:
        """The same for the same schedule."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]

    # --- time ---

    def clock(self) -> float:
        """Virtual seconds."""
        return self.points * POINT_S + self.slept_s

    def wall(self) -> datetime:
        """The virtual wall clock."""
        return BEGIN + timedelta(seconds=self.clock())

    def sleep(self, seconds: float) -> None:
        """Time passes for the attempt, and something may happen meanwhile."""
        self.slept_s += seconds
        self.point("sleep")

    # --- attempts ---

    def attempt(self, name: str, work: Callable[[], Any], cancel: Callable[[], None]) -> Attempt:
        """Run one attempt until it ends or freezes. Raises what was found wrong meanwhile."""
        made = Attempt(name, work, cancel)
        threading.Thread(target=self._live, args=(made,), daemon=True).start()
        self._resume(made)
        self.demand()
        return made

    def thaw_all(self) -> None:
        """Every zombie goes on and comes to its end."""
        for zombie in list(self.zombies):
            self._thaw(zombie)
            self.demand()

    def demand(self) -> None:
        """Raise what was found wrong."""
        if self.wrong is not None:
            raise self.wrong

    def abandon(self) -> None:
        """End all threads: nothing is of interest any more."""
        self.over = True
        while self.zombies:
            self._resume(self.zombies.pop())

    def spend(self, chance: float) -> bool:
        """Whether something is to go wrong now that is no way of `point`."""
        if self.quiet or self.faults <= 0 or self.current is None or self.current in self.zombies:
            return False
        if self.rng.random() >= chance:
            return False
        self.faults -= 1
        return True

    def point(self, label: str, *, lost: bool = False, mutating: bool = False) -> None:
        """The outside world may step in here.

        Args:
            lost: a site is asked here, so it may be away, busy, or fail.
            mutating: something is about to be changed, or was.
        """
        me = self.current
        if self.over or (self.wrong is not None and me is not None):
            raise Died
        self._checked(partial(self._look, label))
        if me is None:
            return
        if self.stop() and me not in self.zombies:
            me.cancel()
        if self.quiet:
            return
        self.guest()
        self.people()
        if not self.spend(0.02 if mutating else 0.004):
            return
        self._step_in(me, label, lost, mutating)

    def _checked(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.wrong = error
            if self.current is None:
                raise
            raise Died from error

    def _look(self, label: str) -> None:
        self.points += 1
        self.tick()
        self.watch()
        if self.points > MOST_POINTS:
            raise Wrong(f"it goes round in circles, at {label}")

    def _step_in(self, me: Attempt, label: str, lost: bool, mutating: bool) -> None:
        ways = ["die", "cut", "freeze", "freeze"] + (["lost", "lost"] if lost else [])
        ways += ["busy", "failed"] if lost and mutating and label.endswith(" sent") else []
        ways += ["thaw"] if self.zombies else []
        way = self.rng.choice(ways)
        self.note(f"{way} at {label} of {me.name}")
        match way:
            case "die":
                raise Died
            case "cut":
                self._checked(self.cut)
                raise Died
            case "lost":
                raise SiteUnreachable(f"The wire was cut at {label}.", "It is tried again.")
            case "busy":
                raise SiteBusy(f"Another task runs at {label}.", "It is tried again.")
            case "failed":
                raise OperationFailed(f"The task of {label} failed.", "Look why, then retry.")
            case "thaw":
                self._thaw(self.rng.choice(self.zombies))
            case _:
                self._freeze(me)
        if self.wrong is not None:
            raise Died

    def _live(self, attempt: Attempt) -> None:
        attempt.go.acquire()
        try:
            attempt.result = attempt.work()
        except BaseException as error:
            attempt.error = error
        attempt.state = "ended"
        attempt.yielded.release()

    def _resume(self, attempt: Attempt) -> None:
        before, self.current = self.current, attempt
        attempt.state = "running"
        attempt.go.release()
        attempt.yielded.acquire()
        self.current = before

    def _freeze(self, me: Attempt) -> None:
        me.state = "frozen"
        self.zombies.append(me)
        me.yielded.release()
        me.go.acquire()
        if self.over:
            raise Died

    def _thaw(self, zombie: Attempt) -> None:
        if zombie is self.current:
            return
        self.note(f"thaw {zombie.name}")
        self._resume(zombie)
        self.zombies.remove(zombie)
        self.note(f"{zombie.name} ended: {type(zombie.error).__name__}")
