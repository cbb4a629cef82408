"""The buffers of all copies of a worker: one limit for memory and for what is under way at once."""

from __future__ import annotations

import threading

from failback.disks.plan import BLOCK_BYTES


class Slot:
    """A buffer for each side of a disk, used again and again."""

    def __init__(self, size: int) -> None:
        self.source = memoryview(bytearray(size))
        self.target = memoryview(bytearray(size))

    @property
    def size(self) -> int:
        """Bytes of one side."""
        return self.source.nbytes


class Budget:
    """Slots that copies share. Thread-safe.

    A copy keeps one slot of its own from its beginning to its end, so that no disk waits for
    another; only what it takes beyond that is limited.

    Args:
        limit_bytes: buffers of both sides, of all copies together.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 2 * BLOCK_BYTES:
            raise ValueError(f"{limit_bytes} bytes hold no block of both sides")
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._lock = threading.Lock()
        self._idle: list[Slot] = []

    @property
    def used_bytes(self) -> int:
        """Bytes of the slots that are taken now."""
        return self._used_bytes

    def take_own(self, size: int) -> Slot:
        """A copy's first slot, of `size` bytes for each side, which is always granted."""
        with self._lock:
            return self._grant(size)

    def take(self, size: int) -> Slot | None:
        """One more slot; None if there is none now."""
        with self._lock:
            if self._used_bytes + 2 * size > self._limit_bytes:
                return None
            return self._grant(size)

    def give(self, slot: Slot, *, reuse: bool = True) -> None:
        """Return a slot; without `reuse` somebody may still read or write it."""
        with self._lock:
            self._used_bytes -= 2 * slot.size
            if reuse and self._used_bytes + 2 * slot.size <= self._limit_bytes:
                self._idle.append(slot)

    def _grant(self, size: int) -> Slot:
        # The last one returned is the one that is still in the processor's caches.
        slot = next((idle for idle in reversed(self._idle) if idle.size == size), None)
        if slot is not None:
            self._idle.remove(slot)
        else:
            # Idle ones of other sizes are memory too.
            self._idle.clear()
            slot = Slot(size)
        self._used_bytes += 2 * size
        return slot


class Buffers:
    """The slots of one copy: its own and what the budget grants beyond, up to the window.

    Args:
        budget: None limits by the window alone.
        size: bytes of each side of a slot.
        window: slots taken at once.
    """

    def __init__(self, budget: Budget | None, size: int, window: int) -> None:
        self._budget = budget or Budget(2 * size * window)
        self._window, self._size = window, size
        self._own = self._budget.take_own(size)
        self._free = [self._own]
        self._taken: list[Slot] = []

    def take(self) -> Slot | None:
        """None if the window is full or the budget spent: the answer to an open request helps."""
        if len(self._taken) >= self._window:
            return None
        slot = self._free.pop() if self._free else self._budget.take(self._size)
        if slot is not None:
            self._taken.append(slot)
        return slot

    def give(self, slot: Slot) -> None:
        """Return a slot that nobody reads or writes any more."""
        self._taken.remove(slot)
        if slot is self._own:
            self._free.append(slot)
        else:
            self._budget.give(slot)

    def close(self, *, reuse: bool) -> None:
        """Return all; `reuse` is False while requests are open, which may still touch them."""
        for slot in (*self._taken, *self._free):
            self._budget.give(slot, reuse=reuse)
