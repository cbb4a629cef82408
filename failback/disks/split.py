"""One disk through two openings: what reads goes to one, what changes to the other."""

from __future__ import annotations

import time
from collections.abc import Callable

from failback.disks.blockio import Answer, BlockIO
from failback.disks.file import FileDisk

_TICK_S = 0.01


class SplitDisk:
    """Implements BlockIO over two openings of the same bytes.

    A read that was submitted after a write was answered sees it: both openings share one page
    cache, or the writer answers only when readers see it.
    """

    def __init__(self, reader: FileDisk, writer: BlockIO) -> None:
        if reader.capacity_bytes != writer.capacity_bytes:
            raise ValueError(
                f"{reader.name} has {reader.capacity_bytes} bytes and {writer.capacity_bytes}"
            )
        self._reader, self._writer = reader, writer
        self.name = writer.name
        self.capacity_bytes = reader.capacity_bytes
        self.max_request_bytes = min(reader.max_request_bytes, writer.max_request_bytes)
        self.maps_zeroes = reader.maps_zeroes

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        self._reader.submit_read(tag, offset, into)

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        self._reader.submit_map(tag, offset, length)

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        self._writer.submit_write(tag, offset, data)

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        self._writer.submit_zero(tag, offset, length)

    def submit_flush(self, tag: int) -> None:
        self._writer.submit_flush(tag)

    def poll(self, timeout_s: float) -> list[Answer]:
        deadline = time.monotonic() + timeout_s
        while True:
            answers = self._writer.poll(0) + self._reader.poll(0)
            left_s = deadline - time.monotonic()
            if answers or left_s <= 0:
                return answers
            # Whoever waits for several disks uses `interest` and `on_answer`, not this.
            answers = self._writer.poll(min(left_s, _TICK_S))
            if answers:
                return answers

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._reader.on_answer(wake)
        self._writer.on_answer(wake)

    def interest(self) -> tuple[int, int] | None:
        return self._writer.interest()

    def fileno(self) -> int:
        """The open file; only to read from."""
        return self._reader.fileno()

    def close(self) -> None:
        self._writer.close()
        self._reader.close()
