"""HTTP calls of the settings, and HTTP questions to a workload: one request, no redirects."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from failback.handshake import SecureConnection
from failback.hooks.command import BEAT_S, Called
from failback.hooks.output import Tail, cleaned

READ_BYTES = 1 << 20
"""Of an answer; what comes after it is not waited for."""


@dataclass(frozen=True)
class Request:
    """One HTTP request."""

    url: str
    method: str = "POST"
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    ca_file: Path | None = None
    insecure: bool = False
    """Do not check the server's certificate."""


class _Exchange:
    """A request under way in a thread of its own, which can be given up."""

    def __init__(self, request: Request, timeout_s: float) -> None:
        self._request, self._timeout_s = request, timeout_s
        self.status: int | None = None
        self.tail = Tail()
        self.error: Exception | None = None
        self._connection: http.client.HTTPConnection | None = None
        # Daemon: a name server that does not answer must not keep the worker from ending.
        self.thread = threading.Thread(target=self._run, name="http-call", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._exchange()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = error

    def _exchange(self) -> None:
        request, parts = self._request, urlsplit(self._request.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context(
                cafile=str(request.ca_file) if request.ca_file else None
            )
            if request.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = SecureConnection(
                host, port, timeout=self._timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        self._connection = connection
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(request.method, path, request.body, dict(request.headers or {}))
            answer = connection.getresponse()
            left = READ_BYTES
            while left > 0 and (data := answer.read(min(left, 65536))):
                self.tail.add(data)
                left -= len(data)
            if left > 0 and answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            self.status = answer.status
        finally:
            connection.close()

    def give_up(self) -> None:
        """Close it under the thread, which then ends with an error that nobody reads."""
        connection = self._connection
        stream = connection.sock if connection is not None else None
        if stream is not None:
            # Closing alone would not wake a thread that waits in it.
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


def exchange(
    request: Request,
    *,
    timeout_s: float,
    beat: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
    secrets: Collection[str] = (),
) -> tuple[int | None, str, str]:
    """(status, body, what went wrong); the status is None when there was no whole answer.

    `beat` is called about every second; whatever it raises gives the request up."""
    under_way, deadline = _Exchange(request, timeout_s), clock() + timeout_s
    try:
        while under_way.thread.is_alive() and (left := deadline - clock()) > 0:
            beat()
            under_way.thread.join(min(BEAT_S, left))
    finally:
        late = under_way.thread.is_alive()
        under_way.give_up()
    if late:
        return None, under_way.tail.text(secrets), f"there was no answer within {timeout_s:g} s"
    if under_way.error is not None:
        error = under_way.error
        why = cleaned(f"{type(error).__name__}: {error}", secrets)
        return None, "", f"there was no answer ({why[:300]})"
    return under_way.status, under_way.tail.text(secrets), ""


def call_url(
    request: Request,
    *,
    timeout_s: float,
    beat: Callable[[], None],
    secrets: Collection[str] = (),
) -> Called:
    """Success is an answer from 200 to 299: a redirect was not followed, so nothing was done."""
    status, body, wrong = exchange(request, timeout_s=timeout_s, beat=beat, secrets=secrets)
    if status is None:
        return Called(False, body, wrong)
    evidence = f"HTTP status {status}"
    if 300 <= status < 400:
        evidence += ": it redirects, which is not followed; give its final URL"
    return Called(200 <= status < 300, body, evidence)
