"""Reads and compares both sides of a local disk in one go, on all cores.

Reading a file and comparing memory both leave the interpreter lock alone, so a few threads that do
nothing else keep every core busy, and the caller hears only what differs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from failback.disks.blockio import Answer
from failback.disks.compare import differing

WORKERS = max(2, min(4, os.cpu_count() or 2))
"""One for each core: more of them only push each other's buffers out of the caches."""


@runtime_checkable
class LocalFile(Protocol):
    """A disk whose bytes can be read by a descriptor of this process, without asking anybody."""

    @property
    def name(self) -> str: ...

    def fileno(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Part:
    tag: int
    offset: int
    views: tuple[memoryview, memoryview]


class Together:
    """Two open files of which the same ranges are read; answers like a disk (see BlockIO).

    Both disks may be closed before this is.
    """

    def __init__(self, source: LocalFile, target: LocalFile, *, workers: int = WORKERS) -> None:
        self.name = f"{source.name} and {target.name}"
        self._inbox: queue.SimpleQueue[_Part | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._wake: Callable[[], None] = lambda: None
        # Own descriptors: a number that was closed may soon mean another file.
        self._fds = os.dup(source.fileno()), os.dup(target.fileno())
        self._alive = workers
        self._lock = threading.Lock()
        self._closed = False
        for _ in range(workers):
            threading.Thread(target=self._work, name=f"compare {self.name}", daemon=True).start()
        self._workers = workers

    def submit(self, tag: int, offset: int, mine: memoryview, theirs: memoryview) -> None:
        """Fill both buffers from `offset` on; the answer tells what differs.

        An errno says only that one side could not be read; reading apart tells which."""
        self._inbox.put(_Part(tag, offset, (mine, theirs)))

    def poll(self, timeout_s: float) -> list[Answer]:
        """Answers, as of BlockIO."""
        answers: list[Answer] = []
        with contextlib.suppress(queue.Empty):
            if timeout_s > 0:
                answers.append(self._answers.get(timeout=timeout_s))
            while True:
                answers.append(self._answers.get_nowait())
        return answers

    def on_answer(self, wake: Callable[[], None]) -> None:
        """As of BlockIO."""
        self._wake = wake
        wake()

    def interest(self) -> None:
        """`on_answer` tells."""

    def close(self) -> None:
        """Drop what was not begun; what hangs in the storage ends without us. Harmless twice."""
        if not self._closed:
            self._closed = True
            for _ in range(self._workers):
                self._inbox.put(None)

    def _work(self) -> None:
        try:
            while (part := self._inbox.get()) is not None:
                if not self._closed:
                    self._answers.put(self._perform(part))
                    self._wake()
        finally:
            with self._lock:
                self._alive -= 1
                last = self._alive == 0
            if last:
                for fd in self._fds:
                    os.close(fd)

    def _perform(self, part: _Part) -> Answer:
        try:
            for fd, view in zip(self._fds, part.views, strict=True):
                _fill(fd, view, part.offset)
        except OSError as error:
            return Answer(part.tag, error.errno or errno.EIO)
        return Answer(part.tag, different=tuple(differing(*part.views)))


def _fill(fd: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.preadv(fd, [view], offset)
        if count == 0:
            raise OSError(errno.EIO, "the file is shorter than when it was opened")
        view, offset = view[count:], offset + count
