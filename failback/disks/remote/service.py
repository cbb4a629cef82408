"""The mover near the source: accepts other movers and opens disks for them, read-only.

Whoever shows a certificate of the authority may read every disk that `opener` opens, so the
authority is a private one, and the names that may come in can be listed.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path

from failback.disks.blockio import BlockIO
from failback.disks.file import FileDisk
from failback.disks.remote import wire
from failback.disks.remote.link import Link
from failback.disks.remote.session import Session
from failback.disks.remote.wire import Kind
from failback.disks.tls import TlsFiles
from failback.errors import (
    DiskSizeMismatch,
    DiskUnavailable,
    FailbackError,
    SettingsInvalid,
    Stopped,
)
from failback.handshake import secured

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
MAX_SESSIONS = 64
"""A disk each; more would only share the same link."""

Opener = Callable[[str], AbstractContextManager[BlockIO]]
"""Opens a disk for reading by the name the peer gave; raises for what may not be opened."""


class MoverService:
    """Listens until it is closed. One thread accepts, one more serves each connection.

    Args:
        listen: host and port; port 0 takes a free one, see `port`.
        peers: names that a peer's certificate must carry one of; none: any of the authority's.

    Raises SettingsInvalid for wrong TLS files or an address that cannot be listened on."""

    def __init__(
        self,
        listen: tuple[str, int],
        files: TlsFiles,
        opener: Opener,
        *,
        peers: Collection[str] = (),
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        self._context = files.server()
        self._opener, self._peers = opener, frozenset(peers)
        self._handshake_s = handshake_s
        self._closing = threading.Event()
        self._places = threading.Semaphore(MAX_SESSIONS)
        self._sessions: set[threading.Thread] = set()
        try:
            family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
            self._listening = socket.create_server(listen, family=family)
        except OSError as error:
            raise SettingsInvalid(
                f"The mover service cannot listen on {listen[0]}:{listen[1]} ({error.strerror}).",
                "Check the address, and whether another process listens there.",
            ) from error
        self._listening.settimeout(0.25)
        self.port: int = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="mover-service", daemon=True)
        self._accepting.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Accept nobody any more, and end the sessions at their next look; harmless twice."""
        self._closing.set()
        self._accepting.join(timeout_s)
        self._listening.close()
        deadline = time.monotonic() + timeout_s
        for thread in tuple(self._sessions):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, address = self._listening.accept()
            except TimeoutError:
                continue
            except OSError as error:
                # Out of descriptors, or the peer was gone again: the next one may be luckier.
                log.warning("a mover was not accepted", extra={"reason": str(error)})
                self._closing.wait(0.25)
                continue
            if not self._places.acquire(blocking=False):
                log.warning("too many movers at once", extra={"peer": address[0]})
                sock.close()
                continue
            thread = threading.Thread(
                target=self._serve, args=(sock, address[0]), name="mover-session", daemon=True
            )
            self._sessions.add(thread)
            thread.start()

    def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            self._session(sock, peer)
        except (FailbackError, OSError) as error:
            log.info("a mover's connection ended", extra={"peer": peer, "reason": str(error)})
        except Exception:
            log.exception("a mover's session failed", extra={"peer": peer})
        finally:
            self._places.release()
            self._sessions.discard(threading.current_thread())

    def _session(self, sock: socket.socket, peer: str) -> None:
        deadline = time.monotonic() + self._handshake_s
        sock.settimeout(self._handshake_s)
        with contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            private = secured(self._context, sock, server_side=True)
            link = Link(private, peer)
            stack.callback(link.close, 1.0)
            try:
                self._demand_listed(private)
                frame = link.wait(deadline)
                if frame.kind is not Kind.HELLO:
                    raise wire.broken(peer, "did not introduce itself")
                key, name, capacity = wire.parse_hello(peer, frame.payload)
                disk = stack.enter_context(self._opener(name))
                _demand_size(disk, capacity)
                welcome = wire.pack_json({"capacity_bytes": disk.capacity_bytes})
                link.send(Kind.WELCOME, 0, welcome)
                log.info("serving a disk", extra={"peer": peer, "disk": name})
                Session(link, disk, key, check=self._check).run()
            except FailbackError as error:
                if link.failure is None:
                    link.send(Kind.FAILED, 0, wire.pack_failure(error))
                raise

    def _check(self) -> None:
        if self._closing.is_set():
            raise Stopped("The mover service ends.", "Connect again when it is back.")

    def _demand_listed(self, secured: ssl.SSLSocket) -> None:
        certificate = secured.getpeercert() or {}
        alternatives = certificate.get("subjectAltName", ())
        names = {str(entry[1]) for entry in alternatives if len(entry) == 2}
        if self._peers and not names & self._peers:
            raise SettingsInvalid(
                f"The certificate of {', '.join(sorted(names)) or 'nobody'} is not one of those"
                " that may read disks here.",
                "Add its name to the peers of this site's mover.",
            )


def _demand_size(disk: BlockIO, capacity_bytes: int | None) -> None:
    if capacity_bytes is not None and disk.capacity_bytes != capacity_bytes:
        raise DiskSizeMismatch(
            f"{disk.name} has {disk.capacity_bytes} bytes, the plan says {capacity_bytes}.",
            "Calculate the difference again after the disk's size is settled.",
            planned=capacity_bytes,
        )


def open_file(path: Path, name: str = "") -> AbstractContextManager[BlockIO]:
    """A local file or block device, opened without any right to write."""
    return contextlib.closing(FileDisk(path, name, writable=False))


def below(roots: Collection[Path]) -> Opener:
    """Opens files by their path, only below these folders, after following links."""
    tops = [root.resolve() for root in roots]

    def opener(name: str) -> AbstractContextManager[BlockIO]:
        try:
            path = Path(name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise DiskUnavailable(f"{name} cannot be found.", "Check the path.") from error
        if not Path(name).is_absolute() or not any(path.is_relative_to(top) for top in tops):
            raise SettingsInvalid(
                f"{name} is not in a folder that this mover serves.",
                "Name its folder with --allow-root on the mover.",
            )
        return open_file(path, name)

    return opener
