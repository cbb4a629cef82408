"""The other site's disk as the target's mover sees it: digests, and blocks to read."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from failback.disks.blockio import Answer
from failback.disks.nbd import connect
from failback.disks.plan import Extent
from failback.disks.remote import wire
from failback.disks.remote.link import Frame, Link
from failback.disks.remote.packing import Unpacker
from failback.disks.remote.wire import Kind
from failback.disks.tls import TlsClient, TlsFiles
from failback.errors import DiskSizeMismatch, FailbackError

Then = Callable[[bytes], None]


@dataclass(frozen=True)
class MoverAddress:
    """Where another site's mover listens, and how we prove each other's identity."""

    host: str
    port: int
    tls: TlsClient


@dataclass(frozen=True)
class MoverSite:
    """The mover of another site, as the settings tell of it."""

    host: str
    port: int
    server_name: str
    """What its certificate must carry."""
    tls_dir: Path

    def open(self, disk: str, name: str) -> RemoteDisk:
        """The arguments and errors of `open_remote`; the TLS files are read anew each time."""
        tls = TlsClient(TlsFiles.in_folder(self.tls_dir).client(), self.server_name)
        return open_remote(MoverAddress(self.host, self.port, tls), disk, name)


class RemoteDisk:
    """A disk behind another mover, for reading; implements BlockIO.

    Made by `open_remote`. There is no way to write through it: the protocol has no such frame.

    Args:
        key: of this connection's digests.
        io_timeout_s: how long a connection with open requests may move no byte at all, while
            somebody looks.
    """

    maps_zeroes = False
    """What reads as zeroes is told by the digests."""
    max_request_bytes = wire.MAX_READ_BYTES

    def __init__(
        self, link: Link, name: str, capacity_bytes: int, key: bytes, io_timeout_s: float = 120.0
    ) -> None:
        self.name, self.capacity_bytes, self.key = name, capacity_bytes, key
        self._link = link
        self._io_timeout_s = io_timeout_s
        self._unpacker = Unpacker(name)
        self._next = 0
        self._reads: dict[int, tuple[int, int, memoryview]] = {}
        """Tag, offset and buffer of each number."""
        self._digests: dict[int, tuple[Extent, int, Then]] = {}
        """What was asked about, the length of the answer, and who wants it."""
        self._wake: Callable[[], None] = lambda: None
        self._closed = False

    @property
    def failure(self) -> FailbackError | None:
        """Why the connection was lost; None while it works."""
        return self._link.failure

    # --- digests ---

    def digest(self, extents: tuple[Extent, ...], then: Then) -> int:
        """Have whole blocks digested; `then` gets the 32 bytes over their digests.

        Returns the number by which `leaves` or `forget`, one of which must follow, names them."""
        number = self._ask(Kind.DIGEST, wire.pack_extents(extents))
        self._digests[number] = (extents[0], wire.ROOT_BYTES, then)
        return number

    def leaves(self, number: int, where: Extent, blocks: int, then: Then) -> None:
        """Ask for the digests of all blocks, `LEAF_BYTES` each; the mover forgets them then."""
        self._begin()
        self._digests[number] = (where, blocks * wire.LEAF_BYTES, then)
        self._link.send(Kind.LEAVES, number)

    def forget(self, number: int) -> None:
        """The digests are not needed."""
        self._link.send(Kind.FORGET, number)

    # --- BlockIO ---

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        if self._link.failure is not None:
            raise self._link.failure
        number = self._ask(Kind.READ, wire.RANGE.pack(offset, into.nbytes))
        self._reads[number] = (tag, offset, into)

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        raise self._read_only()

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        raise self._read_only()

    def submit_flush(self, tag: int) -> None:
        raise self._read_only()

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        raise ValueError(f"{self.name} offers no map of zeroes")

    def poll(self, timeout_s: float) -> list[Answer]:
        self._link.poll(timeout_s)
        answers: list[Answer] = []
        try:
            self._hear(answers)
        except FailbackError as error:
            self._link.fail(error)
        if not answers and self._link.failure is not None:
            raise self._located(self._link.failure)
        return answers

    def on_answer(self, wake: Callable[[], None]) -> None:
        """Only for digests, which are no answers; between two polls nothing moves."""
        self._wake = wake

    def interest(self) -> tuple[int, int] | None:
        return self._link.interest()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.close()
            self._reads.clear()
            self._digests.clear()

    # --- asking and hearing ---

    def _ask(self, kind: Kind, payload: bytes) -> int:
        self._begin()
        self._next += 1
        self._link.send(kind, self._next, payload)
        return self._next

    def _begin(self) -> None:
        if not (self._reads or self._digests):
            self._link.moved_at = time.monotonic()

    def _hear(self, answers: list[Answer]) -> None:
        while (frame := self._link.take_now()) is not None:
            match frame.kind:
                case Kind.DATA if frame.number in self._reads:
                    tag, offset, into = self._reads.pop(frame.number)
                    self._unpacker.unpack(frame.payload, into, offset)
                    answers.append(Answer(tag))
                case Kind.ROOT | Kind.LIST if frame.number in self._digests:
                    self._digested(frame)
                case Kind.FAILED:
                    raise wire.parse_failure(self.name, frame.payload)
                case _:
                    raise wire.broken(self.name, f"sent a {frame.kind.name} nobody asked for")
        silent_s = time.monotonic() - self._link.moved_at
        if (self._reads or self._digests) and silent_s > self._io_timeout_s:
            raise wire.broken(self.name, f"moved no byte for {self._io_timeout_s:g} s")

    def _digested(self, frame: Frame) -> None:
        extent, length, then = self._digests.pop(frame.number)
        if len(frame.payload) != length:
            raise wire.broken(self.name, "sent digests of the wrong length", extent.offset)
        then(bytes(frame.payload))
        self._wake()

    def _located(self, error: FailbackError) -> FailbackError:
        if error.evidence.get("offset") is None:
            offsets = [read[1] for read in self._reads.values()]
            offsets += [digest[0].offset for digest in self._digests.values()]
            error.evidence["offset"] = min(offsets, default=None)
        return error

    def _read_only(self) -> ValueError:
        return ValueError(f"{self.name} belongs to the other site and is only read")


def open_remote(
    address: MoverAddress,
    disk: str,
    name: str,
    *,
    capacity_bytes: int | None = None,
    connect_timeout_s: float = 10.0,
    io_timeout_s: float = 120.0,
) -> RemoteDisk:
    """Have another site's mover open a disk of that site for reading.

    Args:
        disk: as that mover names its disks.
        name: what the disk is called in messages.
        capacity_bytes: what the plan says, another size there is refused; None: any.

    Raises DiskUnavailable, DiskSizeMismatch, CertificateUntrusted, and what the other mover met
    when it opened the disk: SettingsInvalid, DiskHasParent."""
    deadline = time.monotonic() + connect_timeout_s
    sock: socket.socket = connect((address.host, address.port), name, timeout_s=connect_timeout_s)
    secured = address.tls.wrap(sock, name, max(deadline - time.monotonic(), 0.1))
    link = Link(secured, name)
    # Fresh for each attempt: a guest cannot hold content made to collide under it.
    key = secrets.token_bytes(wire.KEY_BYTES)
    try:
        hello = {"version": wire.VERSION, "key": key.hex(), "disk": disk}
        payload = wire.pack_json({**hello, "capacity_bytes": capacity_bytes})
        link.send(Kind.HELLO, 0, payload)
        frame = link.wait(deadline)
        if frame.kind is Kind.FAILED:
            raise wire.parse_failure(name, frame.payload)
        if frame.kind is not Kind.WELCOME:
            raise wire.broken(name, "answered the greeting with something else")
        actual = wire.parse_json(name, frame.payload).get("capacity_bytes")
        if type(actual) is not int or actual < 0:
            raise wire.broken(name, "did not tell the disk's size")
        if capacity_bytes is not None and actual != capacity_bytes:
            raise DiskSizeMismatch(
                f"{name} has {actual} bytes, the plan says {capacity_bytes}.",
                "Calculate the difference again after the disk's size is settled.",
                planned=capacity_bytes,
            )
    except BaseException:
        link.close(0)
        raise
    return RemoteDisk(link, name, actual, key, io_timeout_s)
