"""Attempts of activities as threads of which one runs at a time: every schedule is the seed's.

At each point where the outside world could step in (a call to a site, a write to the catalog, a
request to a disk) the seed decides what happens: nothing, or the attempt dies, its reply is lost,
the storage loses what was not flushed, the attempt freezes and goes on much later as a zombie, the
guest writes, or a person asks for something.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from failback.errors import SiteUnreachable

MOST_FAULTS = 6
"""In one run: enough to meet each other, few enough that every run ends."""


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
    disks: list[Any] = field(default_factory=list)
    """Its open connections, to be cut when the fence proves it dead."""


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
        self.stop: Callable[[], bool] = lambda: False
        self.cut: Callable[[], None] = lambda: None
        self.guest: Callable[[], None] = lambda: None
        self.people: Callable[[], None] = lambda: None
        self.watch: Callable[[], None] = lambda: None
        """Checks what must hold at every moment."""

    def note(self, text: str) -> None:
        """One line of the trace."""
        self.trace.append(text)

    def digest(self) -> str:
        """The same for the same schedule."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]

    def attempt(self, name: str, work: Callable[[], Any], cancel: Callable[[], None]) -> Attempt:
        """Run one attempt until it ends or freezes."""
        made = Attempt(name, work, cancel)
        thread = threading.Thread(target=self._live, args=(made,), daemon=True)
        thread.start()
        self._resume(made)
        return made

    def thaw_all(self) -> None:
        """Every zombie goes on and comes to its end."""
        for zombie in list(self.zombies):
            self._thaw(zombie)

    def point(self, label: str, *, lost: bool = False, mutating: bool = False) -> None:
        """The outside world may step in here.

        Args:
            lost: a reply or a request may be lost here: SiteUnreachable.
            mutating: something is about to be changed, or was.
        """
        self.watch()
        me = self.current
        if me is None:
            return
        if self.stop() and me not in self.zombies:
            me.cancel()
        if self.quiet:
            return
        self.guest()
        self.people()
        if self.faults <= 0 or me in self.zombies:
            return
        chance = 0.02 if mutating else 0.004
        if self.rng.random() >= chance:
            return
        self.faults -= 1
        ways = ["die", "cut", "freeze", "freeze"] + (["lost", "lost"] if lost else [])
        ways += ["thaw"] if self.zombies else []
        way = self.rng.choice(ways)
        self.note(f"{way} at {label} of {me.name}")
        match way:
            case "die":
                raise Died
            case "cut":
                self.cut()
                raise Died
            case "lost":
                raise SiteUnreachable(f"The wire was cut at {label}.", "It is tried again.")
            case "thaw":
                self._thaw(self.rng.choice(self.zombies))
            case _:
                self._freeze(me)

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

    def _thaw(self, zombie: Attempt) -> None:
        if zombie is self.current:
            return
        self.note(f"thaw {zombie.name}")
        self._resume(zombie)
        self.zombies.remove(zombie)
        self.note(f"{zombie.name} ended: {type(zombie.error).__name__}")
