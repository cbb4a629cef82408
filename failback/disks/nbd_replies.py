"""Understands NBD replies and refuses whatever does not fit the request it answers.

Written as generators: they yield where the next bytes belong and go on when these are there, so
that whoever has the socket decides how to wait.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from failback.disks import nbd_wire as wire
from failback.disks.faults import Op
from failback.disks.plan import Extent, merge, total_bytes
from failback.errors import DiskUnavailable

MAX_PARTS = 1024
"""Gaps between the parts of one read; looking for overlaps costs time for each of them."""


@dataclass(slots=True)
class Pending:
    """A request that is on its way; offset and length in bytes."""

    tag: int
    op: Op
    offset: int
    length: int
    view: memoryview | None = None
    """Where read data goes, or what is written."""
    sent: bool = False
    error: int = 0
    got: list[Extent] = field(default_factory=list)
    """Parts of a structured read that arrived."""
    zeroes: tuple[Extent, ...] = ()


Bytes = Generator[memoryview, None, bytes]
Step = Generator[memoryview, None, None]


class ReplyReader:
    """Understands replies; raises DiskUnavailable on any that a correct server would not send.

    Args:
        find: the open request of a handle.
        finish: called with handle and request when its last reply was read.
    """

    def __init__(
        self,
        name: str,
        export: wire.Export,
        find: Callable[[int], Pending | None],
        finish: Callable[[int, Pending], None],
    ) -> None:
        self._name = name
        self._export = export
        self._find = find
        self._finish = finish

    def run(self) -> Step:
        """Endless; to be continued whenever the memory it yielded is filled."""
        while True:
            magic = int.from_bytes((yield from self._take(4)), "big")
            if magic == wire.SIMPLE_REPLY_MAGIC:
                yield from self._simple()
            elif magic == wire.STRUCTURED_REPLY_MAGIC and self._export.structured:
                yield from self._structured()
            else:
                raise wire.broken(self._name, f"sent {magic:#x} where a reply begins")

    def _take(self, length: int) -> Bytes:
        data = bytearray(length)
        if length:
            yield memoryview(data)
        return bytes(data)

    def _request(self, handle: int) -> Pending:
        request = self._find(handle)
        if request is None:
            raise wire.broken(self._name, f"answered request {handle:#x}, which is not open")
        return request

    def _simple(self) -> Step:
        head = yield from self._take(wire.SIMPLE_REPLY.size - 4)
        code, handle = struct.unpack(">IQ", head)
        request = self._request(handle)
        if request.op is Op.MAP or (request.op is Op.READ and self._export.structured):
            raise self._broken(f"answered a {request.op} in the wrong form", request)
        if code == 0 and request.op is Op.READ and request.view is not None:
            yield request.view
        request.error = code
        self._finish(handle, request)

    def _structured(self) -> Step:
        head = yield from self._take(wire.STRUCTURED_REPLY.size - 4)
        flags, kind, handle, length = struct.unpack(">HHQI", head)
        request = self._request(handle)
        if kind == wire.CHUNK_OFFSET_DATA and request.op is Op.READ:
            yield from self._data_chunk(request, length)
        elif kind == wire.CHUNK_OFFSET_HOLE and request.op is Op.READ:
            yield from self._hole_chunk(request, length)
        elif kind == wire.CHUNK_BLOCK_STATUS and request.op is Op.MAP:
            if length > wire.MAX_STATUS_BYTES or request.zeroes:
                raise self._broken("sent too much block status", request)
            request.zeroes = wire.parse_status(
                self._name,
                (yield from self._take(length)),
                self._export.allocation_id or 0,
                Extent(request.offset, request.length),
            )
        elif kind & wire.CHUNK_ERROR_BIT:
            yield from self._error_chunk(request, length)
        elif kind != wire.CHUNK_NONE or length:
            raise self._broken(f"sent a chunk of kind {kind} for a {request.op}", request)
        if not flags & wire.CHUNK_DONE:
            if kind == wire.CHUNK_NONE:
                raise self._broken("sent an empty chunk that ends nothing", request)
            return
        whole = request.op is not Op.READ or total_bytes(request.got) == request.length
        if not whole and not request.error:
            raise self._broken("left out a part of a read", request)
        self._finish(handle, request)

    def _data_chunk(self, request: Pending, length: int) -> Step:
        if length <= wire.OFFSET.size:
            raise self._broken("sent a data chunk without data", request)
        (offset,) = wire.OFFSET.unpack((yield from self._take(wire.OFFSET.size)))
        yield self._place(request, offset, length - wire.OFFSET.size)

    def _hole_chunk(self, request: Pending, length: int) -> Step:
        if length != wire.HOLE.size:
            raise self._broken("sent a malformed hole", request)
        offset, size = wire.HOLE.unpack((yield from self._take(length)))
        self._place(request, offset, size)[:] = bytes(size)

    def _place(self, request: Pending, offset: int, size: int) -> memoryview:
        """Where this part of a read belongs; refuses parts outside the request or sent twice."""
        part = Extent(offset, size)
        inside = request.offset <= offset and part.end <= request.offset + request.length
        if size == 0 or not inside or request.view is None:
            raise self._broken("sent data outside its request", request)
        if any(part.offset < got.end and got.offset < part.end for got in request.got):
            raise self._broken("sent the same data twice", request)
        request.got = list(merge([*request.got, part]))
        if len(request.got) > MAX_PARTS:
            raise self._broken("sent a read in too many parts", request)
        start = offset - request.offset
        return request.view[start : start + size]

    def _error_chunk(self, request: Pending, length: int) -> Step:
        if not wire.CHUNK_ERROR_HEAD.size <= length <= wire.MAX_OPTION_REPLY_BYTES:
            raise self._broken("sent a malformed error", request)
        said = yield from self._take(length)
        code, _ = wire.CHUNK_ERROR_HEAD.unpack(said[: wire.CHUNK_ERROR_HEAD.size])
        if code == 0:
            raise self._broken("reported an error without a number", request)
        request.error = request.error or code

    def _broken(self, what: str, request: Pending) -> DiskUnavailable:
        return wire.broken(self._name, what, request.offset)
