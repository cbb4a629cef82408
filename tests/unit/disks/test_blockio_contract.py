"""What the copier relies on, held by the real connection and by the double alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from failback.disks.blockio import Answer, BlockIO, Waiter
from failback.disks.fence import Fence
from failback.disks.file import FileDisk
from failback.disks.hosts import RESERVE_BYTES, HostBudget, HostLimits, LimitedDisk
from failback.disks.opening import open_disk, open_local
from failback.disks.plan import BLOCK_BYTES, Extent, merge
from failback.disks.testing import MemoryDisk, MemoryVolume
from failback.errors import DiskUnavailable
from tests.helpers.disks import no_check

SIZE = 5 * BLOCK_BYTES + 321
Open = Callable[[bytes], BlockIO]


@pytest.fixture(params=["memory", "shuffled", "nbd", "file", "local", "limited"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_it(content: bytes) -> BlockIO:
            if request.param == "limited":
                share = HostBudget(HostLimits(RESERVE_BYTES, 1)).enter()
                assert share is not None
                return LimitedDisk(MemoryDisk(MemoryVolume(content)), share)
            if request.param in ("memory", "shuffled"):
                rng = random.Random(7) if request.param == "shuffled" else None
                return MemoryDisk(MemoryVolume(content), rng=rng)
            path = tmp_path / "disk.img"
            path.write_bytes(content)
            if request.param == "file":
                return stack.enter_context(closing(FileDisk(path, writable=True)))
            fence = Fence(tmp_path, "disk")
            opener = open_local if request.param == "local" else open_disk
            disk, _ = stack.enter_context(opener(path, writable=True, fence=fence, check=no_check))
            return disk

        yield open_it


def answers_of(disk: BlockIO, count: int) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    for _ in range(1000):
        found.update({answer.tag: answer for answer in disk.poll(0.1)})
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} of {count} answers came")


def read(disk: BlockIO, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    disk.submit_read(99, offset, memoryview(buffer))
    assert answers_of(disk, 1)[99].errno == 0
    return bytes(buffer)


def test_capacity_is_the_disk_s_to_the_byte(opened: Open) -> None:
    disk = opened(bytes(SIZE))
    assert disk.capacity_bytes == SIZE
    assert disk.max_request_bytes >= BLOCK_BYTES


def test_what_was_written_and_zeroed_is_read_back_also_at_the_odd_end(opened: Open) -> None:
    content = random.Random(1).randbytes(SIZE)
    disk = opened(content)
    new = memoryview(bytearray(b"n" * 321))

    disk.submit_write(1, SIZE - 321, new)
    disk.submit_zero(2, BLOCK_BYTES, 2 * BLOCK_BYTES)
    assert {a.errno for a in answers_of(disk, 2).values()} == {0}
    disk.submit_flush(3)
    assert answers_of(disk, 1)[3] == Answer(3)

    expected = bytearray(content)
    expected[SIZE - 321 :] = new
    expected[BLOCK_BYTES : 3 * BLOCK_BYTES] = bytes(2 * BLOCK_BYTES)
    assert read(disk, 0, SIZE) == expected


def test_many_requests_under_way_are_all_answered_once(opened: Open) -> None:
    content = random.Random(2).randbytes(SIZE)
    disk = opened(content)
    places = [random.Random(tag).randrange(SIZE - 500) for tag in range(200)]
    buffers = [bytearray(500) for _ in places]

    for tag, (place, buffer) in enumerate(zip(places, buffers, strict=True)):
        disk.submit_read(tag, place, memoryview(buffer))
    found = answers_of(disk, 200)

    assert all(answer.errno == 0 for answer in found.values())
    assert disk.poll(0) == []
    for place, buffer in zip(places, buffers, strict=True):
        assert buffer == content[place : place + 500]


def test_a_map_never_calls_data_zero(opened: Open) -> None:
    disk = opened(bytes(2 * BLOCK_BYTES) + b"d" * BLOCK_BYTES + bytes(SIZE - 3 * BLOCK_BYTES))
    assert disk.maps_zeroes
    disk.submit_zero(1, 0, BLOCK_BYTES)
    answers_of(disk, 1)

    disk.submit_map(2, 0, SIZE)

    zeroes = answers_of(disk, 1)[2].zeroes
    assert zeroes == merge(zeroes)
    assert Extent(0, BLOCK_BYTES) in [Extent(z.offset, min(z.length, BLOCK_BYTES)) for z in zeroes]
    for extent in zeroes:
        assert not any(read(disk, extent.offset, extent.length))


def test_requests_that_do_not_fit_are_refused_at_once(opened: Open) -> None:
    disk = opened(bytes(SIZE))
    submits: list[Callable[[], None]] = [
        lambda: disk.submit_read(1, SIZE, memoryview(bytearray(1))),
        lambda: disk.submit_read(1, -1, memoryview(bytearray(1))),
        lambda: disk.submit_write(1, SIZE - 1, memoryview(bytearray(2))),
        lambda: disk.submit_zero(1, 0, 0),
        lambda: disk.submit_map(1, 0, SIZE + 1),
    ]
    for submit in submits:
        with pytest.raises(ValueError, match="does not fit"):
            submit()


def test_an_answer_wakes_the_one_who_waits_for_several_disks(opened: Open) -> None:
    disk, silent = opened(bytes(SIZE)), MemoryDisk(MemoryVolume(b"x"), "silent")
    waiter = Waiter(silent, disk)
    assert waiter.poll(0.001) == []

    disk.submit_flush(5)

    assert waiter.poll(10) == [(disk, Answer(5))]


def test_a_closed_disk_answers_nothing_and_may_be_closed_again(opened: Open) -> None:
    disk = opened(bytes(SIZE))
    disk.submit_read(1, 0, memoryview(bytearray(9)))
    disk.close()
    disk.close()
    with pytest.raises(DiskUnavailable):
        disk.submit_flush(1)
