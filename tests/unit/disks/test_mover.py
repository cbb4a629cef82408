"""Whole movers against real exporters: killed, frozen, failing disks, power cuts."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from failback.disks.blockio import Answer, BlockIO
from failback.disks.copier import CopyOptions
from failback.disks.exporter import NbdkitCommand
from failback.disks.fence import prove_dead
from failback.disks.progress import CopyProgress
from failback.disks.throttle import Throttle
from failback.errors import (
    DiskError,
    DiskFull,
    DiskReadOnly,
    DiskUnavailable,
    DiskWriteFailed,
    ExporterAlive,
)
from tests.helpers.disks import (
    KIB,
    MIB,
    QUICK,
    Site,
    alive,
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
    return Site(tmp_path, SIZE)


def test_a_mover_makes_the_target_equal_and_leaves_nothing_running(site: Site) -> None:
    original = site.fill(random.Random(1))

    progress = site.run()

    assert site.target.read_bytes() == original
    assert finished_count(site.ledger_path) == SEGMENTS
    assert progress.remaining_bytes == 0
    assert site.fence().is_free()


def wait_for_segments(site: Site, goal: int, process: subprocess.Popen[bytes]) -> None:
    eventually(
        lambda: finished_count(site.ledger_path) >= goal or process.poll() is not None,
    )


def dead(pid: int | None) -> bool:
    return not alive(pid)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_movers_killed_at_random_points_end_in_equality(site: Site, seed: int) -> None:
    rng = random.Random(seed)
    original = site.fill(rng)
    kills = 0
    while kills < 3 and finished_count(site.ledger_path) < SEGMENTS - 3:
        goal = finished_count(site.ledger_path) + rng.randint(1, 3)
        with mover(site, lease_s=30, bytes_s=6 * MIB) as process:
            wait_for_segments(site, goal, process)
            process.kill()
        pid = exporter_pid(site.fence())
        eventually(partial(dead, pid), 5)
        kills += 1
    assert kills > 1
    done = finished_count(site.ledger_path)

    progress = site.run()

    assert site.target.read_bytes() == original
    assert progress.resumed_bytes == done * 256 * KIB


@pytest.mark.parametrize("takeover", ["after the lease", "before the lease"])
def test_a_frozen_mover_is_replaced_and_changes_nothing_when_it_wakes(
    site: Site, takeover: str
) -> None:
    original = site.fill(random.Random(4))
    lease_s = 0.7 if takeover == "after the lease" else 60
    with mover(site, lease_s=lease_s, bytes_s=2 * MIB) as first:
        eventually(lambda: finished_count(site.ledger_path) >= 2)
        first.send_signal(signal.SIGSTOP)
        pid = exporter_pid(site.fence())
        if takeover == "after the lease":
            eventually(lambda: not alive(pid), 5)
            eventually(site.fence().is_free, 5)  # a frozen mover holds no lock

        site.run(owner="second")
        assert site.target.read_bytes() == original
        # Whatever the first one still writes would show: every byte differs from the source's.
        site.target.write_bytes(bytes(0xFF ^ byte for byte in original))
        before = site.target.read_bytes()
        first.send_signal(signal.SIGCONT)

        assert first.wait(20) == 3
    assert site.target.read_bytes() == before
    assert site.fence().is_free()


def test_an_exporter_killed_in_the_middle_is_started_again_by_the_next_attempt(site: Site) -> None:
    original = site.fill(random.Random(5))

    def kill_it(progress: CopyProgress) -> None:
        if MIB < progress.examined_bytes < SIZE:
            kill_exporter(site)

    with pytest.raises(DiskUnavailable, match="ended with status -9"):
        site.run(report=kill_it, options=slow())
    site.run()

    assert site.target.read_bytes() == original


def kill_exporter(site: Site) -> None:
    pid = exporter_pid(site.fence())
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):  # reports may come twice before it is noticed
        os.kill(pid, signal.SIGKILL)


def slow() -> CopyOptions:
    """Slow enough that a report comes before the end."""
    return replace(QUICK, throttle=Throttle(8 * MIB, clock=time.monotonic, burst_s=0.02))


def error_filter(code: str) -> NbdkitCommand:
    return NbdkitCommand(
        filters=["error"], parameters=[f"error-pwrite={code}", "error-pwrite-rate=100%"]
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (error_filter("ENOSPC"), DiskFull),
        (error_filter("EIO"), DiskWriteFailed),
        (
            NbdkitCommand(
                filters=["nozero", "protect"], parameters=[f"protect={MIB}-{2 * MIB - 1}"]
            ),
            DiskReadOnly,
        ),
    ],
)
def test_errors_of_a_real_exporter_are_typed(
    site: Site, command: NbdkitCommand, expected: type[DiskError]
) -> None:
    original = site.fill(random.Random(6))

    with pytest.raises(expected) as caught:
        site.run(command=command)
    assert isinstance(caught.value.evidence["offset"], int)

    site.run()
    assert site.target.read_bytes() == original


def test_write_errors_that_go_away_cost_only_an_attempt(site: Site) -> None:
    original = site.fill(random.Random(7))
    trigger = site.root / "trigger"
    trigger.touch()
    failing = NbdkitCommand(
        filters=["error"], parameters=["error=EIO", "error-rate=100%", f"error-file={trigger}"]
    )
    with pytest.raises(DiskError):
        site.run(command=failing)

    trigger.unlink()
    site.run(command=failing)

    assert site.target.read_bytes() == original


@pytest.mark.parametrize("filters", [["noextents"], ["nozero"], ["noextents", "nozero"]])
def test_exporters_without_extents_or_zeroing_serve_too(site: Site, filters: list[str]) -> None:
    original = site.fill(random.Random(8))

    site.run(command=NbdkitCommand(filters=filters))

    assert site.target.read_bytes() == original


def test_block_size_limits_of_an_exporter_hold(tmp_path: Path) -> None:
    site = Site(tmp_path, 4 * MIB + 512)
    original = site.fill(random.Random(9))

    site.run(
        command=NbdkitCommand(
            filters=["blocksize-policy"],
            parameters=[
                "blocksize-minimum=512",
                "blocksize-preferred=65536",
                "blocksize-maximum=65536",
                "blocksize-error-policy=error",
            ],
        )
    )

    assert site.target.read_bytes() == original


class NeverFlushes:
    """Passes everything on but flushes: the order that a careless mover would have."""

    def __init__(self, disk: BlockIO) -> None:
        self._disk = disk
        self._lies: list[Answer] = []
        self._wake: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> object:
        return getattr(self._disk, name)

    def submit_flush(self, tag: int) -> None:
        self._lies.append(Answer(tag))
        self._wake()

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._disk.on_answer(wake)

    def poll(self, timeout_s: float) -> list[Answer]:
        lies, self._lies = self._lies, []
        return lies + self._disk.poll(timeout_s)


@pytest.mark.parametrize("flushes", [True, False])
def test_a_power_cut_of_a_disk_with_a_volatile_cache(site: Site, flushes: bool) -> None:
    """The exporter's cache filter is such a disk; killing it is the power cut."""
    original = site.fill(random.Random(10))
    cached = NbdkitCommand(filters=["cache"], parameters=["cache=writeback"])

    def cut_power(progress: CopyProgress) -> None:
        if 5 < finished_count(site.ledger_path) < SEGMENTS:
            kill_exporter(site)

    def wrap(disk: BlockIO) -> BlockIO:
        return disk if flushes else NeverFlushes(disk)  # type: ignore[return-value]

    with pytest.raises(DiskUnavailable):
        site.run(command=cached, wrap=wrap, report=cut_power, options=slow())
    assert finished_count(site.ledger_path) > 5
    site.run()

    assert (site.target.read_bytes() == original) is flushes


def test_a_second_mover_ends_the_first_one_s_exporter_or_says_that_it_lives(site: Site) -> None:
    site.fill(random.Random(11))
    with mover(site, lease_s=30, bytes_s=MIB) as first:
        eventually(lambda: finished_count(site.ledger_path) >= 1)
        try:
            prove_dead(site.fence("revert"), check=no_check, timeout_s=5)
        except ExporterAlive:
            pytest.fail("the exporter could have been killed")
        assert not alive(exporter_pid(site.fence()))
        assert first.wait(20) == 3
