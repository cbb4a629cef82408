"""What is checked of a datastore that is mounted on the mover, before a disk in it is opened.

A mover sees an NFS datastore as a folder. What can go wrong with it looks like an empty folder,
like another datastore's folder, or like a disk that nobody else uses.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from failback.errors import DiskReadOnly, DiskUnavailable, SettingsInvalid

MARK = ".failback-datastore"
"""A file that somebody may put into the top folder of a datastore: its first line is the name of
the datastore. A folder with another datastore's mark is refused."""

LOCK = ".lck-"
"""ESXi hosts lock a file on NFS 3 by a file of this name and the number of the locked one."""


def require_mounted(root: Path, datastore: str) -> None:
    """DiskUnavailable where the folder cannot be read or is empty, as when nothing is mounted
    there; SettingsInvalid where it is the folder of another datastore."""
    try:
        with os.scandir(root) as entries:
            empty = next(entries, None) is None
        mark = _first_line(root / MARK)
    except OSError as error:
        raise unreachable(error, f"The folder {root} of datastore {datastore!r}") from error
    if empty:
        raise DiskUnavailable(
            f"The folder {root} of datastore {datastore!r} is empty: the datastore is not mounted"
            " there.",
            "Mount it on the data mover, also after its next restart.",
            datastore=datastore,
        )
    if mark is not None and mark != datastore:
        raise SettingsInvalid(
            f"The folder {root} is that of datastore {mark!r}, not of {datastore!r}: its {MARK}"
            " says so.",
            "Correct the site's datastores in the settings, or what is mounted there.",
            datastore=datastore,
        )


def require_writable(
    flat: Path, file: str, *, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
) -> None:
    """DiskReadOnly where the datastore is mounted for reading only, DiskUnavailable where an ESXi
    host has the file locked: its VM is on, or something else of vSphere uses the disk."""
    try:
        if statvfs(flat).f_flag & os.ST_RDONLY:
            raise DiskReadOnly(
                f"{file} cannot be written: its datastore is mounted for reading only.",
                "Mount it for reading and writing on the data mover.",
            )
        locks = {flat.with_name(LOCK + name) for name in _lock_names(flat.stat().st_ino)}
        held = next((lock for lock in locks if lock.exists()), None)
    except OSError as error:
        raise unreachable(error, f"{flat.name} of {file}") from error
    if held is not None:
        raise DiskUnavailable(
            f"{file} is locked by an ESXi host ({held.name} lies beside it).",
            "Power its VM off and end what else uses the disk; a lock that a crashed host left"
            " goes away when the VM is powered on and off once.",
        )


def unreachable(error: OSError, what: str) -> DiskUnavailable:
    """A file or folder below a mounted datastore that the system does not give us."""
    remedy = "Check that the datastore is mounted where the settings say."
    match error.errno:
        case errno.ESTALE:
            remedy = "The server's file system was replaced or exported anew: mount it again."
        case errno.EACCES | errno.EPERM:
            remedy = "Give the worker's account access, also on the NFS server (root squash)."
        case errno.ETIMEDOUT | errno.EIO | errno.EHOSTDOWN | errno.EHOSTUNREACH | errno.ENOTCONN:
            remedy = "Check the NFS server and the network to it."
    why = errno.errorcode.get(error.errno or 0, "unknown")
    return DiskUnavailable(
        f"{what} cannot be found or read on the data mover ({why}: {error.strerror or error}).",
        remedy,
        errno=why,
    )


def _first_line(mark: Path) -> str | None:
    """The text of a mark; None where there is none."""
    try:
        with mark.open(encoding="utf-8", errors="replace") as file:
            return file.readline(1024).strip()
    except FileNotFoundError:
        return None


def _lock_names(number: int) -> tuple[str, str]:
    """The file's number in hexadecimal, in the byte order of ESXi and in that of people."""
    return number.to_bytes(8, "little").hex(), number.to_bytes(8, "big").hex()
