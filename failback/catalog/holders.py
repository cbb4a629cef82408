"""Which process keeps an SQLite catalog locked, so that the error can name it."""

from __future__ import annotations

import os
import re
from pathlib import Path

WRITE_LOCK = 120
"""Offset of WAL_WRITE_LOCK in the -shm file (https://www.sqlite.org/walformat.html, 2.3.1)."""

_LOCK = re.compile(r"^\d+: POSIX +ADVISORY +WRITE +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) (\d+) (\S+)")


def writer(database: Path) -> int | None:
    """Process id of whoever holds the write lock of a database in WAL mode; None if nobody does, or
    the kernel does not say (another machine or container).

    Asks /proc/locks: opening the file and closing it again would take this process's own locks off
    it (fcntl(2), "Advisory record locking").
    """
    try:
        file = os.stat(f"{database}-shm")
        locks = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    wanted = (os.major(file.st_dev), os.minor(file.st_dev), file.st_ino)
    for found in filter(None, map(_LOCK.match, locks.splitlines())):
        pid, major, minor, inode, first, last = found.groups()
        end = float("inf") if last == "EOF" else int(last)
        if (int(major, 16), int(minor, 16), int(inode)) == wanted and (
            int(first) <= WRITE_LOCK <= end
        ):
            return int(pid) or None
    return None


def is_stopped(pid: int) -> bool:
    """Whether the process stands still: SIGSTOP, Ctrl-Z, a debugger."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("T", "t")
