"""A local file or block device as a BlockIO, without a server between.

What the page cache holds is read by the caller itself, in a call that never waits for the disk;
a few threads do whatever may wait. One copy on the way, and no hand-over from thread to thread
where there is nothing to wait for. A mover only reads through it; what writes through it is a
process that can be killed (writer.py), or the stand-alone command, whose lock is free only when the
last thread that might still write has ended.
"""

from __future__ import annotations

import ctypes
import errno
import os
import queue
import stat
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from failback.disks.blockio import Answer
from failback.disks.faults import Op
from failback.disks.plan import Extent
from failback.errors import DiskReadOnly, DiskUnavailable

MAX_REQUEST_BYTES = 32 * 1024 * 1024
WORKERS = 4
"""Enough to keep a disk or a mounted datastore busy; more only wait for the two cores."""

MAX_HOLES = 65536
"""Holes told in one answer; a map may say too little."""

CLOSE_S = 5.0
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV})
_ZEROES = memoryview(bytes(1024 * 1024))

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class _Request:
    __slots__ = ("length", "offset", "op", "tag", "view")

    def __init__(
        self, tag: int, op: Op, offset: int, length: int, view: memoryview | None = None
    ) -> None:
        self.tag, self.op, self.offset, self.length, self.view = tag, op, offset, length, view


