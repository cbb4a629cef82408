"""The lock on a disk's own file that keeps programs apart: ours, and qemu, which locks likewise.

An open-file-description lock over the whole file: the kernel frees it when the last copy of its
descriptor is closed, whoever died. A writer takes it alone; readers share it. It is advice that
only those follow who ask; block devices are also opened exclusively (see file.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from failback.errors import DiskUnavailable

_FLOCK = "hhqqi0q"
"""struct flock: type, whence, start, length (0: to the end), process."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def claim(path: Path, name: str, *, writable: bool) -> int:
    """A descriptor that holds the lock until it is closed; DiskUnavailable where another has it.

    A reader makes do without where the file system has no locks, a writer does not."""
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DiskUnavailable(
            f"{name} cannot be opened ({error.strerror}).", "Check the path and its permissions."
        ) from error
    order = struct.pack(_FLOCK, fcntl.F_WRLCK if writable else fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, order)
    except OSError as error:
        if error.errno in _NO_LOCKS and not writable:
            return fd
        os.close(fd)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise DiskUnavailable(
                f"{name} is in use by another program.",
                "Stop the machine or program that has it open, then begin again.",
            ) from error
        raise DiskUnavailable(
            f"{name} cannot be locked ({error.strerror}).",
            "Check whether its file system or server supports locks.",
        ) from error
    return fd
