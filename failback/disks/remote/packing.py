"""Decides for each block whether packing it brings it to the other site sooner."""

from __future__ import annotations

import time

import zstandard

from failback.disks.blockio import Clock
from failback.disks.compare import is_zero
from failback.disks.remote import wire
from failback.disks.remote.wire import Packing

LEVEL = 1
"""Higher levels gain a tenth of the size for half of the speed."""

SAMPLE_EVERY = 16
"""Blocks after which one is packed to see whether that pays by now: content changes along a disk,
links change along the day."""


class Packer:
    """Packs data with zstd while that pays.

    It pays while the time saved on the link is more than the time spent packing."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._zstd = zstandard.ZstdCompressor(level=LEVEL)
        self._count = 0
        self._share = 0.5
        """Moving average of what is left of a byte."""
        self._cost_s = 0.0
        """Moving average of the time to pack a byte."""

    def pack(self, data: memoryview, link_rate: float | None) -> tuple[Packing, bytes | memoryview]:
        """What to send of a writable buffer; `link_rate` in bytes per second, None: unknown."""
        if is_zero(data):
            return Packing.ZEROES, b""
        self._count += 1
        if self._count % SAMPLE_EVERY != 1 and not self._pays(link_rate):
            return Packing.RAW, data
        began = self._clock()
        packed = self._zstd.compress(data)
        cost_s = (self._clock() - began) / len(data)
        share = min(1.0, len(packed) / len(data))
        first = self._count == 1
        self._cost_s = cost_s if first else (3 * self._cost_s + cost_s) / 4
        self._share = share if first else (3 * self._share + share) / 4
        return (Packing.ZSTD, packed) if len(packed) < len(data) else (Packing.RAW, data)

    def _pays(self, link_rate: float | None) -> bool:
        if self._share > 0.95:
            return False
        return link_rate is None or self._cost_s < (1 - self._share) / link_rate


class Unpacker:
    """The other end: fills a buffer from a DATA frame's payload."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._zstd = zstandard.ZstdDecompressor()

    def unpack(self, payload: memoryview, into: memoryview, offset: int) -> None:
        """Raises DiskUnavailable for a payload that does not give exactly the bytes asked for."""
        packing, data = (payload[0] if payload else -1), payload[1:]
        if packing == Packing.RAW and len(data) == len(into):
            into[:] = data
        elif packing == Packing.ZEROES and not data:
            into[:] = bytes(len(into))
        elif packing == Packing.ZSTD:
            into[:] = self._decompress(data, len(into), offset)
        else:
            raise wire.broken(self._name, "sent data that does not fit the request", offset)

    def _decompress(self, data: memoryview, size: int, offset: int) -> bytes:
        try:
            # The size is claimed by the data itself: looked at before memory is given to it.
            if zstandard.frame_content_size(data) == size:
                unpacked = self._zstd.decompress(data, allow_extra_data=False)
                if len(unpacked) == size:
                    return unpacked
        except zstandard.ZstdError as error:
            raise wire.broken(self._name, f"sent damaged data ({error})", offset) from error
        raise wire.broken(self._name, "sent data that does not fit the request", offset)
