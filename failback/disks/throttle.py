"""A token bucket for the bytes that are read from source disks, shared by all disks of a worker."""

from __future__ import annotations

import threading
from typing import Protocol

from failback.disks.blockio import Check, Clock, Sleep


class Pace(Protocol):
    """What a copy asks before it reads."""

    def try_take(self, count: int) -> float:
        """0 if `count` bytes may be read now, else after how many seconds to ask again."""
        ...


class Throttle:
    """Grants bytes at a rate that may change while transfers run. Thread-safe.

    Args:
        limit_bytes_s: bytes per second; None is no limit.
        burst_s: an idle bucket holds at most so many seconds of the rate.
    """

    def __init__(self, limit_bytes_s: float | None, *, clock: Clock, burst_s: float = 0.25) -> None:
        self._clock = clock
        self._burst_s = burst_s
        self._lock = threading.Lock()
        self._filled_at = clock()
        self._limit = _valid(limit_bytes_s)
        self._tokens = (self._limit or 0.0) * burst_s

    @property
    def limit_bytes_s(self) -> float | None:
        return self._limit

    def set_limit(self, limit_bytes_s: float | None) -> None:
        """Takes effect at once, also for those who wait; a debt stays, in bytes."""
        with self._lock:
            self._fill()
            self._limit = _valid(limit_bytes_s)

    def try_take(self, count: int) -> float:
        """0 if `count` bytes may be read now, else after how many seconds to ask again.

        A request larger than the bucket is granted from a positive balance and leaves a debt: the
        rate holds on average and no request is too large to be served."""
        with self._lock:
            self._fill()
            if self._limit is None:
                return 0.0
            if self._tokens > 0:
                self._tokens -= count
                return 0.0
            return -self._tokens / self._limit + 0.001

    def take(
        self, count: int, *, check: Check, sleep: Sleep, check_interval_s: float = 0.25
    ) -> None:
        """Wait for `count` bytes; calls `check` at every wait and lets its errors through."""
        while (wait_s := self.try_take(count)) > 0:
            check()
            sleep(min(wait_s, check_interval_s))

    def give_back(self, count: int) -> None:
        """Undo a `try_take` whose bytes were not read after all."""
        with self._lock:
            self._tokens += count

    def _fill(self) -> None:
        now = self._clock()
        elapsed_s, self._filled_at = max(0.0, now - self._filled_at), now
        if self._limit is None:
            self._tokens = 0.0
        else:
            brim = max(self._limit * self._burst_s, 1.0)
            self._tokens = min(brim, self._tokens + elapsed_s * self._limit)


class AllOf:
    """Several throttles that all must grant: the worker's own, and that of one run."""

    def __init__(self, *throttles: Throttle) -> None:
        self._throttles = throttles

    def try_take(self, count: int) -> float:
        """As `Throttle.try_take`; nothing is taken from any of them when one refuses."""
        for position, throttle in enumerate(self._throttles):
            wait_s = throttle.try_take(count)
            if wait_s > 0:
                for granted in self._throttles[:position]:
                    granted.give_back(count)
                return wait_s
        return 0.0


def _valid(limit_bytes_s: float | None) -> float | None:
    if limit_bytes_s is not None and limit_bytes_s <= 0:
        raise ValueError(f"a limit of {limit_bytes_s} bytes/s would never let anything through")
    return limit_bytes_s
