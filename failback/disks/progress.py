"""How far a transfer is, how fast, and how long it will take."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class CopyProgress:
    """Counters of one attempt, in bytes of the source disk."""

    total_bytes: int
    """All areas of the plan, whoever examined them."""
    examined_bytes: int = 0
    different_bytes: int = 0
    written_bytes: int = 0
    zeroed_bytes: int = 0
    resumed_bytes: int = 0
    """Finished by earlier attempts, so not examined again."""
    rate_bytes_s: float = 0.0
    """Examined bytes per second, over the last half minute."""
    eta_s: float | None = None
    """None while there is no rate to tell it from."""

    @property
    def remaining_bytes(self) -> int:
        return self.total_bytes - self.examined_bytes - self.resumed_bytes


class Rate:
    """Bytes per second over a moving window."""

    def __init__(self, now: float, window_s: float = 30.0) -> None:
        self._window_s = window_s
        self._points: deque[tuple[float, int]] = deque([(now, 0)])

    def at(self, now: float, count: int) -> float:
        """Tell the counter's value now; returns the rate over the window."""
        self._points.append((now, count))
        # One point older than the window stays, so that the window is full.
        while len(self._points) > 2 and self._points[1][0] <= now - self._window_s:
            self._points.popleft()
        start, first = self._points[0]
        return (count - first) / (now - start) if now > start else 0.0
