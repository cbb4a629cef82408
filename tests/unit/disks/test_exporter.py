"""Real exporters: opening, leases, fences and what the kernel does when somebody is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from failback.disks import supervisor
from failback.disks.blockio import BlockIO
from failback.disks.exporter import Exporter, NbdkitCommand, start_exporter
from failback.disks.fence import Fence, kill, prove_dead
from failback.disks.nbd import NbdDisk, connect
from failback.disks.opening import open_disk
from failback.disks.plan import BLOCK_BYTES
from failback.errors import (
    DiskFlushFailed,
    DiskReadOnly,
    DiskUnavailable,
    ExporterAlive,
    LeaseLost,
    SettingsInvalid,
    Stopped,
)
from tests.helpers.disks import (
    REPOSITORY,
    alive,
    eventually,
    exporter_pid,
    holder,
    no_check,
    supervisor_pid,
)

SIZE = 4 * BLOCK_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a disk = odd, name.img"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture
def fence(tmp_path: Path) -> Fence:
    return Fence(tmp_path / "state", "disk [1] / it's", "attempt 1")


@contextmanager
def exporter(path: Path, fence: Fence, *, lease_s: float = 20.0) -> Iterator[Exporter]:
    started = start_exporter(
        path,
        name="the disk",
        writable=True,
        fence=fence,
        lease_s=lease_s,
        check=no_check,
        command=NbdkitCommand(),
    )
    try:
        yield started
    finally:
        started.close()


def locked_by(fence: Fence, pid: int) -> bool:
    """Whether the process has the fence's lock file open."""
    lock = fence.lock_path.stat()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(f"/proc/{pid}/fd/{fd}")
            if (found.st_dev, found.st_ino) == (lock.st_dev, lock.st_ino):
                return True
    return False


def test_a_disk_is_open_inside_the_block_and_everything_is_dead_after_it(
    path: Path, fence: Fence
) -> None:
    with open_disk(path, writable=True, fence=fence, check=no_check) as (disk, renew):
        renew()
        pids = [supervisor_pid(fence), exporter_pid(fence)]
        assert all(alive(pid) for pid in pids)
        assert not fence.is_free()
        assert disk.capacity_bytes == SIZE

    assert not any(alive(pid) for pid in pids)
    assert fence.is_free()


def test_the_lock_is_kept_by_supervisor_and_exporter_and_not_by_the_mover(
    path: Path, fence: Fence
) -> None:
    with exporter(path, fence) as running:
        assert running.exporter_pid == exporter_pid(fence)
        assert running.exporter_pid is not None
        assert locked_by(fence, running.exporter_pid)
        assert locked_by(fence, running.supervisor_pid)
        assert not locked_by(fence, os.getpid())
        assert holder(fence)["owner"] == "attempt 1"
        assert fence.lock_path.parent.stat().st_mode & 0o77 == 0


def test_supervisor_and_exporter_have_a_session_of_their_own(path: Path, fence: Fence) -> None:
    with exporter(path, fence) as running:
        assert running.exporter_pid is not None
        assert os.getsid(running.supervisor_pid) == running.supervisor_pid
        os.kill(running.supervisor_pid, signal.SIGTERM)
        os.kill(running.supervisor_pid, signal.SIGINT)
        running.renew()
        disk = NbdDisk(running.disk, "the disk", writable=True)
        assert alive(running.supervisor_pid)
        disk.close()


@pytest.mark.parametrize("stopped", [False, True])
def test_killing_the_supervisor_kills_the_exporter_and_frees_the_lock(
    path: Path, fence: Fence, stopped: bool
) -> None:
    with exporter(path, fence) as running:
        assert running.exporter_pid is not None
        if stopped:
            os.kill(running.exporter_pid, signal.SIGSTOP)
        os.kill(running.supervisor_pid, signal.SIGKILL)
        eventually(lambda: not alive(running.exporter_pid))
        eventually(fence.is_free)


def test_a_lease_that_is_not_renewed_kills_the_exporter(path: Path, fence: Fence) -> None:
    with exporter(path, fence, lease_s=0.3) as running:
        eventually(lambda: not alive(running.exporter_pid), 5)
        eventually(fence.is_free, 5)
        with pytest.raises(LeaseLost, match="lapsed"):
            running.renew()


def test_a_lease_that_is_renewed_lives_on(path: Path, fence: Fence) -> None:
    with exporter(path, fence, lease_s=0.8) as running:
        until = time.monotonic() + 1.6
        while time.monotonic() < until:
            running.renew()
            time.sleep(0.02)
        assert alive(running.exporter_pid)


def test_a_frozen_supervisor_does_not_count_old_signs_of_life(path: Path, fence: Fence) -> None:
    """Stamps that wait in the socket say when they were sent, not when they are read."""
    with exporter(path, fence, lease_s=1.2) as running:
        os.kill(running.supervisor_pid, signal.SIGSTOP)
        for _ in range(10):
            running.renew()
            time.sleep(0.03)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 1.3)
        os.kill(running.supervisor_pid, signal.SIGCONT)
        eventually(lambda: not alive(running.exporter_pid), 1.0)


