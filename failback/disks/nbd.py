"""NBD client: one full-duplex connection with pipelined requests, driven by its caller.

There is no thread: `poll` and the submits move whatever the socket takes and gives without waiting.
A thread per direction cost more than it brought, because every hand-over from one to another is a
wake-up and a fight for the interpreter lock; and eight disks would have had two dozen of them.
Submitting never blocks on a server that has stopped reading, and replies are taken while a large
write is on its way (a server with a bounded number of workers would otherwise wait for us while we
wait for it).
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable

from failback.disks import nbd_wire as wire
from failback.disks.blockio import Answer, Check
from failback.disks.faults import Op
from failback.disks.nbd_handshake import Handshake
from failback.disks.nbd_replies import Pending, ReplyReader
from failback.disks.tls import TlsClient, part
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

_GATHER = 16
"""Parts sent by one call: a write is two of them, and each call wakes the server."""

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class NbdDisk:
    """An open export; implements BlockIO.

    Args:
        sock: connected stream socket (unix, TCP or TLS over one); owned from here on.
        name: what the disk is called in messages.
        writable: False never sends a write; True raises DiskReadOnly if the export is read-only.
        connect_timeout_s: for the whole handshake.
        io_timeout_s: how long a connection with open requests may move no byte at all, while
            somebody looks.
        tls: demand TLS by STARTTLS, whatever the server would rather do.
        check: called while the handshake waits; what it raises ends it.
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
        tls: TlsClient | None = None,
        check: Check | None = None,
    ) -> None:
        self.name = name
        self._sock = sock
        self._writable = writable
        self._io_timeout_s = io_timeout_s
        handshake = Handshake(sock, name, connect_timeout_s, tls, check)
        try:
            self._export = handshake.negotiate(export_name.encode())
            self._sock = handshake.sock
            if writable:
                self._demand_writable()
        except BaseException:
            handshake.sock.close()
            raise
        self.capacity_bytes = self._export.capacity_bytes
        self.max_request_bytes = self._export.max_request_bytes
        self.maps_zeroes = self._export.allocation_id is not None
        self._zeroing = bool(self._export.flags & wire.FLAG_SEND_WRITE_ZEROES)
        self._zeroes = memoryview(b"")
        self._open: dict[int, Pending] = {}
        self._next_handle = secrets.randbits(48)
        self._outbox: deque[tuple[memoryview, Pending | None]] = deque()
        """What is still to be sent; with the last part of a request, the request."""
        self._answers: list[Answer] = []
        self._failure: DiskError | None = None
        self._closed = False
        self._replies = ReplyReader(name, self._export, self._open.get, self._finish).run()
        self._wanted = next(self._replies)
        """Where the next bytes of the server go."""
        self._moved_at = self._looked_at = time.monotonic()
        _tune(self._sock)

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
        deadline = time.monotonic() + timeout_s
        while True:
            self._pump()
            if self._answers:
                answers, self._answers = self._answers, []
                return answers
            if self._failure is not None:
                raise self._failure
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return []
            poller = select.poll()
            poller.register(*self.interest())
            poller.poll(min(left_s, _TICK_S) * 1000)

    def interest(self) -> tuple[int, int]:
        return self._sock.fileno(), select.POLLIN | (select.POLLOUT if self._outbox else 0)

    def on_answer(self, wake: Callable[[], None]) -> None:
        """Nothing happens between two polls; whoever waits meanwhile uses `interest`."""

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._failure is None:
            self._say_goodbye()
        self._failure = self._failure or self._broken("was closed by us")
        self._sock.close()
        self._open.clear()
        self._outbox.clear()

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
        if self._failure is not None:
            raise self._failure
        if not self._open:
            self._moved_at = time.monotonic()
        self._next_handle += 1
        self._put(self._next_handle, request)
        self._attempt(self._send)

    def _put(self, handle: int, request: Pending) -> None:
        self._open[handle] = request
        header = wire.REQUEST.pack(
            wire.REQUEST_MAGIC, 0, _COMMANDS[request.op], handle, request.offset, request.length
        )
        if request.op is Op.WRITE and request.view is not None:
            self._outbox.append((memoryview(header), None))
            self._outbox.append((request.view, request))
        else:
            self._outbox.append((memoryview(header), request))

    def _write_instead(self, request: Pending) -> None:
        if len(self._zeroes) < request.length:
            self._zeroes = memoryview(bytes(request.length))
        request.view = self._zeroes[: request.length]
        request.op = Op.WRITE

    # --- moving bytes ---

    def _pump(self) -> None:
        """Send and receive what is possible now; at most until there is an answer."""
        now = time.monotonic()
        if now - self._looked_at > 2 * _TICK_S:
            # Nobody looked meanwhile, so nothing could move: our pause is not the server's.
            self._moved_at += now - self._looked_at
        self._looked_at = now
        if self._failure is None:
            self._attempt(self._send)
        if self._failure is None:
            self._attempt(self._receive)
        if self._failure is None and not self._answers and self._open:
            self._attempt(self._check_moving)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DiskError as error:
            self._fail(error)
        except OSError as error:
            self._fail(self._broken(f"broke the connection ({error})"))

    def _fail(self, error: DiskError) -> None:
        if error.evidence.get("offset") is None:
            # A flush has no place on the disk.
            places = (one.offset for one in self._open.values() if one.op is not Op.FLUSH)
            error.evidence["offset"] = min(places, default=None)
        self._failure = error
        self._outbox.clear()
        with contextlib.suppress(OSError):  # already down, which is what is wanted
            self._sock.shutdown(socket.SHUT_RDWR)

    def _send(self) -> None:
        while self._outbox:
            try:
                count = self._send_some()
            except _WOULD_BLOCK:
                return
            except OSError:
                # What the server said before it hung up tells more than that it did.
                self._receive()
                raise
            self._moved_at = time.monotonic()
            while count:
                data, request = self._outbox.popleft()
                if count < len(data):
                    self._outbox.appendleft((data[count:], request))
                    break
                count -= len(data)
                if request is not None:
                    request.sent = True

    def _send_some(self) -> int:
        if isinstance(self._sock, ssl.SSLSocket):  # which cannot gather
            return self._sock.send(self._outbox[0][0])
        return self._sock.sendmsg([data for data, _ in itertools.islice(self._outbox, _GATHER)])

    def _receive(self) -> None:
        while not self._answers:
            try:
                count = self._sock.recv_into(self._wanted)
            except _WOULD_BLOCK:
                return
            if count == 0:
                raise self._broken("closed the connection")
            self._moved_at = time.monotonic()
            left = self._wanted[count:]
            self._wanted = left if left else next(self._replies)

    def _check_moving(self) -> None:
        if time.monotonic() - self._moved_at > self._io_timeout_s:
            raise self._broken(f"moved no byte for {self._io_timeout_s:g} s")

    def _finish(self, handle: int, request: Pending) -> None:
        # A reply before the request has left: the caller would reuse the buffer while it is still
        # being sent.
        if not request.sent:
            raise self._broken(f"answered a {request.op} before it was sent", request)
        del self._open[handle]
        if request.op is Op.ZERO and request.error in _UNSUPPORTED:
            self._zeroing = False
            self._write_instead(request)
            request.error, request.sent = 0, False
            self._put(handle, request)
            self._send()
            return
        self._answers.append(Answer(request.tag, request.error, request.zeroes))

    def _say_goodbye(self) -> None:
        """Let the server know, if it takes what is still to be sent within a moment."""
        goodbye = wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, wire.CMD_DISC, 0, 0, 0)
        self._outbox.append((memoryview(goodbye), None))
        deadline = time.monotonic() + _TICK_S
        with contextlib.suppress(OSError, DiskError):  # the server was first
            self._send()
            while self._outbox and (left_s := deadline - time.monotonic()) > 0:
                poller = select.poll()
                poller.register(self._sock.fileno(), select.POLLOUT)
                poller.poll(left_s * 1000)
                self._send()
            if not self._outbox:
                part(self._sock)

    def _broken(self, what: str, request: Pending | None = None) -> DiskUnavailable:
        return wire.broken(self.name, what, request.offset if request else None)


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
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
        place = where if isinstance(where, str) else "{}:{}".format(*where)
        raise DiskUnavailable(
            f"{name} cannot be reached at {place} ({error.strerror or error}).",
            "Check that its server runs and that nothing lies between.",
        ) from error
