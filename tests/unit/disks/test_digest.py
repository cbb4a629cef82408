from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failback.disks.digest import VerifyOptions, VerifyOutcome, verify
from failback.disks.faults import Op
from failback.disks.plan import BLOCK_BYTES, Extent, intersect, merge, total_bytes
from failback.disks.testing import Fault, MemoryDisk, MemoryVolume
from failback.errors import DiskReadFailed, DiskSizeMismatch, Stopped
from tests.helpers.disks import content, no_check, no_report

B = BLOCK_BYTES
SIZE = 40 * B + 77


def run(source: MemoryDisk, target: MemoryDisk, *written: Extent, **changes: Any) -> VerifyOutcome:
    arguments: dict[str, Any] = {
        "check": no_check,
        "report": no_report,
        "segment_bytes": 2 * B,
        "random": random.Random(1),
        "options": VerifyOptions(window=3, request_bytes=B),
        **changes,
    }
    return verify(source, target, written, **arguments)


def disks(seed: int = 1, *differ_at: int) -> tuple[MemoryDisk, MemoryDisk]:
    rng = random.Random(seed)
    original = content(rng, SIZE)
    other = bytearray(original)
    for offset in differ_at:
        other[offset] ^= 1
    return (
        MemoryDisk(MemoryVolume(original), "source", rng=rng),
        MemoryDisk(MemoryVolume(bytes(other)), "target", rng=rng),
    )


def read_of(disk: MemoryDisk) -> tuple[Extent, ...]:
    return merge(Extent(offset, length) for op, offset, length in disk.done if op is Op.READ)


def test_the_whole_disk_is_read_when_asked() -> None:
    source, target = disks()

    outcome = run(source, target, whole_disk=True)

    assert (outcome.equal, outcome.checked_bytes) == (True, SIZE)
    assert outcome.first_difference_offset is None
    assert len(outcome.root_hex) == 64
    assert read_of(source) == read_of(target) == (Extent(0, SIZE),)


@settings(deadline=None)
@given(st.integers(), st.integers(0, SIZE - 1))
def test_a_difference_is_found_at_its_block(seed: int, at: int) -> None:
    outcome = run(*disks(seed, at), whole_disk=True)

    assert outcome == VerifyOutcome(
        False, outcome.checked_bytes, "", first_difference_offset=at // B * B
    )


def test_the_first_of_two_differences_is_told_whatever_arrives_first() -> None:
    assert run(*disks(4, 30 * B, 7 * B), whole_disk=True).first_difference_offset == 7 * B


def test_written_extents_are_always_read_and_samples_come_from_the_rest() -> None:
    written = (Extent(5 * B, B), Extent(9 * B + 100, 5), Extent(SIZE - 7, 7))
    source, target = disks()

    outcome = run(source, target, *written, sample_fraction=0.2, min_samples=2)

    assert outcome.equal
    read = read_of(source)
    assert intersect(read, written) == written
    sampled = total_bytes(read) - 2 * B - 77
    assert 3 * B <= sampled <= 4 * 2 * B
    assert outcome.checked_bytes == total_bytes(read)


def test_small_disks_are_sampled_whole() -> None:
    assert run(*disks(), min_samples=64).checked_bytes == SIZE


def test_a_difference_outside_written_and_sample_is_not_looked_for() -> None:
    source, target = disks(1, 20 * B)

    outcome = run(source, target, Extent(0, B), sample_fraction=0.0, min_samples=0)

    assert (outcome.equal, outcome.checked_bytes) == (True, B)


def test_samples_and_keys_differ_from_call_to_call() -> None:
    options: dict[str, Any] = {"random": None, "sample_fraction": 0.5, "min_samples": 0}
    roots, read = set(), set()
    for _ in range(5):
        source, target = disks()
        roots.add(run(source, target, **options).root_hex)
        read.add(read_of(source))

    assert len(roots) == 5
    assert len(read) > 1


def test_a_smaller_target_is_refused() -> None:
    with pytest.raises(DiskSizeMismatch):
        run(MemoryDisk(MemoryVolume(bytes(B))), MemoryDisk(MemoryVolume(bytes(B - 1))))


def test_unreadable_blocks_and_stops_end_the_verification() -> None:
    source, target = disks()
    target.faults.append(Fault(Op.READ, times=2, extent=Extent(3 * B, 1)))
    with pytest.raises(DiskReadFailed):
        run(source, target, whole_disk=True)

    def check() -> None:
        raise Stopped("enough")

    with pytest.raises(Stopped):
        run(*disks(), check=check)


def test_progress_is_told() -> None:
    reports: list[int] = []

    run(
        *disks(),
        whole_disk=True,
        report=lambda progress: reports.append(progress.examined_bytes),
        options=VerifyOptions(window=2, request_bytes=B, report_interval_s=0),
        clock=time.monotonic,
    )

    assert reports == sorted(reports)
    assert reports[-1] == SIZE
