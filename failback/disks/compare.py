"""Compares and inspects buffers at memory speed.

memcmp through ctypes: about 5 GB/s on one core and without the interpreter lock. Comparing two
memoryviews in Python reads the same bytes at 0.2 GB/s.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from failback.disks.plan import BLOCK_BYTES

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int

# Written once, so it has pages of its own: a fresh mapping would be the kernel's one zero page.
_zeroes = ctypes.create_string_buffer(BLOCK_BYTES)
ctypes.memset(_zeroes, 0, BLOCK_BYTES)


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
    if view.nbytes == 0:
        return True
    start = address(view)
    return all(
        _memcmp(start + done, _zeroes, min(BLOCK_BYTES, view.nbytes - done)) == 0
        for done in range(0, view.nbytes, BLOCK_BYTES)
    )


def differing(
    source: memoryview, target: memoryview, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, int, bool]]:
    """Runs of differing blocks, as (offset, length, source_is_zero) inside the buffers.

    Neighbouring blocks are joined as long as they agree in being zero. Blocks are counted from the
    start of the buffers; the last one may be short. Both buffers are writable and equally long."""
    if equal(source, target):
        return
    run_start, run_length, run_zero = 0, 0, False
    for start in range(0, source.nbytes, block_bytes):
        block = source[start : start + block_bytes]
        if equal(block, target[start : start + block_bytes]):
            continue
        zero = is_zero(block)
        if run_length and run_start + run_length == start and zero == run_zero:
            run_length += block.nbytes
            continue
        if run_length:
            yield run_start, run_length, run_zero
        run_start, run_length, run_zero = start, block.nbytes, zero
    if run_length:
        yield run_start, run_length, run_zero
