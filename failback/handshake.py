"""A TLS handshake that leaves no socket open when it fails."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
import threading
from typing import Any

_made = threading.local()


class _Remembered(ssl.SSLSocket):
    """Known to `secured` from the moment that it exists."""

    def __new__(cls, *args: Any, **options: Any) -> _Remembered:
        made = super().__new__(cls, *args, **options)
        _made.sock = made
        return made


def secured(context: ssl.SSLContext, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
    """TLS over a connected socket; nothing stays open when that fails.

    `SSLContext.wrap_socket` takes the file descriptor out of the plain socket first. When the other
    end resets the connection just then, it forgets what it has made, or returns it without a
    handshake (https://github.com/python/cpython/blob/3.11/Lib/ssl.py, `SSLSocket._create`).

    Args:
        options: as for `wrap_socket`.

    Raises OSError (also as ssl.SSLError)."""
    _made.sock = None
    context.sslsocket_class = _Remembered
    try:
        private = context.wrap_socket(sock, **options)
        if private.version() is None:
            code = errno.ECONNRESET
            raise ConnectionResetError(code, os.strerror(code))
        return private
    except BaseException:
        for one in (_made.sock, sock):
            if one is not None:
                one.close()
        raise
    finally:
        _made.sock = None


class SecureConnection(http.client.HTTPSConnection):
    """HTTPS whose failed handshakes leave nothing open."""

    def __init__(self, host: str, port: int | None, *, timeout: float, context: ssl.SSLContext):
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        plain, self.sock = self.sock, None
        self.sock = secured(self._tls, plain, server_hostname=self.host)
