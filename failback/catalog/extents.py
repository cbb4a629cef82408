"""Extent lists as bytes: a few bytes an extent, so that a plan over a 64 TiB disk stays small.

First byte: the unit as a power of two (16 where everything is whole blocks). Then for each extent
the gap since the end of the one before, and its length, both in units, as unsigned LEB128.
"""

from __future__ import annotations

from collections.abc import Sequence

from failback.disks.plan import Extent

LARGEST_UNIT_BITS = 16


def encode(extents: Sequence[Extent]) -> bytes:
    """Code sorted, disjoint extents; ValueError for others."""
    bits = 0
    for extent in extents:
        bits |= extent.offset | extent.length
    shift = min((bits & -bits).bit_length() - 1, LARGEST_UNIT_BITS) if bits else LARGEST_UNIT_BITS
    coded, end = bytearray([shift]), 0
    for extent in extents:
        if extent.offset < end or extent.length < 0:
            raise ValueError(f"extents overlap or are not sorted at offset {extent.offset}")
        for number in ((extent.offset - end) >> shift, extent.length >> shift):
            while number > 0x7F:
                coded.append(number & 0x7F | 0x80)
                number >>= 7
            coded.append(number)
        end = extent.end
    return bytes(coded)


def decode(coded: bytes) -> tuple[Extent, ...]:
    """The extents that were coded."""
    shift, numbers, number, weight = coded[0], list[int](), 0, 0
    for byte in coded[1:]:
        number |= (byte & 0x7F) << weight
        weight += 7
        if byte < 0x80:
            numbers.append(number << shift)
            number, weight = 0, 0
    extents, end = list[Extent](), 0
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        extents.append(Extent(end + gap, length))
        end += gap + length
    return tuple(extents)
