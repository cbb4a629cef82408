"""Frames between two movers: packed, and refused where no correct mover would send them.

A frame is a length (4 bytes), a kind (1), a number (4) and the payload; all integers big-endian.
The target's mover asks, with numbers of its own choice; an answer carries the number of its
question. Answers come in any order.

asks     HELLO    {"version", "key", "disk", "capacity_bytes"} as JSON, once and first
         DIGEST   extents (offset 8, length 8)*: digest these whole blocks of 64 KiB
         LEAVES   the digests of the blocks of an earlier DIGEST, whose number it carries
         FORGET   they are not needed
         READ     offset 8, length 4
answers  WELCOME  {"capacity_bytes"} as JSON
         ROOT     32 bytes
         LIST     16 bytes for each block; all zero where the block is
         DATA     packing 1, bytes; none for zeroes
         FAILED   {"type", "what", "remedy", "evidence"} as JSON; the connection ends
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from failback.disks.plan import BLOCK_BYTES, Extent
from failback.errors import (
    DiskHasParent,
    DiskReadFailed,
    DiskSizeMismatch,
    DiskUnavailable,
    FailbackError,
    SettingsInvalid,
    TransferStalled,
)

VERSION = 1
HEAD = struct.Struct(">IBI")
RANGE = struct.Struct(">QI")
EXTENT = struct.Struct(">QQ")
KEY_BYTES, ROOT_BYTES, LEAF_BYTES = 32, 32, 16

MAX_READ_BYTES = 1024 * 1024
MAX_PAYLOAD_BYTES = MAX_READ_BYTES + 1
"""Holds a read, and the list of a segment of 1 GiB (256 KiB)."""

MAX_JSON_BYTES = 16 * 1024
MAX_DIGEST_BLOCKS = 16384
"""A segment of 1 GiB."""

MAX_OPEN_DIGESTS = 64


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    DIGEST = 2
    LEAVES = 3
    FORGET = 4
    READ = 5
    WELCOME = 16
    ROOT = 17
    LIST = 18
    DATA = 19
    FAILED = 20


class Packing(IntEnum):
    """How the bytes of a DATA frame are to be understood."""

    RAW = 0
    ZSTD = 1
    ZEROES = 2


def broken(name: str, what: str, offset: int | None = None) -> DiskUnavailable:
    """The error for a peer that breaks the protocol; `what` continues "The mover of X ..."."""
    return DiskUnavailable(
        f"The mover of {name} {what}.",
        "The connection was dropped; the next attempt connects again.",
        offset=offset,
    )


def parse_head(name: str, data: bytes) -> tuple[int, Kind, int]:
    """(payload's length, kind, number) of a frame."""
    length, kind, number = HEAD.unpack(data)
    if length > MAX_PAYLOAD_BYTES:
        raise broken(name, f"sent a frame of {length} bytes")
    try:
        return length, Kind(kind), number
    except ValueError:
        raise broken(name, f"sent a frame of the unknown kind {kind}") from None


def pack_json(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()


def parse_json(name: str, data: bytes | memoryview) -> dict[str, Any]:
    """A JSON object of bounded size."""
    if len(data) <= MAX_JSON_BYTES:
        try:
            values = json.loads(bytes(data))
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            return values
    raise broken(name, "sent something else than a small JSON object")


def parse_hello(name: str, data: bytes | memoryview) -> tuple[bytes, str, int | None]:
    """(key, disk, capacity in bytes that it must have or None) of a HELLO."""
    values = parse_json(name, data)
    if values.get("version") != VERSION:
        raise DiskUnavailable(
            f"The two movers speak different versions of their protocol (here {VERSION}).",
            "Install the same release on both sites.",
        )
    key, disk, capacity = (values.get(one) for one in ("key", "disk", "capacity_bytes"))
    if (
        not isinstance(key, str)
        or re.fullmatch(r"[0-9a-f]{64}", key) is None
        or not isinstance(disk, str)
        or type(capacity) not in (int, type(None))
    ):
        raise broken(name, "introduced itself in a wrong way")
    return bytes.fromhex(key), disk, capacity


def pack_extents(extents: Iterable[Extent]) -> bytes:
    return b"".join(EXTENT.pack(extent.offset, extent.length) for extent in extents)


def parse_extents(name: str, data: bytes | memoryview, capacity_bytes: int) -> tuple[Extent, ...]:
    """Whole blocks in ascending order; only the disk's last block may be a short one."""
    if not data or len(data) % EXTENT.size:
        raise broken(name, f"asked for digests with {len(data)} bytes")
    extents, at, blocks = [], 0, 0
    for offset, length in EXTENT.iter_unpack(data):
        end = offset + length
        whole = end % BLOCK_BYTES == 0 or end == capacity_bytes
        if not length or offset < at or offset % BLOCK_BYTES or end > capacity_bytes or not whole:
            raise broken(name, "asked for digests of what are no blocks of the disk", offset)
        blocks += -(-length // BLOCK_BYTES)
        at = end
        extents.append(Extent(offset, length))
    if blocks > MAX_DIGEST_BLOCKS:
        raise broken(name, f"asked for {blocks} digests at once")
    return tuple(extents)


def parse_range(name: str, data: bytes | memoryview, capacity_bytes: int) -> Extent:
    """What a READ asks for."""
    if len(data) != RANGE.size:
        raise broken(name, f"asked for data with {len(data)} bytes")
    offset, length = RANGE.unpack(data)
    if not 0 < length <= MAX_READ_BYTES or offset + length > capacity_bytes:
        raise broken(name, f"asked for {length} bytes of the disk at {offset}", offset)
    return Extent(offset, length)


_CROSSING: dict[str, type[FailbackError]] = {
    kind.__name__: kind
    for kind in (
        DiskHasParent,
        DiskReadFailed,
        DiskSizeMismatch,
        DiskUnavailable,
        SettingsInvalid,
        TransferStalled,
    )
}


def pack_failure(error: FailbackError) -> bytes:
    """An error as the peer will raise it, if it is one about the disk; shortened."""
    return pack_json(
        {
            "type": error.type,
            "what": error.what[:2000],
            "remedy": error.remedy[:1000],
            "offset": error.evidence.get("offset"),
        }
    )


def parse_failure(name: str, data: bytes | memoryview) -> FailbackError:
    """The error that the peer ended with: one of ours, whatever it claims to be."""
    values = parse_json(name, data)
    kind = _CROSSING.get(str(values.get("type")), DiskUnavailable)
    offset = values.get("offset")
    what = str(values.get("what", ""))[:2000]
    return kind(
        f"The mover of {name} says: {what or 'nothing'}",
        str(values.get("remedy", ""))[:1000],
        offset=offset if type(offset) is int else None,
    )
