"""Moves frames over one TLS connection without ever waiting; implements Answering.

Whoever owns the link looks at it by `poll` from its own loop; nothing here has a thread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

from failback.disks.blockio import Answer
from failback.disks.remote import wire
from failback.disks.remote.wire import Kind
from failback.disks.tls import part
from failback.errors import DiskUnavailable, FailbackError

MAX_INBOX = 64
"""Frames received and not yet taken; until then the peer has to wait."""

SMALL_BYTES = 16 * 1024

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_TICK_S = 0.5


@dataclass(frozen=True)
class Frame:
    """One received frame."""

    kind: Kind
    number: int
    payload: memoryview


class Link:
    """One end of the connection between two movers; used by one thread.

    Args:
        sock: a connected TLS socket; owned from here on.
        name: what is at the other end, for messages.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.name = name
        self._sock = sock
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._outbox: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self._inbox: deque[Frame] = deque()
        self._parser = self._parse()
        self._wanted = next(self._parser)
        self._wake: Callable[[], None] = lambda: None
        self.failure: FailbackError | None = None
        """Why the connection was lost; None while it works."""
        self.moved_at = self._looked_at = self._rated_at = time.monotonic()
        """When bytes last moved, by our clock less the time in which nobody looked."""
        self._sent = 0
        self.send_rate: float | None = None
        """Bytes per second that the link takes while there is something to send; None: unknown."""

    # --- Answering ---

    def poll(self, timeout_s: float) -> list[Answer]:
        """Move what can be moved now; never has an answer of its own, see `take`."""
        now = time.monotonic()
        if now - self._looked_at > 2 * _TICK_S:
            self.moved_at += now - self._looked_at
        self._looked_at = now
        if self.failure is None:
            self._attempt(self._send)
        if self.failure is None:
            self._attempt(self._receive)
        if self._inbox or self.failure is not None:
            self._wake()
        elif timeout_s > 0:
            self._wait(timeout_s)
            return self.poll(0)
        return []

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def interest(self) -> tuple[int, int] | None:
        if self.failure is not None:
            return None
        receiving = select.POLLIN if len(self._inbox) < MAX_INBOX else 0
        return self._sock.fileno(), receiving | (select.POLLOUT if self._outbox else 0)

    # --- frames ---

    def send(self, kind: Kind, number: int, *parts: bytes | memoryview) -> None:
        """Queue a frame; its parts must not change until it has left."""
        length = sum(len(one) for one in parts)
        head = wire.HEAD.pack(length, kind, number)
        # A small frame in one piece: each piece is a TLS record and a system call of its own.
        pieces = (head, *parts) if length > SMALL_BYTES else (b"".join((head, *parts)),)
        self._outbox.extend(memoryview(one) for one in pieces)
        self.unsent_bytes += wire.HEAD.size + length
        if self.failure is None:
            self._attempt(self._send)

    def take_now(self) -> Frame | None:
        """The next frame; None if there is none now, or will be none any more."""
        return self._inbox.popleft() if self._inbox else None

    def take(self) -> Frame | None:
        """The next frame; None if there is none now. Raises what ended the connection, after all
        frames that came before its end."""
        frame = self.take_now()
        if frame is None and self.failure is not None:
            raise self.failure
        return frame

    def wait(self, deadline: float) -> Frame:
        """The next frame, at most until `deadline` (monotonic); DiskUnavailable."""
        while (frame := self.take()) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise wire.broken(self.name, "did not answer in time")
            self.poll(min(left_s, _TICK_S))
        return frame

    def fail(self, error: FailbackError) -> None:
        """End the connection; `take` raises the error from now on.

        A later error replaces an earlier one: it is what the last frames said before the end."""
        self.failure = error
        self._outbox.clear()
        with contextlib.suppress(OSError):  # already down, which is what is wanted
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self, linger_s: float = _TICK_S) -> None:
        """Send what is queued, if the peer takes it within the time, and say goodbye."""
        deadline = time.monotonic() + linger_s
        with contextlib.suppress(OSError):  # the peer was first
            while self.failure is None and self._outbox:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._send()
                self._wait(left_s)
            if self.failure is None and not self._outbox:
                part(self._sock)
                self._drain(deadline)
        self.failure = self.failure or DiskUnavailable(
            f"The connection to the mover of {self.name} was closed by us.", "Connect again."
        )
        self._outbox.clear()
        self._sock.close()

    def _drain(self, deadline: float) -> None:
        """Read until the peer ends too: bytes left unread would reset the connection, and the reset
        may overtake what we said last."""
        self._sock.shutdown(socket.SHUT_WR)
        poller = select.poll()
        poller.register(self._sock.fileno(), select.POLLIN)
        while (left_s := deadline - time.monotonic()) > 0 and poller.poll(left_s * 1000):
            if not self._sock.recv(65536):
                return

    # --- moving bytes ---

    def _wait(self, timeout_s: float) -> None:
        wanted = self.interest()
        if wanted is not None:
            poller = select.poll()
            poller.register(*wanted)
            poller.poll(timeout_s * 1000)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except FailbackError as error:
            self.fail(error)
        except OSError as error:
            self.fail(wire.broken(self.name, f"broke the connection ({error})"))

    def _send(self) -> None:
        while self._outbox:
            data = self._outbox[0]
            try:
                count = self._sock.send(data)
            except _WOULD_BLOCK:
                return
            except OSError:
                # What the peer said before it hung up tells more than that it did.
                self._receive()
                raise
            self.moved_at = time.monotonic()
            self.unsent_bytes -= count
            if count < len(data):
                self._outbox[0] = data[count:]
            else:
                self._outbox.popleft()
            self._rate(count)

    def _rate(self, count: int) -> None:
        """Known only from a link that was kept busy: what a buffer swallows at once tells nothing.

        The interval is begun anew whenever the queue ran empty."""
        self._sent += count
        busy_s = self.moved_at - self._rated_at
        if not self._outbox:
            self._sent, self._rated_at = 0, self.moved_at
        elif busy_s >= 0.25:
            now = self._sent / busy_s
            self.send_rate = now if self.send_rate is None else (self.send_rate + now) / 2
            self._sent, self._rated_at = 0, self.moved_at

    def _receive(self) -> None:
        while len(self._inbox) < MAX_INBOX:
            try:
                count = self._sock.recv_into(self._wanted)
            except _WOULD_BLOCK:
                return
            if count == 0:
                raise wire.broken(self.name, "closed the connection")
            self.moved_at = time.monotonic()
            left = self._wanted[count:]
            self._wanted = left if left else next(self._parser)

    def _parse(self) -> Generator[memoryview, None, None]:
        """Yields where the next bytes belong."""
        while True:
            head = bytearray(wire.HEAD.size)
            yield memoryview(head)
            length, kind, number = wire.parse_head(self.name, bytes(head))
            payload = memoryview(bytearray(length))
            if length:
                yield payload
            self._inbox.append(Frame(kind, number, payload))
