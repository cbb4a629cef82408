from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failback.disks.compare import differing, equal, is_zero
from tests.helpers.disks import changed, content

BLOCK = 1024


@given(st.integers(0, 9 * BLOCK), st.integers(), st.floats(0, 1))
def test_runs_are_exactly_the_differing_blocks(size: int, seed: int, share: float) -> None:
    rng = random.Random(seed)
    source = bytearray(rng.randbytes(size))
    target = bytearray(source)
    for start in range(0, size, BLOCK):
        if rng.random() < share:
            target[rng.randrange(start, min(start + BLOCK, size))] ^= 0x40
        if rng.random() < 0.3:
            source[start : start + BLOCK] = bytes(len(source[start : start + BLOCK]))

    runs = list(differing(memoryview(source), memoryview(target), BLOCK))

    told: dict[int, bool] = {}
    for offset, length, zero in runs:
        assert offset % BLOCK == 0
        for at in range(offset, offset + length, BLOCK):
            assert at not in told
            told[at] = zero
        assert (offset + length) % BLOCK == 0 or offset + length == size
    for start in range(0, size, BLOCK):
        block = source[start : start + BLOCK]
        assert (start in told) == (block != target[start : start + BLOCK])
        if start in told:
            assert told[start] == (not any(block))
    for (left, length, zero), (right, _, other) in itertools.pairwise(runs):
        assert left + length < right or zero != other


def test_equal_large_buffers_have_no_runs_and_a_changed_last_byte_has_one() -> None:
    source = bytearray(content(random.Random(1), 1_000_001))
    target = bytearray(source)
    assert list(differing(memoryview(source), memoryview(target))) == []

    target[-1] ^= 1

    ((offset, length, _),) = differing(memoryview(source), memoryview(target))
    assert (offset, offset + length) == (983_040, 1_000_001)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 200_000])
def test_zero_is_seen_in_buffers_of_any_length(size: int) -> None:
    buffer = bytearray(size)
    assert is_zero(memoryview(buffer))
    if size:
        buffer[-1] = 1
        assert not is_zero(memoryview(buffer))


def test_buffers_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        equal(memoryview(bytearray(1)), memoryview(bytearray(2)))


def test_changed_contents_differ() -> None:
    rng = random.Random(3)
    original = content(rng, 500_000)
    assert changed(rng, original) != original
