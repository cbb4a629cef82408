"""Digests of one disk's blocks, two levels: 16 bytes for a block, 32 bytes over those of a segment.

Both movers use this, each on its own disk. The disk says first what reads as zeroes, and that is
not read. Single-threaded: one core digests several times faster than any disk or link delivers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from blake3 import blake3

from failback.disks.blockio import Answer, BlockIO
from failback.disks.compare import is_zero
from failback.disks.plan import BLOCK_BYTES, Extent, subtract
from failback.disks.planner import whole_blocks
from failback.disks.remote.wire import LEAF_BYTES
from failback.disks.requests import Requests

ZERO_LEAF = bytes(LEAF_BYTES)
"""Stands for a block of zeroes: needs no hashing, and tells the other side that there is nothing to
send. No digest of a block is all zero in practice (one in 2^128, under a key nobody else knows)."""

CHUNK_BYTES = 1024 * 1024
WINDOW = 6

Then = Callable[[bytes], None]


def leaf(block: memoryview, key: bytes) -> bytes:
    """Digest of one block in a writable buffer."""
    return ZERO_LEAF if is_zero(block) else blake3(block, key=key).digest(LEAF_BYTES)


def root(leaves: bytes | memoryview, key: bytes) -> bytes:
    """Digest over the leaves of a segment."""
    return blake3(leaves, key=key).digest()


class Digester:
    """Digests segments of a disk one after the other, reading ahead.

    Args:
        requests: whose `turn` brings the disk's answers.
        window: buffers of `CHUNK_BYTES`, which is all the memory there is to it.
    """

    def __init__(
        self, requests: Requests, disk: BlockIO, key: bytes, *, window: int = WINDOW
    ) -> None:
        self._requests, self._disk, self._key = requests, disk, key
        self._chunk = min(CHUNK_BYTES, disk.max_request_bytes // BLOCK_BYTES * BLOCK_BYTES)
        self._free = [memoryview(bytearray(self._chunk)) for _ in range(window)]
        self._waiting: deque[_Segment] = deque()
        """Not read to the end yet; of the first, `chunks` are what is left."""

    def start(self, extents: tuple[Extent, ...], then: Then) -> None:
        """Digest whole blocks in ascending order; `then` gets their leaves in the same order."""
        segment = _Segment(extents, then)
        self._waiting.append(segment)
        if not self._disk.maps_zeroes:
            segment.plan((), self._disk.capacity_bytes, self._chunk)
            return

        def mapped(answer: Answer) -> None:
            segment.plan(answer.zeroes, self._disk.capacity_bytes, self._chunk)
            self.pump()

        span = Extent(extents[0].offset, extents[-1].end - extents[0].offset)
        self._requests.map(self._disk, span, mapped)

    def pump(self) -> None:
        """Read ahead as far as buffers allow; to be called whenever `start` was."""
        while self._waiting and self._free and not self._requests.winding_down:
            segment = self._waiting[0]
            if segment.chunks is None:
                return
            extent = next(segment.chunks, None)
            if extent is not None:
                self._read(segment, extent)
                continue
            self._waiting.popleft()
            segment.done()

    def _read(self, segment: _Segment, extent: Extent) -> None:
        buffer = self._free.pop()
        view = buffer[: extent.length]
        segment.open += 1

        def answered(_: Answer) -> None:
            at = segment.place(extent.offset)
            for start in range(0, extent.length, BLOCK_BYTES):
                block = view[start : start + BLOCK_BYTES]
                segment.leaves[at : at + LEAF_BYTES] = leaf(block, self._key)
                at += LEAF_BYTES
            self._free.append(buffer)
            segment.done()
            self.pump()

        self._requests.read(self._disk, extent.offset, view, answered)


class _Segment:
    def __init__(self, extents: tuple[Extent, ...], then: Then) -> None:
        self._extents, self._then = extents, then
        self._places: list[tuple[Extent, int]] = []
        at = 0
        for extent in extents:
            self._places.append((extent, at))
            at += -(-extent.length // BLOCK_BYTES) * LEAF_BYTES
        # Zero until read: what is not read because it reads as zeroes is right already.
        self.leaves = bytearray(at)
        self.chunks: Iterator[Extent] | None = None
        self.open = 1
        """Reads without answer, and one more until all are submitted."""

    def plan(self, zeroes: tuple[Extent, ...], capacity_bytes: int, chunk_bytes: int) -> None:
        data = subtract(self._extents, whole_blocks(zeroes, capacity_bytes))
        self.chunks = (
            Extent(offset, min(chunk_bytes, extent.end - offset))
            for extent in self._within(data)
            for offset in range(extent.offset, extent.end, chunk_bytes)
        )

    def place(self, offset: int) -> int:
        """Where the leaf of the block at this offset is."""
        extent, at = next(one for one in self._places if one[0].offset <= offset < one[0].end)
        return at + (offset - extent.offset) // BLOCK_BYTES * LEAF_BYTES

    def done(self) -> None:
        self.open -= 1
        if self.open == 0:
            self._then(bytes(self.leaves))

    def _within(self, data: tuple[Extent, ...]) -> Iterator[Extent]:
        """The data cut where the extents end: touching ones may have been joined."""
        places = iter(self._extents)
        own = next(places)
        for extent in data:
            at = extent.offset
            while at < extent.end:
                while own.end <= at:
                    own = next(places)
                end = min(extent.end, own.end)
                yield Extent(at, end - at)
                at = end
