"""NBD on the wire: magic numbers, packed headers and the checks of what a server sends.

Pure functions; after the protocol text at github.com/NetworkBlockDevice/nbd, doc/proto.md.
Everything here raises DiskUnavailable on bytes that no correct server sends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from failback.disks.plan import Extent
from failback.errors import DiskUnavailable

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OLDSTYLE_MAGIC = 0x0000420281861253
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

SERVER_FIXED_NEWSTYLE = 1 << 0
SERVER_NO_ZEROES = 1 << 1

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_STARTTLS = 5
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8
OPT_SET_META_CONTEXT = 10

REP_ACK = 1
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERROR = 1 << 31
REP_ERR_UNSUP = REP_ERROR + 1
REP_ERR_TLS_REQD = REP_ERROR + 5

INFO_EXPORT = 0
INFO_BLOCK_SIZE = 3

FLAG_HAS_FLAGS = 1 << 0
FLAG_READ_ONLY = 1 << 1
FLAG_SEND_FLUSH = 1 << 2
FLAG_SEND_WRITE_ZEROES = 1 << 6
FLAG_MULTI_CONN = 1 << 8

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2
CMD_FLUSH = 3
CMD_WRITE_ZEROES = 6
CMD_BLOCK_STATUS = 7

CHUNK_DONE = 1 << 0
CHUNK_NONE = 0
CHUNK_OFFSET_DATA = 1
CHUNK_OFFSET_HOLE = 2
CHUNK_BLOCK_STATUS = 5
CHUNK_ERROR = (1 << 15) + 1
CHUNK_ERROR_OFFSET = (1 << 15) + 2
CHUNK_ERROR_BIT = 1 << 15

STATE_ZERO = 1 << 1
"""In base:allocation: reads as zeroes. Bit 0, a hole, proves nothing: a hole may show a parent."""

BASE_ALLOCATION = b"base:allocation"
MAX_OPTION_REPLY_BYTES = 64 * 1024
MAX_STATUS_BYTES = 4 + 8 * 65536
MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""What every server must accept when it says nothing else."""

GREETING = struct.Struct(">QQ")
OPTION = struct.Struct(">QII")
OPTION_REPLY = struct.Struct(">QIII")
EXPORT = struct.Struct(">QH")
BLOCK_SIZES = struct.Struct(">III")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
STRUCTURED_REPLY = struct.Struct(">IHHQI")
OFFSET = struct.Struct(">Q")
HOLE = struct.Struct(">QI")
CHUNK_ERROR_HEAD = struct.Struct(">IH")
STATUS_EXTENT = struct.Struct(">II")


@dataclass(frozen=True)
class Export:
    """What a server agreed to."""

    capacity_bytes: int
    flags: int
    structured: bool = False
    allocation_id: int | None = None
    """The number of base:allocation in BLOCK_STATUS replies; None if not offered."""
    min_block_bytes: int = 1
    max_request_bytes: int = MAX_REQUEST_BYTES


def broken(name: str, what: str, offset: int | None = None) -> DiskUnavailable:
    """The error for a server that breaks the protocol; `what` continues "The exporter of X ..."."""
    return DiskUnavailable(
        f"The exporter of {name} {what}.",
        "The connection was dropped; the next attempt opens the disk again.",
        offset=offset,
    )


def pack_option(option: int, data: bytes = b"") -> bytes:
    return OPTION.pack(IHAVEOPT, option, len(data)) + data


def pack_go(export_name: bytes) -> bytes:
    data = struct.pack(">I", len(export_name)) + export_name
    return pack_option(OPT_GO, data + struct.pack(">HH", 1, INFO_BLOCK_SIZE))


def pack_meta_context(export_name: bytes, context: bytes) -> bytes:
    data = struct.pack(">I", len(export_name)) + export_name
    return pack_option(OPT_SET_META_CONTEXT, data + struct.pack(">II", 1, len(context)) + context)


def parse_export(name: str, data: bytes) -> tuple[int, int]:
    """(capacity in bytes, transmission flags)."""
    if len(data) != EXPORT.size:
        raise broken(name, f"described the disk in {len(data)} bytes")
    size, flags = EXPORT.unpack(data)
    if size > (1 << 63) - 1:
        raise broken(name, f"claims an impossible size of {size} bytes")
    if not flags & FLAG_HAS_FLAGS:
        raise broken(name, "sent no transmission flags")
    return size, flags


def parse_block_sizes(name: str, data: bytes) -> tuple[int, int]:
    """(smallest block, largest request), both in bytes and usable for 64 KiB blocks."""
    if len(data) != BLOCK_SIZES.size:
        raise broken(name, f"described its block sizes in {len(data)} bytes")
    smallest, preferred, largest = BLOCK_SIZES.unpack(data)
    if smallest == 0 or smallest & (smallest - 1) or smallest > 64 * 1024:
        raise broken(name, f"asks for blocks of {smallest} bytes, which cannot be used here")
    if preferred < smallest or largest < preferred or largest < 64 * 1024:
        raise broken(name, f"offers block sizes {smallest}/{preferred}/{largest} that do not fit")
    return smallest, min(largest, MAX_REQUEST_BYTES)


def parse_status(name: str, data: bytes, context: int, asked: Extent) -> tuple[Extent, ...]:
    """The parts of `asked` that read as zeroes, from one BLOCK_STATUS chunk's payload."""
    if len(data) < 4 + STATUS_EXTENT.size or (len(data) - 4) % STATUS_EXTENT.size:
        raise broken(name, f"sent a block status of {len(data)} bytes", asked.offset)
    if int.from_bytes(data[:4], "big") != context:
        raise broken(name, "sent a block status nobody asked for", asked.offset)
    zeroes: list[Extent] = []
    at = asked.offset
    for length, state in STATUS_EXTENT.iter_unpack(data[4:]):
        # Without progress the list could be endless; beyond the request only the last may reach.
        if length == 0 or at >= asked.end:
            raise broken(name, "sent a block status that does not fit its request", asked.offset)
        end = min(at + length, asked.end)
        if state & STATE_ZERO:
            zeroes.append(Extent(at, end - at))
        at += length
    return tuple(zeroes)
