"""Reads one NBD reply at a time and refuses whatever does not fit the request it answers."""

from __future__ import annotations

import struct
from collections.abc import Callable
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


class ReplyReader:
    """Understands replies; raises DiskUnavailable on any that a correct server would not send.

    Args:
        fill: receives exactly as many bytes as the view is long, or raises.
        find: the open request of a handle.
    """

    def __init__(
        self,
        name: str,
        export: wire.Export,
        fill: Callable[[memoryview], None],
        find: Callable[[int], Pending | None],
    ) -> None:
        self._name = name
        self._export = export
        self._fill = fill
        self._find = find

    def read(self, magic: int) -> tuple[int, Pending] | None:
        """Read the rest of a reply that began with `magic`.

        Returns handle and request if this reply was the request's last."""
        if magic == wire.SIMPLE_REPLY_MAGIC:
            return self._simple()
        if magic == wire.STRUCTURED_REPLY_MAGIC and self._export.structured:
            return self._structured()
        raise wire.broken(self._name, f"sent {magic:#x} where a reply begins")

    def _take(self, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data))
        return bytes(data)

    def _request(self, handle: int) -> Pending:
        request = self._find(handle)
        if request is None:
            raise wire.broken(self._name, f"answered request {handle:#x}, which is not open")
        return request

    def _simple(self) -> tuple[int, Pending]:
        code, handle = struct.unpack(">IQ", self._take(wire.SIMPLE_REPLY.size - 4))
        request = self._request(handle)
        if request.op is Op.MAP or (request.op is Op.READ and self._export.structured):
            raise self._broken(f"answered a {request.op} in the wrong form", request)
        if code == 0 and request.op is Op.READ and request.view is not None:
            self._fill(request.view)
        request.error = code
        return handle, request

    def _structured(self) -> tuple[int, Pending] | None:
        flags, kind, handle, length = struct.unpack(
            ">HHQI", self._take(wire.STRUCTURED_REPLY.size - 4)
        )
        request = self._request(handle)
        if kind == wire.CHUNK_OFFSET_DATA and request.op is Op.READ:
            self._data_chunk(request, length)
        elif kind == wire.CHUNK_OFFSET_HOLE and request.op is Op.READ:
            self._hole_chunk(request, length)
        elif kind == wire.CHUNK_BLOCK_STATUS and request.op is Op.MAP:
            if length > wire.MAX_STATUS_BYTES or request.zeroes:
                raise self._broken("sent too much block status", request)
            request.zeroes = wire.parse_status(
                self._name,
                self._take(length),
                self._export.allocation_id or 0,
                Extent(request.offset, request.length),
            )
        elif kind & wire.CHUNK_ERROR_BIT:
            self._error_chunk(request, length)
        elif kind != wire.CHUNK_NONE or length:
            raise self._broken(f"sent a chunk of kind {kind} for a {request.op}", request)
        if not flags & wire.CHUNK_DONE:
            if kind == wire.CHUNK_NONE:
                raise self._broken("sent an empty chunk that ends nothing", request)
            return None
        whole = request.op is not Op.READ or total_bytes(request.got) == request.length
        if not whole and not request.error:
            raise self._broken("left out a part of a read", request)
        return handle, request

    def _data_chunk(self, request: Pending, length: int) -> None:
        if length <= wire.OFFSET.size:
            raise self._broken("sent a data chunk without data", request)
        (offset,) = wire.OFFSET.unpack(self._take(wire.OFFSET.size))
        self._fill(self._place(request, offset, length - wire.OFFSET.size))

    def _hole_chunk(self, request: Pending, length: int) -> None:
        if length != wire.HOLE.size:
            raise self._broken("sent a malformed hole", request)
        offset, size = wire.HOLE.unpack(self._take(length))
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

    def _error_chunk(self, request: Pending, length: int) -> None:
        if not wire.CHUNK_ERROR_HEAD.size <= length <= wire.MAX_OPTION_REPLY_BYTES:
            raise self._broken("sent a malformed error", request)
        code, _ = wire.CHUNK_ERROR_HEAD.unpack(self._take(length)[: wire.CHUNK_ERROR_HEAD.size])
        if code == 0:
            raise self._broken("reported an error without a number", request)
        request.error = request.error or code

    def _broken(self, what: str, request: Pending) -> DiskUnavailable:
        return wire.broken(self._name, what, request.offset)
