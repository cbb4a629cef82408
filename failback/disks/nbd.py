"""NBD client: one full-duplex connection with pipelined requests.

The only module with threads. One thread sends, so that submitting never blocks on a server that has
stopped reading; one receives, so that replies drain while large writes are on their way (a server
with a bounded number of workers would otherwise wait for us while we wait for it).
The socket stays blocking, with kernel timeouts: only then does MSG_WAITALL fill a buffer in one
call.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable

from failback.disks import nbd_wire as wire
from failback.disks.blockio import Answer
from failback.disks.faults import Op
from failback.disks.nbd_handshake import Handshake
from failback.disks.nbd_replies import Pending, ReplyReader
from failback.errors import DiskError, DiskReadOnly, DiskUnavailable

_COMMANDS = {
    Op.READ: wire.CMD_READ,
    Op.WRITE: wire.CMD_WRITE,
    Op.ZERO: wire.CMD_WRITE_ZEROES,
    Op.MAP: wire.CMD_BLOCK_STATUS,
    Op.FLUSH: wire.CMD_FLUSH,
}
_TICK_S = 0.5
_UNSUPPORTED = frozenset({22, 95})
"""EINVAL and EOPNOTSUPP: how servers say that they know no write-zeroes after all."""


class NbdDisk:
    """An open export; implements BlockIO.

    Args:
        sock: connected stream socket (unix or TCP); owned from here on.
        name: what the disk is called in messages.
        writable: False never sends a write; True raises DiskReadOnly if the export is read-only.
        connect_timeout_s: for the whole handshake.
        io_timeout_s: how long a connection with open requests may move no byte at all.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        *,
        writable: bool,
        export_name: str = "",
        connect_timeout_s: float = 10.0,
        io_timeout_s: float = 120.0,
    ) -> None:
        self.name = name
        self._sock = sock
        self._writable = writable
        self._io_timeout_s = io_timeout_s
        try:
            self._export = Handshake(sock, name, connect_timeout_s).negotiate(export_name.encode())
            if writable:
                self._demand_writable()
        except BaseException:
            sock.close()
            raise
        self.capacity_bytes = self._export.capacity_bytes
        self.max_request_bytes = self._export.max_request_bytes
        self.maps_zeroes = self._export.allocation_id is not None
        self._zeroing = bool(self._export.flags & wire.FLAG_SEND_WRITE_ZEROES)
        self._zeroes = memoryview(b"")
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._open: dict[int, Pending] = {}
        self._next_handle = secrets.randbits(48)
        self._outbox: queue.SimpleQueue[tuple[int, Pending] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._wake: Callable[[], None] = lambda: None
        self._failure: DiskError | None = None
        self._closing = False
        self._replies = ReplyReader(name, self._export, self._fill, self._find)
        self._moved_at = time.monotonic()
        _tune(sock)
        self._threads = [
            threading.Thread(target=self._guard, args=(loop,), name=f"nbd {name}", daemon=True)
            for loop in (self._send_loop, self._receive_loop)
        ]
        for thread in self._threads:
            thread.start()

    # --- BlockIO ---

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        self._submit(Pending(tag, Op.READ, offset, into.nbytes, into))

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        self._submit(Pending(tag, Op.WRITE, offset, data.nbytes, data))

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        request = Pending(tag, Op.ZERO, offset, length)
        if not self._zeroing:
            self._check_range(request)
            self._write_instead(request)
        self._submit(request)

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        if not self.maps_zeroes:
            raise ValueError(f"{self.name} offers no map of zeroes")
        self._submit(Pending(tag, Op.MAP, offset, length))

    def submit_flush(self, tag: int) -> None:
        self._submit(Pending(tag, Op.FLUSH, 0, 0))

    def poll(self, timeout_s: float) -> list[Answer]:
        answers: list[Answer] = []
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

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._failure is None:
            self._outbox.put((0, Pending(0, Op.FLUSH, 0, 0)))
        self._outbox.put(None)
        self._threads[0].join(_TICK_S)
        with contextlib.suppress(OSError):  # the server was first
            self._sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._sock.close()
        with self._lock:
            self._open.clear()
            self._failure = self._failure or self._broken("was closed by us")

    @property
    def failure(self) -> DiskError | None:
        """Why the connection was lost; None while it works."""
        return self._failure

    # --- submitting ---

    def _demand_writable(self) -> None:
        if self._export.flags & wire.FLAG_READ_ONLY:
            raise DiskReadOnly(
                f"{self.name} is exported read-only.",
                "Check that the data mover may write to the file and its datastore.",
            )
        if not self._export.flags & wire.FLAG_SEND_FLUSH:
            raise wire.broken(self.name, "offers no flush, so nothing written would be durable")

    def _check_range(self, request: Pending) -> None:
        if request.op is Op.FLUSH:
            return
        limit = self.capacity_bytes if request.op is Op.MAP else self.max_request_bytes
        block = self._export.min_block_bytes
        if (
            not 0 < request.length <= limit
            or not 0 <= request.offset <= self.capacity_bytes - request.length
            or request.offset % block
            or request.length % block
        ):
            raise ValueError(
                f"{request.op} of {request.length} bytes at {request.offset} does not fit"
                f" {self.name}"
            )

    def _submit(self, request: Pending) -> None:
        self._check_range(request)
        if request.op.changes and not self._writable:
            raise ValueError(f"{self.name} was opened for reading only")
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self._open:
                self._moved_at = time.monotonic()
            self._next_handle += 1
            handle = self._next_handle
            self._open[handle] = request
        self._outbox.put((handle, request))

    def _write_instead(self, request: Pending) -> None:
        if len(self._zeroes) < request.length:
            self._zeroes = memoryview(bytes(request.length))
        request.view = self._zeroes[: request.length]
        request.op = Op.WRITE

    # --- the two threads ---

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except DiskError as error:
            self._fail(error)
        except OSError as error:
            self._fail(self._broken(f"broke the connection ({error})"))
        # A defect in these loops must end the transfer with an error, not leave it waiting.
        except Exception as error:
            failure = self._broken(f"could not be understood ({error!r})")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, error: DiskError) -> None:
        if error.evidence.get("offset") is None:
            error.evidence["offset"] = self._lowest()
        with self._lock:
            if self._failure is None and not self._closing:
                self._failure = error
        with contextlib.suppress(OSError):  # already down, which is what is wanted
            self._sock.shutdown(socket.SHUT_RDWR)
        self._outbox.put(None)
        self._answers.put(None)
        self._wake()

    def _lowest(self) -> int | None:
        with self._lock:
            return min((request.offset for request in self._open.values()), default=None)

    def _send_loop(self) -> None:
        while (item := self._outbox.get()) is not None:
            handle, request = item
            command = wire.CMD_DISC if handle == 0 else _COMMANDS[request.op]
            header = wire.REQUEST.pack(
                wire.REQUEST_MAGIC, 0, command, handle, request.offset, request.length
            )
            with self._sending:
                self._send(memoryview(header))
                if request.op is Op.WRITE and request.view is not None:
                    self._send(request.view)
                request.sent = True

    def _send(self, data: memoryview) -> None:
        while data:
            try:
                data = data[self._sock.send(data) :]
                self._moved_at = time.monotonic()
            except BlockingIOError:
                self._check_moving()

    def _receive_loop(self) -> None:
        magic = bytearray(4)
        while True:
            # Between two replies the connection may be idle for ever, and may end after `close`.
            if not self._receive(memoryview(magic), between=True):
                return
            finished = self._replies.read(int.from_bytes(magic, "big"))
            if finished is not None:
                self._finish(*finished)

    def _receive(self, view: memoryview, *, between: bool = False) -> bool:
        """Fill the view. False only if the connection ended after `close`."""
        while view:
            try:
                count = self._sock.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                self._check_moving(always=not between)
                continue
            if count == 0:
                if self._closing:
                    return False
                raise self._broken("closed the connection")
            self._moved_at = time.monotonic()
            view = view[count:]
            between = False
        return True

    def _fill(self, view: memoryview) -> None:
        if not self._receive(view):
            raise self._broken("closed the connection")

    def _find(self, handle: int) -> Pending | None:
        with self._lock:
            return self._open.get(handle)

    def _check_moving(self, *, always: bool = False) -> None:
        if self._closing:
            raise self._broken("was closed")
        if (self._open or always) and time.monotonic() - self._moved_at > self._io_timeout_s:
            raise self._broken(f"moved no byte for {self._io_timeout_s:g} s")

    def _finish(self, handle: int, request: Pending) -> None:
        # A reply before the request has left: the caller would reuse the buffer while it is still
        # being sent. The sender may be between its last byte and setting the flag, so wait for it.
        if not request.sent:
            with self._sending:
                if not request.sent:
                    raise self._broken(f"answered a {request.op} before it was sent", request)
        with self._lock:
            del self._open[handle]
        if request.op is Op.ZERO and request.error in _UNSUPPORTED:
            self._zeroing = False
            self._write_instead(request)
            request.error, request.sent = 0, False
            with self._lock:
                self._open[handle] = request
            self._outbox.put((handle, request))
            return
        self._answers.put(Answer(request.tag, request.error, request.zeroes))
        self._wake()

    def _broken(self, what: str, request: Pending | None = None) -> DiskUnavailable:
        return wire.broken(self.name, what, request.offset if request else None)


def _tune(sock: socket.socket) -> None:
    sock.settimeout(None)
    tick = struct.pack("ll", int(_TICK_S), int(_TICK_S % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def connect(where: str | tuple[str, int], name: str, *, timeout_s: float = 10.0) -> socket.socket:
    """A connected socket: `where` is a unix socket's path or (host, port).

    Raises DiskUnavailable."""
    try:
        if isinstance(where, tuple):
            return socket.create_connection(where, timeout=timeout_s)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(where)
        except BaseException:
            sock.close()
            raise
        return sock
    except OSError as error:
        raise DiskUnavailable(
            f"The exporter of {name} cannot be reached at {where} ({error}).",
            "Check that it runs; the next attempt starts it again.",
        ) from error
