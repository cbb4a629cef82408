"""Opens a disk's file as a BlockIO: fence, exporter, connection; and closes all three."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from failback.disks.blockio import BlockIO, Check, Clock, Sleep
from failback.disks.exporter import Command, NbdkitCommand, start_exporter
from failback.disks.fence import Fence
from failback.disks.file import FileDisk
from failback.disks.nbd import NbdDisk
from failback.disks.split import SplitDisk
from failback.disks.writer import WriterCommand
from failback.errors import DiskFlushFailed, DiskUnavailable

LEASE_S = 15.0
"""Shorter than a transfer's heartbeat timeout, longer than any single wait between two checks."""

NBDKIT = NbdkitCommand()
WRITER = WriterCommand()


@contextmanager
def open_disk(
    path: Path,
    *,
    writable: bool,
    fence: Fence | None,
    check: Check,
    name: str = "",
    lease_s: float = LEASE_S,
    command: Command = NBDKIT,
    connect_timeout_s: float = 10.0,
    io_timeout_s: float = 120.0,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Iterator[tuple[BlockIO, Callable[[], None]]]:
    """A disk that is open until the block ends, and the `renew` that keeps it open.

    Earlier exporters of the fence's disk are ended and proven dead first; one connection is made.
    The caller's `check` calls `renew` before anything that may raise, at least every lease_s / 3.

    Args:
        fence: who may have the disk open; never None if `writable`.
        check: called while waiting to open; its Stopped and LeaseLost pass through.
        connect_timeout_s: for starting the exporter, and again until it has the disk open.
        name: what the disk is called in messages; the path by default.

    Raises DiskUnavailable (with what the exporter said, if it died while the block ran), LeaseLost
    if the block outlived its lease, ExporterAlive, DiskReadOnly, SettingsInvalid, and what the
    command knows its program's last words to mean."""
    if writable and fence is None:
        raise ValueError("a disk is never written without a fence")
    name = name or str(path)
    exporter = start_exporter(
        path,
        name=name,
        writable=writable,
        fence=fence,
        lease_s=lease_s,
        check=check,
        command=command,
        timeout_s=connect_timeout_s,
        clock=clock,
        sleep=sleep,
    )
    disk: NbdDisk | None = None

    def waiting() -> None:
        # A library that logs in somewhere takes longer than a lease.
        exporter.renew()
        check()

    try:
        disk = NbdDisk(
            exporter.disk,
            name,
            writable=writable,
            connect_timeout_s=connect_timeout_s,
            io_timeout_s=io_timeout_s,
            check=waiting,
        )
        exporter.serving = True
        if writable and fence is not None and fence.doubt_path.exists():
            if path.exists():  # elsewhere the cache is not ours
                forget_cached(path)
            fence.doubt_path.unlink()
        yield disk, exporter.renew
    except DiskFlushFailed:
        if writable and fence is not None:
            fence.doubt_path.touch()
        raise
    except DiskUnavailable as error:
        # Two disks are usually open: only the one whose connection broke asks its exporter why.
        if disk is None or disk.failure is error:
            said = exporter.last_words()
            if said is not None:
                said.evidence.update(error.evidence)
                raise said from error
        raise
    finally:
        if disk is not None:
            disk.close()
        exporter.close()


@contextmanager
def open_local(
    path: Path,
    *,
    writable: bool,
    fence: Fence | None,
    check: Check,
    name: str = "",
    lease_s: float = LEASE_S,
    command: Command = WRITER,
    connect_timeout_s: float = 10.0,
    io_timeout_s: float = 120.0,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Iterator[tuple[BlockIO, Callable[[], None]]]:
    """Like `open_disk`, but the mover reads the file or block device itself.

    Only reads: what changes the disk goes to a process that a supervisor can kill (see writer.py),
    so a mover that wakes up late changes nothing here either."""
    name = name or str(path)
    reader = FileDisk(path, name, writable=False)
    try:
        if not writable:
            yield reader, lambda: None
            return
        with open_disk(
            path,
            writable=True,
            fence=fence,
            check=check,
            name=name,
            lease_s=lease_s,
            command=command,
            connect_timeout_s=connect_timeout_s,
            io_timeout_s=io_timeout_s,
            clock=clock,
            sleep=sleep,
        ) as (writer, renew):
            yield SplitDisk(reader, writer), renew
    finally:
        reader.close()


def forget_cached(path: Path) -> None:
    """Have the file read from its disk again.

    After a failed flush the kernel keeps the lost pages as if they were clean, and reports the
    error only once: the next comparison would see them as equal and the next flush succeed."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
