"""How much the transfers of a worker may ask of one ESXi host at once.

A host serves all its disks out of about 48 MiB of buffers, and refuses further requests when they
are spent. So the bytes under way to a host are counted across all disks that are open there, and
requests beyond the limit wait here. Each open disk has a reserve that nobody else can take, large
enough for its largest request: a disk that hangs stops itself, never another one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from failback.disks.blockio import Answer, BlockIO, Check, Clock, Sleep
from failback.errors import DiskUnavailable

MIB = 1024 * 1024
RESERVE_BYTES = 2 * MIB
"""Of each open disk; no request of the vddk plugin is larger."""

WAIT_S = 60.0
"""How long a disk waits for its turn to be opened: less than a step's patience, so that two pairs
that each wait for the other's host let go and begin again."""

POLL_S = 0.1
_TICK_S = 0.05


@dataclass(frozen=True)
class HostLimits:
    """Of one host; `in_flight_bytes` covers the reserves of all disks."""

    in_flight_bytes: int = 32 * MIB
    disks: int = 8

    def __post_init__(self) -> None:
        if self.disks < 1 or self.in_flight_bytes < self.disks * RESERVE_BYTES:
            raise ValueError(
                f"{self.in_flight_bytes} bytes are less than 2 MiB for each of {self.disks}"
            )


class HostBudget:
    """The bytes under way to one host and the disks that are open there. Thread-safe."""

    def __init__(self, limits: HostLimits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._common_bytes = limits.in_flight_bytes - limits.disks * RESERVE_BYTES
        self._shares: set[Share] = set()

    @property
    def disks(self) -> int:
        """How many disks are open."""
        return len(self._shares)

    @property
    def used_bytes(self) -> int:
        """Bytes under way now."""
        with self._lock:
            return sum(share.used_bytes for share in self._shares)

    def enter(self) -> Share | None:
        """The share of one more disk; None if the host has as many as it may."""
        with self._lock:
            if len(self._shares) >= self.limits.disks:
                return None
            share = Share(self)
            self._shares.add(share)
            return share

    def take(self, share: Share, count: int) -> bool:
        """Whether `count` more bytes, at most RESERVE_BYTES, may go under way for this disk."""
        with self._lock:
            more = _common(share.used_bytes + count) - _common(share.used_bytes)
            if more > self._common_bytes:
                share.waits = True
                return False
            self._common_bytes -= more
            share.used_bytes += count
            share.waits = False
            return True

    def give(self, share: Share, count: int) -> None:
        """Return bytes that are no longer under way."""
        with self._lock:
            back = _common(share.used_bytes) - _common(share.used_bytes - count)
            share.used_bytes -= count
            self._common_bytes += back
            waiting = [other for other in self._shares if other.waits] if back else []
        for other in waiting:
            other.wake()

    def leave(self, share: Share) -> None:
        """The disk is closed and whatever served it is dead; harmless twice."""
        if share in self._shares:
            self.give(share, share.used_bytes)
            with self._lock:
                self._shares.discard(share)


def _common(used_bytes: int) -> int:
    """Of a disk's bytes under way, those beyond its reserve."""
    return max(0, used_bytes - RESERVE_BYTES)


class Share:
    """One open disk's part of a host's budget; used by the disk's thread, woken from any."""

    def __init__(self, budget: HostBudget) -> None:
        self.used_bytes = 0
        self.waits = False
        self.wake: Callable[[], None] = lambda: None
        self._budget = budget

    def take(self, count: int) -> bool:
        """See HostBudget.take."""
        return self._budget.take(self, count)

    def give(self, count: int) -> None:
        """See HostBudget.give."""
        self._budget.give(self, count)


class HostBudgets:
    """The budgets of all hosts that a worker's transfers reach; the first to name one sets it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._budgets: dict[tuple[str, str], HostBudget] = {}

    def of(self, server: str, host: str, limits: HostLimits) -> HostBudget:
        """The budget of a host of a vCenter; an unknown host is the empty name."""
        with self._lock:
            return self._budgets.setdefault((server, host), HostBudget(limits))


@contextmanager
def place(
    budget: HostBudget,
    *,
    name: str,
    check: Check,
    timeout_s: float = WAIT_S,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Iterator[Share]:
    """A share of the host for one disk, as soon as fewer than the limit are open there.

    Raises DiskUnavailable after `timeout_s`, and what `check` raises."""
    deadline = clock() + timeout_s
    while (share := budget.enter()) is None:
        check()
        if clock() >= deadline:
            raise DiskUnavailable(
                f"{name} was not opened: {budget.limits.disks} disks are open on its host.",
                "The next attempt tries again; lower worker.movers or raise vddk.host_disks.",
            )
        sleep(POLL_S)
    try:
        yield share
    finally:
        budget.leave(share)


class LimitedDisk:
    """A disk whose reads and writes wait for their host; implements BlockIO.

    What waits is sent when an answer, of this disk or of another on the host, makes room.
    """

    def __init__(self, disk: BlockIO, share: Share) -> None:
        self._disk, self._share = disk, share
        self._waiting: deque[tuple[int, int, Callable[[], None]]] = deque()
        """Tag, length and how to submit, in the order of asking."""
        self._sent: dict[int, int] = {}
        self.name = disk.name
        self.capacity_bytes = disk.capacity_bytes
        self.max_request_bytes = min(disk.max_request_bytes, RESERVE_BYTES)
        self.maps_zeroes = disk.maps_zeroes

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        self._ask(tag, offset, into.nbytes, lambda: self._disk.submit_read(tag, offset, into))

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        self._ask(tag, offset, data.nbytes, lambda: self._disk.submit_write(tag, offset, data))

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        # The plugin writes zeroes as any other bytes.
        self._ask(tag, offset, length, lambda: self._disk.submit_zero(tag, offset, length))

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        self._disk.submit_map(tag, offset, length)

    def submit_flush(self, tag: int) -> None:
        # It covers answered writes, and those are not here any more.
        self._disk.submit_flush(tag)

    def poll(self, timeout_s: float) -> list[Answer]:
        deadline = time.monotonic() + timeout_s
        while True:
            self._send()
            left_s = max(0.0, deadline - time.monotonic())
            # Another disk's answer makes room without being heard here.
            answers = self._disk.poll(min(left_s, _TICK_S) if self._waiting else left_s)
            for answer in answers:
                if answer.tag in self._sent:
                    self._share.give(self._sent.pop(answer.tag))
            if answers:
                self._send()
            if answers or left_s <= 0:
                return answers

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._share.wake = wake
        self._disk.on_answer(wake)

    def interest(self) -> tuple[int, int] | None:
        return self._disk.interest()

    def close(self) -> None:
        """What is under way stays counted until the share is left: the host may still work."""
        self._waiting.clear()
        self._disk.close()

    def _ask(self, tag: int, offset: int, length: int, submit: Callable[[], None]) -> None:
        # Now, and not when its turn comes.
        if (
            not 0 < length <= self.max_request_bytes
            or not 0 <= offset <= self.capacity_bytes - length
        ):
            raise ValueError(f"{length} bytes at {offset} does not fit {self.name}")
        self._waiting.append((tag, length, submit))
        self._send()

    def _send(self) -> None:
        while self._waiting and self._share.take(self._waiting[0][1]):
            tag, length, submit = self._waiting.popleft()
            self._sent[tag] = length  # first: an answer may come at once
            try:
                submit()
            except BaseException:
                self._share.give(self._sent.pop(tag))
                raise
