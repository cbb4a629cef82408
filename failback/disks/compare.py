"""Compares and inspects buffers at memory speed.

memcmp through ctypes: about 5 GB/s on one core and without the interpreter lock. Comparing two
memoryviews in Python reads the same bytes at 0.2 GB/s.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

from failback.disks.plan import BLOCK_BYTES

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int

# Written once, so it has pages of its own: a fresh mapping would be the kernel's one zero page.
_zeroes = ctypes.create_string_buffer(BLOCK_BYTES)
ctypes.memset(_zeroes, 0, BLOCK_BYTES)

GROUP_BLOCKS = 4

Run = tuple[int, int, bool]
"""(offset, length, the source is zero) inside a buffer."""


def address(view: memoryview) -> int:
    """Where a writable, contiguous buffer begins. Valid while the caller holds the buffer."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def equal(left: memoryview, right: memoryview) -> bool:
    """True if both writable buffers hold the same bytes; raises ValueError if lengths differ."""
    if left.nbytes != right.nbytes:
        raise ValueError(f"buffers of {left.nbytes} and {right.nbytes} bytes cannot be compared")
    return left.nbytes == 0 or _memcmp(address(left), address(right), left.nbytes) == 0


def is_zero(view: memoryview) -> bool:
    """True if a writable buffer of any length holds only zeroes."""
    return view.nbytes == 0 or _is_zero(address(view), view.nbytes)


def differing(
    source: memoryview, target: memoryview, block_bytes: int = BLOCK_BYTES
) -> Iterator[Run]:
    """Runs of blocks that differ.

    Neighbouring blocks are joined as long as they agree in being zero. Blocks are counted from the
    start of the buffers; the last one may be short. Both buffers are writable and equally long."""
    if source.nbytes != target.nbytes:
        raise ValueError(f"buffers of {source.nbytes} and {target.nbytes} bytes cannot be compared")
    if source.nbytes == 0:
        return iter(())
    ours, theirs = address(source), address(target)
    # Groups first: few of them differ, and few calls find out which.
    return _joined(
        (start, length, _is_zero(ours + start, length))
        for first, size in _pieces(0, source.nbytes, GROUP_BLOCKS * block_bytes)
        if _memcmp(ours + first, theirs + first, size) != 0
        for start, length in _pieces(first, first + size, block_bytes)
        if _memcmp(ours + start, theirs + start, length) != 0
    )


def occupied(view: memoryview, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    """Runs of blocks that are not zero, as (offset, length)."""
    return ((start, length) for start, length, zero in contents(view, block_bytes) if not zero)


def contents(view: memoryview, block_bytes: int = BLOCK_BYTES) -> Iterator[Run]:
    """All blocks, as runs that are zero and runs that are not."""
    begin = address(view) if view.nbytes else 0
    return _joined(
        (start, length, _is_zero(begin + start, length))
        for start, length in _pieces(0, view.nbytes, block_bytes)
    )


def _pieces(begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(begin, end, size):
        yield start, min(size, end - start)


def _is_zero(begin: int, length: int) -> bool:
    return all(
        _memcmp(begin + done, _zeroes, min(BLOCK_BYTES, length - done)) == 0
        for done in range(0, length, BLOCK_BYTES)
    )


def _joined(blocks: Iterable[Run]) -> Iterator[Run]:
    run_start, run_length, run_zero = 0, 0, False
    for start, length, zero in blocks:
        if run_length and run_start + run_length == start and zero == run_zero:
            run_length += length
            continue
        if run_length:
            yield run_start, run_length, run_zero
        run_start, run_length, run_zero = start, length, zero
    if run_length:
        yield run_start, run_length, run_zero
