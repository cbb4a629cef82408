"""One connection of another site's mover: digests and reads one disk for it. Never writes."""

from __future__ import annotations

import time
from collections import deque

from failback.disks.blockio import Answer, BlockIO, Check, Clock
from failback.disks.plan import Extent
from failback.disks.remote import wire
from failback.disks.remote.leaves import Digester, root
from failback.disks.remote.link import Frame, Link
from failback.disks.remote.packing import Packer
from failback.disks.remote.wire import Kind
from failback.disks.requests import Requests
from failback.errors import DiskUnavailable

UNSENT_BYTES = 4 * 1024 * 1024
"""Nothing is read for a link that has so much to send already."""

READING_BYTES = 8 * 1024 * 1024
MAX_WAITING_READS = 1024
"""More than any correct mover has under way."""

IDLE_S = 900.0
"""Longer than anything that keeps a mover from asking; then its end of the line is gone."""


class Session:
    """Answers one peer until it goes away.

    Memory: digests of at most `MAX_OPEN_DIGESTS` segments, the digester's buffers, what is being
    read and what is not sent yet; some 20 MiB whatever the disk's size.

    Args:
        link: after the greeting.
        check: raises when the service ends.
    """

    def __init__(
        self,
        link: Link,
        disk: BlockIO,
        key: bytes,
        *,
        check: Check,
        idle_s: float = IDLE_S,
        stall_timeout_s: float = 100.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._link, self._disk, self._key = link, disk, key
        self._idle_s, self._clock = idle_s, clock
        self._requests = Requests(
            disk,
            link,
            check=check,
            clock=clock,
            stall_timeout_s=stall_timeout_s,
            check_interval_s=0.25,
        )
        self._digester = Digester(self._requests, disk, key)
        self._packer = Packer()
        self._digests: dict[int, bytes | None] = {}
        """Leaves by number; None while they are made."""
        self._reads: deque[tuple[int, Extent]] = deque()
        self._reading_bytes = 0

    def run(self) -> None:
        """Serve until the peer closes the connection, which raises DiskUnavailable as its loss
        does; other errors are about the disk or the peer's conduct."""
        while True:
            while (frame := self._link.take()) is not None:
                self._handle(frame)
            # What was asked for by name goes first: digests run ahead of need.
            self._read_waiting()
            self._digester.pump()
            self._requests.turn(0.25)
            silent_s = self._clock() - self._link.moved_at
            if not self._requests.open and silent_s > self._idle_s:
                raise DiskUnavailable(
                    f"The mover of {self._link.name} was silent for {silent_s:.0f} s.",
                    "It connects again when it needs the disk.",
                )

    def _handle(self, frame: Frame) -> None:
        number, capacity = frame.number, self._disk.capacity_bytes
        match frame.kind:
            case Kind.READ if len(self._reads) < MAX_WAITING_READS:
                extent = wire.parse_range(self._link.name, frame.payload, capacity)
                self._reads.append((number, extent))
            case Kind.DIGEST if len(self._digests) < wire.MAX_OPEN_DIGESTS:
                if number in self._digests:
                    raise wire.broken(self._link.name, "used a number twice")
                extents = wire.parse_extents(self._link.name, frame.payload, capacity)
                self._digests[number] = None
                self._digester.start(extents, lambda leaves: self._digested(number, leaves))
            case Kind.LEAVES if self._digests.get(number) is not None:
                self._link.send(Kind.LIST, number, self._digests.pop(number) or b"")
            case Kind.FORGET if self._digests.get(number) is not None:
                del self._digests[number]
            case _:
                raise wire.broken(self._link.name, f"sent a {frame.kind.name} out of turn")

    def _digested(self, number: int, leaves: bytes) -> None:
        self._digests[number] = leaves
        self._link.send(Kind.ROOT, number, root(leaves, self._key))

    def _read_waiting(self) -> None:
        while (
            self._reads
            and self._link.unsent_bytes < UNSENT_BYTES
            and self._reading_bytes < READING_BYTES
        ):
            self._read(*self._reads.popleft())

    def _read(self, number: int, extent: Extent) -> None:
        buffer = memoryview(bytearray(extent.length))
        self._reading_bytes += extent.length

        def answered(_: Answer) -> None:
            self._reading_bytes -= extent.length
            packing, data = self._packer.pack(buffer, self._link.send_rate)
            self._link.send(Kind.DATA, number, packing.to_bytes(1, "big"), data)

        self._requests.read(self._disk, extent.offset, buffer, answered)
