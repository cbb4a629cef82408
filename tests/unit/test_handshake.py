"""A handshake that fails leaves no socket open, whatever the other end did."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import ssl
import struct
import warnings
from collections.abc import Iterator

import pytest

from failback.handshake import SecureConnection, secured


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def context() -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def _reset(listener: socket.socket) -> None:
    accepted, _ = listener.accept()
    # Lingering for no time: closing sends a reset and no end of the stream.
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()


def test_a_reset_before_the_handshake_leaves_nothing_open(
    listener: socket.socket, context: ssl.SSLContext
) -> None:
    sock = socket.create_connection(listener.getsockname())
    _reset(listener)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(ConnectionResetError):
            secured(context, sock)
        gc.collect()
    assert sock.fileno() == -1
    assert [str(one.message) for one in said] == []


class _ResetOnTheWay(socket.socket):
    """Its other end resets it after ssl took the descriptor, before ssl looks."""

    listener: socket.socket

    def detach(self) -> int:
        _reset(self.listener)
        waiting = select.poll()
        waiting.register(self.fileno(), select.POLLRDHUP)
        assert waiting.poll(5000)
        return super().detach()


@pytest.mark.parametrize("error_is_taken", [False, True])
def test_a_reset_while_ssl_takes_the_socket_leaves_nothing_open(
    listener: socket.socket, context: ssl.SSLContext, error_is_taken: bool
) -> None:
    class Taken(_ResetOnTheWay):
        def detach(self) -> int:
            number = super().detach()
            if error_is_taken:
                # The kernel tells of a reset once; then the socket looks closed in good order.
                with socket.socket(fileno=os.dup(number)) as same:
                    assert same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
            return number

    sock = Taken()
    sock.listener = listener
    sock.connect(listener.getsockname())
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(ConnectionResetError):
            secured(context, sock)
        gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert [str(one.message) for one in said] == []


def test_no_tls_at_the_other_end_leaves_nothing_open(
    listener: socket.socket, context: ssl.SSLContext
) -> None:
    sock = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    with accepted:
        accepted.sendall(b"220 hello, this is not TLS\r\n")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with pytest.raises(ssl.SSLError):
                secured(context, sock)
            gc.collect()
    assert sock.fileno() == -1
    assert [str(one.message) for one in said] == []


def test_a_connection_that_failed_can_be_closed_and_says_why(
    listener: socket.socket, context: ssl.SSLContext
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    connection = SecureConnection("127.0.0.1", port, timeout=5, context=context)
    with pytest.raises(ConnectionRefusedError):
        connection.request("GET", "/")
    connection.close()