def test_a_new_attempt_ends_the_old_exporter_even_if_everything_is_frozen(
    path: Path, fence: Fence
) -> None:
    with exporter(path, fence, lease_s=600) as old:
        assert old.exporter_pid is not None
        os.kill(old.exporter_pid, signal.SIGSTOP)
        os.kill(old.supervisor_pid, signal.SIGSTOP)
        newer = Fence(fence.state_dir, fence.disk_id, "attempt 2")

        with exporter(path, newer) as new:
            assert not alive(old.exporter_pid)
            assert not alive(old.supervisor_pid)
            assert alive(new.exporter_pid)
            assert holder(newer)["owner"] == "attempt 2"
            with pytest.raises((DiskUnavailable, LeaseLost)):
                eventually(old.renew)


def test_the_old_connection_is_dead_for_a_mover_that_wakes_late(path: Path, fence: Fence) -> None:
    before = path.read_bytes()
    with open_disk(path, writable=True, fence=fence, check=no_check) as (disk, _):
        prove_dead(fence, check=no_check)
        with pytest.raises(DiskUnavailable):
            write_and_wait(disk)
    assert path.read_bytes() == before


def write_and_wait(disk: BlockIO) -> None:
    disk.submit_write(1, 0, memoryview(bytearray(b"late" * 1000)))
    eventually(lambda: disk.poll(0.1))


def test_a_stale_attempt_learns_it_before_it_kills_its_successor(path: Path, fence: Fence) -> None:
    def stale() -> None:
        raise LeaseLost("a newer attempt runs")

    with exporter(path, fence) as newer:
        with pytest.raises(LeaseLost):
            prove_dead(fence, check=stale)
        newer.renew()
        assert alive(newer.exporter_pid)


def test_what_cannot_be_killed_is_waited_for_and_then_told(fence: Fence) -> None:
    calls: list[int] = []
    fence.prepare()
    lock = supervisor.take_lock(str(fence.lock_path))
    assert lock is not None
    try:
        with pytest.raises(ExporterAlive, match="not dead yet") as caught:
            prove_dead(fence, check=lambda: calls.append(1), timeout_s=0.2)
    finally:
        os.close(lock)
    assert caught.value.retryable
    assert len(calls) > 2
    prove_dead(fence, check=no_check)


def test_waiting_for_a_fence_can_be_stopped(fence: Fence) -> None:
    def check() -> None:
        raise Stopped("enough")

    fence.prepare()
    lock = supervisor.take_lock(str(fence.lock_path))
    assert lock is not None
    try:
        with pytest.raises(Stopped):
            prove_dead(fence, check=check, timeout_s=60)
    finally:
        os.close(lock)


def test_a_pid_that_was_used_again_is_not_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            started = supervisor.start_time(process.pid)
            assert started is not None
            kill(process.pid, started - 1)
            assert process.poll() is None
            kill(process.pid, started)
            assert process.wait(5) == -signal.SIGKILL
            kill(process.pid, started)
        finally:
            process.kill()


def test_a_holder_from_before_a_restart_is_not_killed(fence: Fence) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            fence.prepare()
            supervisor.write_holder(str(fence.holder_path), "old", process.pid)
            text = fence.holder_path.read_text()
            fence.holder_path.write_text(text.replace(supervisor.boot_id(), "another boot"))
            lock = supervisor.take_lock(str(fence.lock_path))
            assert lock is not None
            with pytest.raises(ExporterAlive):
                prove_dead(fence, check=no_check, timeout_s=0.1)
            os.close(lock)
            assert process.poll() is None
        finally:
            process.kill()


def test_disks_of_different_ids_do_not_exclude_each_other(path: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for name in ("a", "b"):
            stack.enter_context(exporter(path, Fence(tmp_path, name)))
        assert not Fence(tmp_path, "a").is_free()
        assert Fence(tmp_path, "c").is_free()


def test_the_state_directory_must_be_usable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match="state directory"):
        prove_dead(Fence(tmp_path / "file", "disk"), check=no_check)


def test_a_reader_cannot_write_and_a_read_only_export_is_not_opened_for_writing(
    path: Path, fence: Fence
) -> None:
    with (
        open_disk(path, writable=False, fence=None, check=no_check) as (disk, _),
        pytest.raises(ValueError, match="reading only"),
    ):
        disk.submit_zero(1, 0, BLOCK_BYTES)
    with (
        pytest.raises(ValueError, match="without a fence"),
        open_disk(path, writable=True, fence=None, check=no_check),
    ):
        pass
    started = start_exporter(
        path,
        name="the disk",
        writable=False,
        fence=fence,
        lease_s=20,
        check=no_check,
        command=NbdkitCommand(),
    )
    with pytest.raises(DiskReadOnly):
        NbdDisk(started.disk, "the disk", writable=True)
    started.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (NbdkitCommand(program="no-such-program"), "No such file"),
        (NbdkitCommand(filters=["no-such-filter"]), "no-such-filter"),
        (NbdkitCommand(parameters=["unknown=1"]), "unknown"),
    ],
)
def test_an_exporter_that_does_not_start_says_why(
    path: Path, fence: Fence, command: NbdkitCommand, said: str
) -> None:
    with (
        pytest.raises(DiskUnavailable, match=said),
        open_disk(path, writable=True, fence=fence, check=no_check, command=command),
    ):
        pass
    assert fence.is_free()