class FileDisk:
    """An open file or block device; implements BlockIO.

    Args:
        name: what the disk is called in messages.
        writable: False never changes a byte. A block device in use by the host is refused.
        release: called once, when no thread can touch the file any more: `close` does not wait
            for a thread inside a hanging storage call, but what excludes others must.

    Raises DiskUnavailable, DiskReadOnly.
    """

    def __init__(
        self,
        path: Path,
        name: str = "",
        *,
        writable: bool,
        workers: int = WORKERS,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name or str(path)
        self.max_request_bytes = MAX_REQUEST_BYTES
        self.maps_zeroes = True
        self._fd = _open(path, self.name, writable=writable)
        try:
            self.capacity_bytes, self._growing = _measure(self._fd, self.name)
        except BaseException:
            os.close(self._fd)
            raise
        self._writable = writable
        self._release = release
        self._zero_modes = [PUNCH_HOLE, ZERO_RANGE]
        self._reads: deque[_Request] = deque()
        """To be tried without waiting, when the caller polls."""
        self._nowait = True
        self._inbox: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._wake: Callable[[], None] = lambda: None
        self._failure: DiskUnavailable | None = None
        self._closing = False
        self._lock = threading.Lock()
        self._alive = workers
        self._threads = [
            threading.Thread(target=self._work, name=f"file {self.name}", daemon=True)
            for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    # --- BlockIO ---

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        self._submit(_Request(tag, Op.READ, offset, into.nbytes, into))

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        self._submit(_Request(tag, Op.WRITE, offset, data.nbytes, data))

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        self._submit(_Request(tag, Op.ZERO, offset, length))

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        self._submit(_Request(tag, Op.MAP, offset, length))

    def submit_flush(self, tag: int) -> None:
        self._submit(_Request(tag, Op.FLUSH, 0, 0))

    def poll(self, timeout_s: float) -> list[Answer]:
        answers = self._read_cached()
        if answers:
            return answers
        try:
            answer = self._answers.get(timeout=timeout_s) if timeout_s > 0 else None
            while True:
                if answer is not None:
                    answers.append(answer)
                answer = self._answers.get_nowait()
        except queue.Empty:
            pass
        if not answers and self._failure is not None:
            raise self._failure
        return answers

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        wake()

    def interest(self) -> None:
        """`on_answer` tells."""

    def fileno(self) -> int:
        """The open file; only to read from, and not after `close`."""
        return self._fd

    def close(self) -> None:
        """Let go of the file; what was not begun is dropped, what hangs ends without us."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._failure = self._failure or _gone(self.name, "was closed by us")
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads:
            thread.join(CLOSE_S / len(self._threads))

    @property
    def failure(self) -> DiskUnavailable | None:
        """Why the disk can no longer be used; None while it can."""
        return self._failure

    # --- submitting ---

    def _submit(self, request: _Request) -> None:
        limit = self.capacity_bytes if request.op is Op.MAP else MAX_REQUEST_BYTES
        if request.op is not Op.FLUSH and (
            not 0 < request.length <= limit
            or not 0 <= request.offset <= self.capacity_bytes - request.length
        ):
            raise ValueError(
                f"{request.op} of {request.length} bytes at {request.offset} does not fit"
                f" {self.name}"
            )
        if request.op.changes and not self._writable:
            raise ValueError(f"{self.name} was opened for reading only")
        if self._failure is not None:
            raise self._failure
        if request.op is Op.READ and self._nowait:
            self._reads.append(request)
        else:
            self._inbox.put(request)

    def _read_cached(self) -> list[Answer]:
        """The first read that needs no disk, done; those before it are left to the threads."""
        while self._reads and self._failure is None:
            request = self._reads.popleft()
            try:
                if self._cached(request):
                    return [Answer(request.tag)]
            except BlockingIOError:
                pass  # not in the page cache
            except OSError as error:
                # A file system that cannot say; any other trouble the threads will meet again.
                self._nowait = self._nowait and error.errno not in _CANNOT
            self._inbox.put(request)
        return []

    def _cached(self, request: _Request) -> bool:
        view = request.view
        if view is None:
            return False
        count = os.preadv(self._fd, [view], request.offset, os.RWF_NOWAIT)
        # The rest, if any, is for the threads; the tag stays.
        request.view, request.offset = view[count:], request.offset + count
        return count == view.nbytes

    # --- the threads ---

    def _work(self) -> None:
        try:
            while (request := self._inbox.get()) is not None:
                if self._failure is None:
                    self._answer(request)
        finally:
            with self._lock:
                self._alive -= 1
                last = self._alive == 0
            if last:
                os.close(self._fd)
                self._release()

    def _answer(self, request: _Request) -> None:
        zeroes: tuple[Extent, ...] = ()
        code = 0
        try:
            zeroes = self._perform(request)
        except OSError as error:
            code = error.errno or errno.EIO
        self._answers.put(None if self._failure else Answer(request.tag, code, zeroes))
        self._wake()

    def _perform(self, request: _Request) -> tuple[Extent, ...]:
        match request.op:
            case Op.READ if request.view is not None:
                _move(os.preadv, self._fd, request.view, request.offset)
            case Op.WRITE if request.view is not None:
                self._demand_size()
                _move(os.pwritev, self._fd, request.view, request.offset)
            case Op.ZERO:
                self._demand_size()
                self._zero(request.offset, request.length)
            case Op.FLUSH:
                self._demand_size()
                os.fdatasync(self._fd)
            case _:
                self._demand_size()
                return _holes(self._fd, request.offset, request.length)
        return ()

    def _demand_size(self) -> None:
        """A file that was cut off would grow again by a write, with a hole where data was."""
        if self._growing and os.fstat(self._fd).st_size != self.capacity_bytes:
            raise OSError(errno.EIO, "the file has another size than when it was opened")

    def _zero(self, offset: int, length: int) -> None:
        for mode in tuple(self._zero_modes):
            code = _allocate(self._fd, mode | KEEP_SIZE, offset, length)
            if code == 0:
                return
            # EINVAL is about this range only: a device zeroes whole sectors.
            if code in _CANNOT and mode in self._zero_modes:
                self._zero_modes = [other for other in self._zero_modes if other != mode]
            elif code not in _CANNOT and code != errno.EINVAL:
                raise OSError(code, os.strerror(code))
        for done in range(0, length, len(_ZEROES)):
            _move(os.pwritev, self._fd, _ZEROES[: length - done], offset + done)


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole in an open file; raises OSError where its file system has none."""
    code = _allocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
    if code:
        raise OSError(code, os.strerror(code))


def _open(path: Path, name: str, *, writable: bool) -> int:
    try:
        # Not blocking: a named pipe would wait for its other end.
        kind = os.stat(path).st_mode
        flags = os.O_RDWR if writable else os.O_RDONLY
        if stat.S_ISBLK(kind) and writable:
            flags |= os.O_EXCL  # refused while the host itself has it mounted
        if not (stat.S_ISBLK(kind) or stat.S_ISREG(kind)):
            raise _gone(name, "is neither a regular file nor a block device")
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and writable:
            raise DiskReadOnly(
                f"{name} cannot be opened for writing ({error.strerror}).",
                "Check that the data mover may write to the file and its datastore.",
            ) from error
        raise _gone(name, f"cannot be opened ({error.strerror})") from error


def _measure(fd: int, name: str) -> tuple[int, bool]:
    """(capacity in bytes, whether writing behind the end would make it larger)."""
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.lseek(fd, 0, os.SEEK_END), regular
    except OSError as error:
        raise _gone(name, f"cannot be measured ({error.strerror})") from error


def _move(
    call: Callable[[int, list[memoryview], int], int], fd: int, view: memoryview, offset: int
) -> None:
    while view:
        count = call(fd, [view], offset)
        if count == 0:
            raise OSError(errno.EIO, "the file is shorter than when it was opened")
        view, offset = view[count:], offset + count


def _allocate(fd: int, mode: int, offset: int, length: int) -> int:
    """0 or an errno."""
    while _fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            return code
    return 0


def _holes(fd: int, offset: int, length: int) -> tuple[Extent, ...]:
    """The file's holes in the range. Threads may share the descriptor: its position is not used."""
    end, at, found = offset + length, offset, list[Extent]()
    while at < end and len(found) < MAX_HOLES:
        try:
            data = min(os.lseek(fd, at, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = end  # nothing but holes up to the end of the file
        if data > at:
            found.append(Extent(at, data - at))
        if data == end:
            break
        at = os.lseek(fd, data, os.SEEK_HOLE)
    return tuple(found)


def _gone(name: str, what: str) -> DiskUnavailable:
    return DiskUnavailable(f"{name} {what}.", "Check the path; the next attempt opens it again.")
