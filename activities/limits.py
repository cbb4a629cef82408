"""What holds for a transfer while it runs: bandwidth and hours of its run, room on datastores."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from temporalio import activity

from activities.edge import Attempt, now
from activities.room import RoomWatch
from failback.catalog.repository import Catalog
from failback.contracts.operations import DiskCall, Done, SetLimits, TransferProgress
from failback.contracts.policies import Limits, TransferWindow
from failback.contracts.words import Phase
from failback.disks.throttle import AllOf, Pace, Throttle
from failback.errors import WindowClosed

LOOK_S = 2.0
"""How old what a mover knows of its run's limits may be."""

ASK_AGAIN = timedelta(seconds=5)
"""An attempt that finds the window closed gives its slot to others and asks again so much later:
the window may have been changed."""

PATIENT_PHASES = frozenset({Phase.SYNCING, Phase.READY_TO_SWITCH})
"""Phases in which the replica serves; in all others every minute is downtime."""


@dataclass(frozen=True)
class LimitActivities:
    """Writes what movers look at."""

    catalog: Catalog

    def set_limits(self, argument: SetLimits, attempt: Attempt) -> Done:
        """Write the run's limits. Idempotent because they replace what was there, and an attempt
        that was scheduled before another one is refused by their lease."""
        attempt.beat()
        self.catalog.set_run_limits(argument.run.run_id, argument.limits)
        return Done(evidence=f"limits: {words_of(argument.limits)}")


def words_of(limits: Limits) -> str:
    """Limits as people read them."""
    rate, window = limits.bandwidth_bytes_per_s, limits.window
    said = "no limit of the run" if rate is None else f"{rate} bytes/s"
    return f"{said}, {f'from {window.begin} to {window.end} UTC' if window else 'at any time'}"


@dataclass
class RunThrottles:
    """One throttle for each run that this process moves disks of, shared by its disks."""

    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[str, tuple[Throttle, int]] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, run_id: str) -> Iterator[Throttle]:
        """The throttle of a run for as long as one of its disks is moved."""
        with self._lock:
            throttle, users = self._known.get(run_id) or (Throttle(None, clock=self.clock), 0)
            self._known[run_id] = (throttle, users + 1)
        try:
            yield throttle
        finally:
            with self._lock:
                _, users = self._known.pop(run_id)
                if users > 1:
                    self._known[run_id] = (throttle, users - 1)


class Conditions:
    """Under what conditions one transfer may go on. `check` is called from the copy's loop."""

    def __init__(
        self,
        catalog: Catalog,
        call: DiskCall,
        own: Throttle,
        worker: Throttle | None,
        room: RoomWatch | None,
        attempt: Attempt,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = now,
    ) -> None:
        self._catalog, self._call, self._own, self._room = catalog, call, own, room
        self._attempt, self._clock, self._wall = attempt, clock, wall
        self._worker = worker
        self._due = clock()

    @property
    def throttle(self) -> Pace:
        """The run's limit and the worker's."""
        return AllOf(self._own) if self._worker is None else AllOf(self._worker, self._own)

    def check(self) -> None:
        """Take over the run's limits when they are due.

        Raises WindowClosed outside the run's hours unless production waits for this transfer,
        NoRoomSoon when a datastore has less room than the reserve, CatalogUnavailable."""
        if self._room is not None:
            self._room.check()
        if self._clock() < self._due:
            return
        self._due = self._clock() + LOOK_S
        limits = self._catalog.run_limits(self._call.run.run_id) or Limits()
        rate = limits.bandwidth_bytes_per_s
        if rate != self._own.limit_bytes_s:
            self._own.set_limit(rate)
        if limits.window is not None and self._call.phase in PATIENT_PHASES:
            self._keep_hours(limits.window)

    def _keep_hours(self, window: TransferWindow) -> None:
        wait = window.opens_in(self._wall())
        if not wait:
            return
        seen = self._attempt.details
        if isinstance(seen, TransferProgress):
            # What people see until another attempt begins.
            self._attempt.details = seen.model_copy(
                update={"doing": "window", "rate_bytes_per_s": 0.0, "eta_s": None}
            )
            activity.heartbeat(self._attempt.details)
        error = WindowClosed(
            f"Disk {self._call.plan.address} waits: disks of this run are copied from "
            f"{window.begin} to {window.end} UTC.",
            "It goes on by itself; adjust changes the hours, switch_over does not wait for them.",
        )
        error.again_after = min(wait, ASK_AGAIN)
        raise error
