"""The port between the copier and a disk that is open somewhere: submit requests, poll answers.

Nothing here blocks except `poll`, so a single thread can drive two disks and still call its `check`
in time while a disk is slow, stalled or lost. `nbd.py` is the real implementation, `testing.py` the
one in memory.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from failback.disks.compare import Run
from failback.disks.plan import Extent


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of one request."""

    tag: int
    errno: int = 0
    """0 for success, else a Linux errno."""
    zeroes: tuple[Extent, ...] = ()
    """For a map request: what reads as zeroes for sure. May be incomplete, never too much."""
    different: tuple[Run, ...] = ()
    """For a comparison: what differs, counted from where it began."""


class Answering(Protocol):
    """Whatever answers requests."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def poll(self, timeout_s: float) -> list[Answer]:
        """Answers that have arrived; waits at most `timeout_s` for the first one."""
        ...

    def on_answer(self, wake: Callable[[], None]) -> None:
        """Call `wake`, from any thread, whenever `poll(0)` has something to say, unless it moves
        only while it is polled (see `interest`)."""
        ...

    def interest(self) -> tuple[int, int] | None:
        """(file descriptor, events of select.poll) that make it worthwhile to poll again; None if
        `on_answer` tells. Asked anew before each wait."""
        ...


class BlockIO(Answering, Protocol):
    """One connection to one disk. Used by one thread; offsets and lengths in bytes.

    A submitted buffer belongs to the disk until its answer has been polled. Requests may be
    answered, and take effect, in any order. A flush covers the writes whose answers arrived before
    it was submitted. Every method raises DiskUnavailable once the connection is lost.
    """

    @property
    def capacity_bytes(self) -> int: ...

    @property
    def max_request_bytes(self) -> int:
        """No read, write or zero may be longer."""
        ...

    @property
    def maps_zeroes(self) -> bool:
        """True if `submit_map` works."""
        ...

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None: ...

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None: ...

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        """Make the range read as zeroes, by the cheapest way the disk knows."""
        ...

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        """Ask which parts read as zeroes; an optimisation, the answer may say too little."""
        ...

    def submit_flush(self, tag: int) -> None: ...

    def poll(self, timeout_s: float) -> list[Answer]:
        """Answers that arrived; waits at most `timeout_s` for the first. Raises DiskUnavailable
        when the connection is lost and all earlier answers were taken."""
        ...

    def close(self) -> None:
        """Let go of the connection and of every buffer; harmless twice. Flushes nothing."""
        ...


class Waiter:
    """Waits for answers of several disks at once."""

    def __init__(self, *disks: Answering) -> None:
        self._disks = disks
        self._bell = _Bell()
        for disk in disks:
            disk.on_answer(self._bell.ring)

    def poll(self, timeout_s: float) -> list[tuple[Answering, Answer]]:
        """Answers of any disk; waits at most `timeout_s` for the first, also if none is due."""
        # Silenced before looking: an answer that arrives after the look rings again.
        self._bell.silence()
        answers = self._look()
        if not answers and timeout_s > 0:
            poller = select.poll()
            poller.register(self._bell.fd, select.POLLIN)
            for disk in self._disks:
                if (wanted := disk.interest()) is not None:
                    poller.register(*wanted)
            poller.poll(timeout_s * 1000)
            answers = self._look()
        return answers

    def _look(self) -> list[tuple[Answering, Answer]]:
        return [(disk, answer) for disk in self._disks for answer in disk.poll(0)]


class _Bell:
    """What `on_answer` rings, as a file descriptor that can be waited for beside sockets."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rung = False

    def ring(self) -> None:
        # The flag spares the call while nobody has heard the last one.
        if not self._rung:
            self._rung = True
            os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        if self._rung:
            with contextlib.suppress(BlockingIOError):  # it is being rung at this moment
                os.eventfd_read(self.fd)
            # Only now: a ring before this line is not written, and needs no writing, because
            # whoever rings has left the answer first and the caller looks for answers next.
            self._rung = False

    def __del__(self) -> None:
        os.close(self.fd)


Clock = Callable[[], float]
Sleep = Callable[[float], None]
Check = Callable[[], None]
"""Raises Stopped to stop at a checkpoint, LeaseLost to stop at once; must be cheap."""
