"""Disks that the mover reads itself: their writer is a process that can be killed."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from failback.disks.blockio import Answer, BlockIO
from failback.disks.claim import claim
from failback.disks.fence import prove_dead
from failback.disks.opening import open_local
from failback.disks.progress import CopyProgress
from failback.disks.throttle import Throttle
from failback.disks.together import LocalFile
from failback.errors import DiskReadOnly, DiskUnavailable, DiskWriteFailed
from tests.helpers.disks import (
    KIB,
    MIB,
    QUICK,
    Site,
    alive,
    content,
    eventually,
    exporter_pid,
    finished_count,
    mover,
    no_check,
)

SIZE = 4 * MIB + 1234
SEGMENTS = 17


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, SIZE, kind="file")


def dead(pid: int | None) -> bool:
    return not alive(pid)


def test_a_local_target_becomes_equal_and_nothing_is_left_running(site: Site) -> None:
    original = site.fill(random.Random(1))

    progress = site.run()

    assert site.target.read_bytes() == original
    assert finished_count(site.ledger_path) == SEGMENTS
    assert progress.remaining_bytes == 0
    assert site.fence().is_free()
    eventually(partial(dead, exporter_pid(site.fence())))


@pytest.mark.parametrize("seed", [1, 2])
def test_movers_killed_at_random_points_end_in_equality(site: Site, seed: int) -> None:
    rng = random.Random(seed)
    original = site.fill(rng)
    for _ in range(2):
        goal = finished_count(site.ledger_path) + rng.randint(1, 3)
        with mover(site, lease_s=30, bytes_s=6 * MIB) as process:
            eventually(partial(reached, site, goal, process.poll))
            process.kill()
        eventually(partial(dead, exporter_pid(site.fence())), 5)
    done = finished_count(site.ledger_path)
    assert 1 < done < SEGMENTS

    progress = site.run()

    assert site.target.read_bytes() == original
    assert progress.resumed_bytes == done * 256 * KIB


def reached(site: Site, goal: int, ended: object) -> bool:
    return finished_count(site.ledger_path) >= goal or (callable(ended) and ended() is not None)


def freeze(process: subprocess.Popen[bytes], site: Site) -> None:
    """Stop a mover, but not while it holds the lock of the test's own ledger: who comes next would
    wait for that one."""

    def stopped() -> bool:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with site.ledger_path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                process.send_signal(signal.SIGCONT)
                return False
        return True

    eventually(stopped)


@pytest.mark.parametrize("frozen", ["mover", "mover and writer"])
@pytest.mark.parametrize("takeover", ["after the lease", "before the lease"])
def test_a_frozen_mover_of_a_local_disk_writes_no_late_byte(
    site: Site, takeover: str, frozen: str
) -> None:
    original = site.fill(random.Random(4))
    lease_s = 0.7 if takeover == "after the lease" else 60
    with mover(site, lease_s=lease_s, bytes_s=2 * MIB) as first:
        eventually(lambda: finished_count(site.ledger_path) >= 2)
        pid = exporter_pid(site.fence())
        assert pid is not None
        freeze(first, site)
        if frozen == "mover and writer":
            os.kill(pid, signal.SIGSTOP)
        if takeover == "after the lease":
            eventually(partial(dead, pid), 5)
            eventually(site.fence().is_free, 5)  # a frozen mover holds no lock

        site.run(owner="second")
        assert dead(pid)
        assert site.target.read_bytes() == original
        # Whatever the first one still writes would show: every byte differs from the source's.
        site.target.write_bytes(bytes(0xFF ^ byte for byte in original))
        before = site.target.read_bytes()
        first.send_signal(signal.SIGCONT)

        assert first.wait(20) == 3
    assert site.target.read_bytes() == before
    assert site.fence().is_free()


def test_power_on_waits_for_the_writer_of_a_frozen_mover(site: Site) -> None:
    site.fill(random.Random(5))
    with mover(site, lease_s=60, bytes_s=2 * MIB) as first:
        eventually(lambda: finished_count(site.ledger_path) >= 1)
        freeze(first, site)
        pid = exporter_pid(site.fence())

        prove_dead(site.fence("whoever powers it on"), check=no_check)

        assert dead(pid)


def test_a_writer_that_is_killed_costs_an_attempt(site: Site) -> None:
    original = site.fill(random.Random(6))

    def kill_it(progress: CopyProgress) -> None:
        pid = exporter_pid(site.fence())
        if pid is not None and alive(pid) and MIB < progress.examined_bytes < SIZE:
            os.kill(pid, signal.SIGKILL)

    throttle = Throttle(8 * MIB, clock=time.monotonic, burst_s=0.02)
    slow = replace(QUICK, throttle=throttle)
    with pytest.raises(DiskUnavailable, match="ended with status -9"):
        site.run(report=kill_it, options=slow)
    site.run()

    assert site.target.read_bytes() == original


def test_a_target_that_shrinks_is_an_error_with_an_offset(site: Site) -> None:
    site.fill(random.Random(7))
    site.target.write_bytes(bytes(SIZE))

    class Shrinking:
        """The target, cut off before the first write reaches it."""

        def __init__(self, disk: BlockIO) -> None:
            self._disk = disk

        def __getattr__(self, name: str) -> object:
            return getattr(self._disk, name)

        def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
            os.truncate(site.target, MIB)
            self._disk.submit_write(tag, offset, data)

        def poll(self, timeout_s: float) -> list[Answer]:
            return self._disk.poll(timeout_s)

    with pytest.raises(DiskWriteFailed) as caught:
        site.run(wrap=Shrinking)  # type: ignore[arg-type]

    assert isinstance(caught.value.evidence["offset"], int)
    assert site.target.stat().st_size == MIB, "a write behind the end did not make it grow"


def test_a_target_that_others_have_open_is_refused(site: Site) -> None:
    site.fill(random.Random(8))
    held = claim(site.target, "", writable=False)

    with pytest.raises(DiskUnavailable, match="is in use by another program"):
        site.run()

    os.close(held)
    site.run()


def test_a_target_that_may_not_be_written_says_so(site: Site) -> None:
    site.fill(random.Random(9))
    site.target.chmod(0o400)
    if os.access(site.target, os.W_OK):
        pytest.skip("nothing is forbidden to this account")

    with pytest.raises((DiskReadOnly, DiskUnavailable), match="Permission denied"):
        site.run()


def test_one_request_of_every_kind(tmp_path: Path) -> None:
    site = Site(tmp_path, MIB, kind="file")
    site.target.write_bytes(content(random.Random(10), MIB, zero_share=0))
    with open_local(site.target, writable=True, fence=site.fence(), check=no_check) as (disk, _):
        data = bytearray(b"w" * (300 * KIB))
        disk.submit_write(1, 5, memoryview(data))
        disk.submit_zero(2, 400 * KIB, 128 * KIB)
        done = list[int]()
        while len(done) < 2:
            done += [answer.tag for answer in disk.poll(10)]
        disk.submit_flush(3)
        into = memoryview(bytearray(MIB))
        eventually(lambda: [answer.tag for answer in disk.poll(0.1)] == [3])
        disk.submit_read(4, 0, into)
        eventually(lambda: [answer.tag for answer in disk.poll(0.1)] == [4])
        disk.submit_map(5, 0, MIB)
        (mapped,) = eventually(lambda: disk.poll(0.1))

        assert isinstance(disk, LocalFile), "compared without a hand-over from thread to thread"
    expected = site.target.read_bytes()
    assert bytes(into) == expected
    assert expected[5 : 5 + len(data)] == data
    assert expected[400 * KIB : 528 * KIB] == bytes(128 * KIB)
    assert all(not any(expected[one.offset : one.end]) for one in mapped.zeroes)
