"""A TLS handshake that leaves no socket open when it fails."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
from typing import Any


def secured(context: ssl.SSLContext, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
    """TLS over a connected socket; the plain socket is closed when that fails.

    `SSLContext.wrap_socket` takes the file descriptor out of the plain socket first, and forgets
    it when the other end has reset the connection by then
    (https://github.com/python/cpython/blob/3.11/Lib/ssl.py, `SSLSocket._create`). So we look
    while it is ours.

    Args:
        options: as for `wrap_socket`.

    Raises OSError (also as ssl.SSLError)."""
    try:
        try:
            sock.getpeername()
        except OSError as error:
            code = errno.ECONNRESET
            raise ConnectionResetError(code, os.strerror(code)) from error
        return context.wrap_socket(sock, **options)
    except BaseException:
        sock.close()
        raise


class SecureConnection(http.client.HTTPSConnection):
    """HTTPS whose failed handshakes leave nothing open."""

    def __init__(self, host: str, port: int | None, *, timeout: float, context: ssl.SSLContext):
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        plain, self.sock = self.sock, None
        self.sock = secured(self._tls, plain, server_hostname=self.host)
