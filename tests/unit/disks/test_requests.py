"""What counts as a stall of the disk, and what is only our own clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from failback.disks.requests import Requests
from failback.disks.testing import MemoryDisk, MemoryVolume
from failback.errors import TransferStalled

HOUR_S = 3600.0


def ticking(step_s: float, jumps: Iterator[float]) -> Callable[[], float]:
    """A clock that moves `step_s` per look, and by the next jump besides."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += step_s + next(jumps)
        return now

    return clock


def asked(disk: MemoryDisk, clock: Callable[[], float], stall_timeout_s: float) -> Requests:
    requests = Requests(
        disk,
        check=lambda: None,
        clock=clock,
        stall_timeout_s=stall_timeout_s,
        check_interval_s=0.001,
    )
    requests.read(disk, 0, memoryview(bytearray(512)), lambda answer: None)
    return requests


def turn(requests: Requests, times: int) -> None:
    for _ in range(times):
        requests.turn(0)


def silent_disk() -> MemoryDisk:
    return MemoryDisk(MemoryVolume(b"x" * 512), before=lambda *_: True)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_jump_of_the_clock_is_no_stall(jump_s: float) -> None:
    jumps = itertools.chain([0.0] * 4, [jump_s], itertools.repeat(0.0))
    requests = asked(silent_disk(), ticking(0.0, jumps), stall_timeout_s=30)

    turn(requests, 20)

    assert requests.open == 1


def test_silence_after_a_jump_is_still_a_stall() -> None:
    jumps = itertools.chain([0.0] * 4, [HOUR_S], itertools.repeat(0.0))
    requests = asked(silent_disk(), ticking(0.5, jumps), stall_timeout_s=30)

    with pytest.raises(TransferStalled, match=r"did not answer a read at offset 0 for 3[01] s"):
        turn(requests, 100)


def test_time_without_an_open_request_does_not_count() -> None:
    answered: list[object] = []
    disk = MemoryDisk(MemoryVolume(b"x" * 512))
    requests = asked(disk, ticking(0.5, itertools.repeat(0.0)), stall_timeout_s=30)

    turn(requests, 100)
    requests.read(disk, 0, memoryview(bytearray(512)), answered.append)
    requests.turn(0)

    assert len(answered) == 1
