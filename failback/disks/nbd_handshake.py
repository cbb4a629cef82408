"""The NBD handshake: from a fresh socket to an open export.

Fixed newstyle with NBD_OPT_GO; a server that does not know GO is asked with EXPORT_NAME.
"""

from __future__ import annotations

import socket
import ssl
import time

from failback.disks import nbd_wire as wire
from failback.disks.blockio import Check
from failback.disks.tls import TlsClient, refused
from failback.errors import CertificateUntrusted, DiskUnavailable

_TICK_S = 0.25
"""How often somebody who waits for an answer looks around."""

MAX_OPTION_REPLIES = 64
"""More answers to one option than any server has reason to send."""


class Handshake:
    """One negotiation, whole or not at all: a server that dawdles past the deadline has failed.

    Args:
        sock: connected stream socket; its timeout is changed and left to the caller to set anew.
        name: what the disk is called in messages.
        timeout_s: for the whole negotiation: a server sending a byte a second does not hold us.
        tls: turn the connection into a TLS one before anything is said about the disk; a server
            that does not is refused, so nobody between can talk us out of it.
        check: called again and again while a server that is slow to open its disk is waited for.
    """

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        timeout_s: float,
        tls: TlsClient | None = None,
        check: Check | None = None,
    ) -> None:
        self._sock = sock
        self._tls = tls
        self._check_meanwhile = check
        self._answered = tls is None
        """Whether the server said anything since TLS began."""
        self._name = name
        self._deadline = time.monotonic() + timeout_s

    @property
    def sock(self) -> socket.socket:
        """The connection; another object than the one given once TLS has begun."""
        return self._sock

    def negotiate(self, export_name: bytes = b"") -> wire.Export:
        """Raises DiskUnavailable when the server refuses, breaks the protocol or is too slow,
        CertificateUntrusted when one side does not accept the other's certificate."""
        fixed, no_zeroes = self._greet()
        if self._tls is not None:
            self._start_tls(self._tls, fixed)
        structured, allocation = False, None
        if fixed:
            structured = self._ask(wire.OPT_STRUCTURED_REPLY) is not None
            if structured:
                allocation = self._ask_allocation(export_name)
            replies = self._ask(wire.OPT_GO, wire.pack_go(export_name))
            if replies is not None:
                return self._export(replies, structured, allocation)
        self._send(wire.pack_option(wire.OPT_EXPORT_NAME, export_name))
        size, flags = wire.parse_export(self._name, self._receive(wire.EXPORT.size))
        if not no_zeroes:
            self._receive(124)
        return self._check(wire.Export(size, flags, structured, allocation))

    def _greet(self) -> tuple[bool, bool]:
        magic, style = wire.GREETING.unpack(self._receive(wire.GREETING.size))
        if magic != wire.NBDMAGIC:
            raise self._broken("is not an NBD server")
        if style != wire.IHAVEOPT:
            raise self._broken("speaks an outdated or unknown kind of NBD")
        offered = int.from_bytes(self._receive(2), "big")
        flags = offered & (wire.SERVER_FIXED_NEWSTYLE | wire.SERVER_NO_ZEROES)
        self._send(flags.to_bytes(4, "big"))
        return bool(flags & wire.SERVER_FIXED_NEWSTYLE), bool(flags & wire.SERVER_NO_ZEROES)

    def _start_tls(self, tls: TlsClient, fixed: bool) -> None:
        if not fixed or self._ask(wire.OPT_STARTTLS) is None:
            raise DiskUnavailable(
                f"The exporter of {self._name} does not speak TLS, which is required.",
                "Turn TLS on in the server; the connection was dropped before anything was sent.",
            )
        # What follows is read from the TLS layer: nothing said before it counts any more.
        self._sock = tls.wrap(self._sock, self._name, self._remaining())
        self._answered = False

    def _ask(self, option: int, packed: bytes | None = None) -> list[tuple[int, bytes]] | None:
        """The (type, payload) replies before the acknowledgement; None if not supported."""
        self._send(packed or wire.pack_option(option))
        replies: list[tuple[int, bytes]] = []
        while len(replies) < MAX_OPTION_REPLIES:
            magic, echoed, kind, length = wire.OPTION_REPLY.unpack(
                self._receive(wire.OPTION_REPLY.size)
            )
            if magic != wire.OPTION_REPLY_MAGIC or echoed != option:
                raise self._broken(f"answered option {option} with something else")
            if length > wire.MAX_OPTION_REPLY_BYTES:
                raise self._broken(f"sent an option reply of {length} bytes")
            data = self._receive(length)
            if kind == wire.REP_ACK:
                return replies
            if kind & wire.REP_ERROR:
                if kind == wire.REP_ERR_TLS_REQD:
                    raise DiskUnavailable(
                        f"The exporter of {self._name} demands TLS.",
                        "Name authority, certificate and key for this connection.",
                    )
                if option != wire.OPT_GO or kind == wire.REP_ERR_UNSUP:
                    return None
                said = data[:200].decode("utf-8", "replace")
                raise self._broken(f"refused to open the disk (reply {kind:#x}) {said}".strip())
            replies.append((kind, data))
        raise self._broken(f"answered option {option} without end")

    def _ask_allocation(self, export_name: bytes) -> int | None:
        packed = wire.pack_meta_context(export_name, wire.BASE_ALLOCATION)
        for kind, data in self._ask(wire.OPT_SET_META_CONTEXT, packed) or ():
            if kind == wire.REP_META_CONTEXT and data[4:] == wire.BASE_ALLOCATION:
                return int.from_bytes(data[:4], "big")
        return None

    def _export(
        self, replies: list[tuple[int, bytes]], structured: bool, allocation: int | None
    ) -> wire.Export:
        described: tuple[int, int] | None = None
        smallest, largest = 1, wire.MAX_REQUEST_BYTES
        for kind, data in replies:
            if kind != wire.REP_INFO or len(data) < 2:
                continue
            about = int.from_bytes(data[:2], "big")
            if about == wire.INFO_EXPORT:
                described = wire.parse_export(self._name, data[2:])
            elif about == wire.INFO_BLOCK_SIZE:
                smallest, largest = wire.parse_block_sizes(self._name, data[2:])
        if described is None:
            raise self._broken("opened the disk without telling its size")
        size, flags = described
        return self._check(wire.Export(size, flags, structured, allocation, smallest, largest))

    def _check(self, export: wire.Export) -> wire.Export:
        if export.capacity_bytes % export.min_block_bytes:
            raise self._broken(
                f"has {export.capacity_bytes} bytes, which is no multiple of its block size"
                f" {export.min_block_bytes}"
            )
        return export

    def _send(self, data: bytes) -> None:
        self._sock.settimeout(self._remaining())
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise self._broke_off(error) from error

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            remaining_s = self._remaining()
            watched = self._check_meanwhile is not None and remaining_s > _TICK_S
            self._sock.settimeout(_TICK_S if watched else remaining_s)
            try:
                part = self._sock.recv(length - len(data))
            except TimeoutError as error:
                if not watched or self._check_meanwhile is None:
                    raise self._broke_off(error) from error
                self._check_meanwhile()
                continue
            except OSError as error:
                raise self._broke_off(error) from error
            if not part:
                raise self._broke_off(EOFError("it closed the connection"))
            data += part
        self._answered = True
        return bytes(data)

    def _remaining(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._broken("did not finish the handshake in time")
        return left

    def _broke_off(self, error: OSError | EOFError) -> DiskUnavailable | CertificateUntrusted:
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            found = refused(self._name, error)
            if isinstance(found, CertificateUntrusted):
                return found
        if not self._answered and not isinstance(error, TimeoutError):
            # All that some servers do about a certificate; with TLS 1.3 our side was done before.
            return DiskUnavailable(
                f"The exporter of {self._name} hung up after the TLS handshake, as servers do that"
                " do not accept a client's certificate.",
                "Check that ours is there, is valid today and is of the authority it trusts.",
            )
        return self._broken(f"broke off the handshake ({_why(error)})")

    def _broken(self, what: str) -> DiskUnavailable:
        return wire.broken(self._name, what)


def _why(error: OSError | EOFError) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)