def test_a_missing_file_is_told_with_the_exporter_s_own_words(path: Path, fence: Fence) -> None:
    path.unlink()
    with (
        pytest.raises(DiskUnavailable, match="No such file"),
        open_disk(path, writable=True, fence=fence, check=no_check),
    ):
        pass


def test_an_exporter_that_hangs_at_the_start_is_given_up(path: Path, fence: Fence) -> None:
    began = time.monotonic()
    with (
        pytest.raises(DiskUnavailable),
        open_disk(
            path,
            writable=True,
            fence=fence,
            check=no_check,
            command=NbdkitCommand(filters=["delay"], parameters=["delay-open=60"]),
            connect_timeout_s=0.5,
        ),
    ):
        pass
    assert time.monotonic() - began < 5


def test_opening_can_be_stopped(path: Path, fence: Fence) -> None:
    def check() -> None:
        raise Stopped("enough")

    with pytest.raises(Stopped), open_disk(path, writable=True, fence=fence, check=check):
        pass
    assert fence.is_free()


def test_an_exporter_that_is_killed_is_told_as_such(path: Path, fence: Fence) -> None:
    with (
        pytest.raises(DiskUnavailable, match="ended with status -9"),
        open_disk(path, writable=True, fence=fence, check=no_check) as (disk, _),
    ):
        kill_and_poll(disk, fence)
    assert fence.is_free()


def kill_and_poll(disk: BlockIO, fence: Fence) -> None:
    os.kill(exporter_pid(fence) or 0, signal.SIGKILL)
    eventually(lambda: disk.poll(0.1))


def test_a_long_temporary_directory_is_no_obstacle(path: Path, fence: Fence) -> None:
    long = path.parent / ("long" * 40)
    long.mkdir()
    program = (
        "import sys, pathlib\n"
        "from failback.disks.fence import Fence\n"
        "from failback.disks.opening import open_disk\n"
        "path, state = map(pathlib.Path, sys.argv[1:])\n"
        "fence = Fence(state, 'disk')\n"
        "with open_disk(path, writable=True, fence=fence, check=lambda: None) as (disk, _):\n"
        "    print(disk.capacity_bytes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(fence.state_dir)],
        env={**os.environ, "TMPDIR": str(long)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{SIZE}\n", "")
    assert list(long.iterdir()) == []


def test_after_a_failed_flush_the_disk_is_read_again_and_not_from_memory(
    path: Path, fence: Fence
) -> None:
    with (
        pytest.raises(DiskFlushFailed),
        open_disk(path, writable=True, fence=fence, check=no_check),
    ):
        raise DiskFlushFailed("Flushing failed.")
    assert fence.doubt_path.exists()
    with open_disk(path, writable=False, fence=None, check=no_check):
        assert fence.doubt_path.exists()

    with open_disk(path, writable=True, fence=fence, check=no_check):
        assert not fence.doubt_path.exists()


def test_nothing_of_ours_is_left_in_the_mover(path: Path, fence: Fence) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with open_disk(path, writable=True, fence=fence, check=no_check):
        pass
    before = open_files()
    for _ in range(3):
        with open_disk(path, writable=True, fence=fence, check=no_check):
            pass
    assert open_files() == before


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_an_exporter_elsewhere_is_reached_by_socket(path: Path, tmp_path: Path, kind: str) -> None:
    where: str | tuple[str, int] = str(tmp_path / "s")
    arguments = ["-U", str(where)]
    if kind == "tcp":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = ("127.0.0.1", free.getsockname()[1])
        arguments = ["-i", where[0], "-p", str(where[1])]
    with subprocess.Popen(["nbdkit", "-f", "-r", *arguments, "file", f"file={path}"]) as process:
        try:

            def reached() -> socket.socket | None:
                try:
                    return connect(where, "the disk", timeout_s=1)
                except DiskUnavailable:
                    return None

            disk = NbdDisk(eventually(reached), "the disk", writable=False)
            buffer = bytearray(SIZE)
            disk.submit_read(1, 0, memoryview(buffer))
            assert eventually(lambda: disk.poll(0.1))[0].errno == 0
            assert buffer == path.read_bytes()
            disk.close()
        finally:
            process.kill()
    with pytest.raises(DiskUnavailable, match="cannot be reached"):
        connect(where, "the disk", timeout_s=1)
