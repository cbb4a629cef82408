"""Disks moved through the real vddk plugin: our command line, our client, a library of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from failback.disks.fence import Fence
from failback.disks.kinds import DatastoreAccess
from failback.disks.nbd import NbdDisk
from failback.disks.progress import CopyProgress
from failback.errors import DiskFlushFailed, DiskUnavailable, Stopped
from tests.helpers.disks import MIB, REPOSITORY, eventually, finished_count, no_check
from tests.vddk.fake import PASSWORD, FakeHost
from tests.vddk.scene import OPTIONS, SEGMENT, SIZE, SNAPSHOT, SOURCE, TARGET, Scene


@pytest.fixture
def scene(tmp_path: Path, host: FakeHost) -> Scene:
    return Scene(tmp_path, host)


@pytest.mark.parametrize("full", [False, True], ids=["compare", "full"])
def test_a_disk_is_moved_within_the_library_s_limits(scene: Scene, full: bool) -> None:
    original = scene.fill()

    progress = scene.run(replace(OPTIONS, full=full, request_bytes=8 * MIB))

    source, target = scene.files
    assert target.read_bytes() == original == source.read_bytes()
    assert progress.examined_bytes == SIZE
    host = scene.host
    assert host.count("violation|unexpected|failed") == 0
    lengths = [length for _, length, _ in host.requests()]
    assert 0 < max(lengths) <= 2 * MIB
    assert not [one for one in host.requests() if one[1] % 512 or one[2] % 512]
    # One connection for each disk, and one for no other; the source as the snapshot froze it.
    assert host.count("init ") == host.count("connect ") == host.count("opened ") == 2
    assert host.count(rf"connect vm=moref=vm-16 snapshot={SNAPSHOT} .* read-only=1") == 1
    assert host.count("connect vm=moref=vm-16 snapshot=- transports=nbdssl:nbd read-only=0") == 1
    assert host.count("flush") >= 1
    assert host.log().index("flush") > host.log().index("opened for writing")
    assert host.count("extents") >= 3, "holes are asked of QueryAllocatedBlocks"
    assert host.count("close") == host.count("disconnect") <= 2


def test_nothing_is_written_where_both_sides_are_equal(scene: Scene) -> None:
    scene.fill(share=0.0)

    assert scene.run().written_bytes == 0
    assert scene.host.count("begin write") == 0
    assert scene.host.count("flush") >= 1


@pytest.mark.parametrize("extents", [True, False])
def test_holes_are_read_only_where_the_library_knows_of_none(scene: Scene, extents: bool) -> None:
    scene.fill()
    os.truncate(scene.files[0], 0)
    os.truncate(scene.files[0], SIZE)
    scene.host.control(no_extents=int(not extents))

    scene.run()

    assert not any(scene.files[1].read_bytes())
    read = sum(length for kind, length, _ in scene.host.requests() if kind == "read")
    # The target is read in order to clear it, and the last block again before each flush.
    sides = 1 if extents else 2
    assert sides * SIZE <= read < sides * SIZE + SIZE // 2
    assert scene.host.count("violation") == 0


def test_large_zeroes_are_written_in_small_requests(scene: Scene) -> None:
    scene.fill()
    with scene.open(writable=True) as (disk, _):
        disk.submit_zero(1, 0, 2 * MIB)
        assert [answer.errno for answer in eventually(lambda: disk.poll(1))] == [0]
        with pytest.raises(ValueError, match="does not fit"):
            disk.submit_zero(2, 0, 4 * MIB)
    assert scene.host.count("violation") == 0
    assert scene.host.count("begin write") >= 1
    assert not any(scene.files[1].read_bytes()[: 2 * MIB])


def test_what_the_filter_lets_through_is_aligned(scene: Scene) -> None:
    """Our client never asks for such things; should it once, the library does not hear of it."""
    scene.fill()
    with scene.open(writable=True) as (disk, _):
        assert disk.max_request_bytes == 2 * MIB
        assert isinstance(disk, NbdDisk)
        disk._export = replace(disk._export, min_block_bytes=1)
        for tag, (offset, length) in enumerate([(1, 512), (512, 100), (0, 513)], 1):
            disk.submit_read(tag, offset, memoryview(bytearray(length)))
            assert [answer.errno for answer in eventually(lambda: disk.poll(1))] == [22]
    assert scene.host.count("begin") == 0


def test_the_password_is_nowhere_to_be_seen(scene: Scene) -> None:
    scene.fill()
    with scene.open(writable=True):
        pid = scene.host.pid()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        files = [path.resolve() for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert b"vddk" in command
    assert b"reexeced_" not in command, "so no temporary file has held the password"
    assert b"LD_LIBRARY_PATH=" in environment
    for seen in (command, environment):
        assert PASSWORD.encode() not in seen
    assert scene.host.site.password_file not in files


def test_a_read_that_fails_once_is_repeated_and_a_flush_never(scene: Scene) -> None:
    original = scene.fill()
    scene.host.control(fail_read=3, fail_write=2)
    scene.run()
    assert scene.files[1].read_bytes() == original
    assert scene.host.count("failed") == 3, "once on each exporter for reads, and one write"

    scene.ledger.unlink()
    scene.fill()
    scene.host.control(fail_flush=1)
    with pytest.raises(DiskFlushFailed):
        scene.run()
    assert finished_count(scene.ledger) == 0
    scene.host.control()
    scene.run()
    assert scene.files[1].read_bytes() == original


def test_a_killed_mover_is_continued_from_the_ledger(scene: Scene) -> None:
    original = scene.fill()
    scene.host.control(delay_ms=30)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.vddk.scene", str(scene.root)], cwd=REPOSITORY
    )
    try:
        eventually(lambda: finished_count(scene.ledger) >= 3, 60)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    done = finished_count(scene.ledger)
    segments = -(-SIZE // SEGMENT)
    assert 3 <= done < segments
    eventually(scene.fence.is_free, 60)

    scene.host.control()
    progress = scene.run()

    assert progress.resumed_bytes >= done * SEGMENT
    assert scene.files[1].read_bytes() == original
    assert scene.host.count("violation") == 0


def test_a_killed_exporter_is_told_and_continued(scene: Scene) -> None:
    original = scene.fill()
    killed: list[int] = []

    def report(_: CopyProgress) -> None:
        if not killed and finished_count(scene.ledger) >= 2:
            killed.append(scene.host.pid())
            os.kill(killed[0], signal.SIGKILL)

    scene.host.control(delay_ms=20)
    with pytest.raises(DiskUnavailable, match="exporter"):
        scene.run(report=report)
    scene.host.control()
    assert scene.run().resumed_bytes >= 2 * SEGMENT
    assert scene.files[1].read_bytes() == original


def test_a_slow_opening_keeps_its_lease_and_can_be_stopped(scene: Scene) -> None:
    scene.fill()
    scene.host.control(open_delay_ms=1500)
    access = DatastoreAccess(kind="vddk", vddk=scene.host.site)
    asked: list[int] = []

    def attempt(check: Callable[[], None]) -> None:
        with access.open(
            SOURCE,
            vm="vm-16",
            snapshot=SNAPSHOT,
            writable=False,
            fence=None,
            check=check,
            name="disk",
            lease_s=0.9,
        ) as (disk, _):
            assert disk.capacity_bytes == SIZE

    attempt(lambda: asked.append(1))
    assert len(asked) > 3

    def stop() -> None:
        if scene.host.count("open ") == 2:
            raise Stopped("asked to", "")

    with pytest.raises(Stopped):
        attempt(stop)


def test_a_second_writer_of_a_disk_is_refused(scene: Scene) -> None:
    scene.fill()
    other = Fence(scene.root / "other", "disk", "test")
    access = DatastoreAccess(kind="vddk", vddk=scene.host.site)
    with (
        scene.open(writable=True),
        pytest.raises(DiskUnavailable, match=r"is locked"),
        access.open(
            TARGET,
            vm="vm-16",
            snapshot=None,
            writable=True,
            fence=other,
            check=no_check,
            name="disk",
            lease_s=10.0,
        ),
    ):
        pass
