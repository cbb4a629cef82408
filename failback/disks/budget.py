"""The buffers of all copies of a worker: one limit for memory and for what is under way at once."""

from __future__ import annotations

import threading

from failback.disks.plan import BLOCK_BYTES

MAX_SLOTS = 64
"""Of one copy: more requests than that bring nothing, however small they are."""


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
        self._used_bytes = self._idle_bytes = 0
        self._lock = threading.Lock()
        self._idle: dict[int, list[Slot]] = {}

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
                self._idle.setdefault(slot.size, []).append(slot)
                self._idle_bytes += 2 * slot.size
                self._shed()

    def _grant(self, size: int) -> Slot:
        idle = self._idle.get(size)
        self._used_bytes += 2 * size
        if idle:
            self._idle_bytes -= 2 * size
            # The last one returned is the one that is still in the processor's caches.
            return idle.pop()
        self._shed()
        return Slot(size)

    def _shed(self) -> None:
        """Idle slots are memory too."""
        while self._idle_bytes and self._used_bytes + self._idle_bytes > self._limit_bytes:
            size, slots = next((size, slots) for size, slots in self._idle.items() if slots)
            slots.pop(0)
            self._idle_bytes -= 2 * size


class Buffers:
    """The slots of one copy: its own and what the budget grants beyond, up to the window.

    Args:
        budget: None limits by the window alone.
        size: bytes of each side of the largest slot.
        window: slots of that size taken at once; of smaller ones there may be more.
    """

    def __init__(self, budget: Budget | None, size: int, window: int) -> None:
        self._budget = budget or Budget(2 * size * window)
        self._size, self._limit_bytes = size, window * size
        self._own = self._budget.take_own(size)
        self._own_is_free = True
        self._taken: list[Slot] = []
        self._taken_bytes = 0

    def take(self, length: int) -> Slot | None:
        """A slot for so many bytes of each side.

        None if the window is full or the budget spent: the answer to an open request helps."""
        # Few sizes, so that slots fit again.
        size = min(self._size, max(BLOCK_BYTES, 1 << (length - 1).bit_length()))
        if self._taken_bytes + size > self._limit_bytes or len(self._taken) >= MAX_SLOTS:
            return None
        slot = None
        if self._own_is_free and (size == self._size or not self._taken):
            slot, self._own_is_free = self._own, False
        else:
            slot = self._budget.take(size)
        if slot is not None:
            self._taken.append(slot)
            self._taken_bytes += slot.size
        return slot

    def give(self, slot: Slot) -> None:
        """Return a slot that nobody reads or writes any more."""
        self._taken.remove(slot)
        self._taken_bytes -= slot.size
        if slot is self._own:
            self._own_is_free = True
        else:
            self._budget.give(slot)

    def close(self, *, reuse: bool) -> None:
        """Return all; `reuse` is False while requests are open, which may still touch them."""
        if self._own_is_free:
            self._taken.append(self._own)
        for slot in self._taken:
            self._budget.give(slot, reuse=reuse)
