"""The one place where an errno of a disk request becomes one of our errors."""

from __future__ import annotations

import errno
from enum import StrEnum

from failback.errors import (
    DiskError,
    DiskFlushFailed,
    DiskFull,
    DiskReadFailed,
    DiskReadOnly,
    DiskUnavailable,
    DiskWriteFailed,
)


class Op(StrEnum):
    """What was asked of the disk."""

    READ = "read"
    COMPARE = "compare"
    WRITE = "write"
    ZERO = "zero"
    MAP = "map"
    FLUSH = "flush"

    @property
    def changes(self) -> bool:
        return self in (Op.WRITE, Op.ZERO)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EPERM, errno.EROFS, errno.EACCES})
_STALE = frozenset({errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN})
"""The mount below the file is not what it was; asking again does not help."""
_GONE = frozenset({errno.ESHUTDOWN, errno.ENODEV, errno.ENXIO})


def worth_retrying(op: Op, code: int) -> bool:
    """True where the same request may work a moment later. A failed flush never is: the kernel
    may have dropped the pages and the second flush would report success for lost data."""
    return op is not Op.FLUSH and code not in _FULL | _REFUSED | _GONE | _STALE


def disk_error(op: Op, code: int, name: str, offset: int, length: int) -> DiskError:
    """The error for a request that the disk answered with errno `code`."""
    why = errno.errorcode.get(code, str(code))
    where = f"{length} bytes at offset {offset} of {name}"
    evidence: dict[str, str | int | None] = {"offset": offset, "length": length, "errno": why}
    if code in _GONE:
        return DiskUnavailable(
            f"The exporter of {name} is shutting down ({why} at offset {offset}).",
            "It is started again by the next attempt.",
            **evidence,
        )
    if code in _STALE and op is not Op.FLUSH:
        return DiskUnavailable(
            f"{name} is no longer there for the data mover ({why} at offset {offset}).",
            "Mount its datastore again; the next attempt continues here.",
            **evidence,
        )
    if op is Op.FLUSH:
        return DiskFlushFailed(
            f"Flushing {name} failed with {why}.",
            "What was written since the last flush is compared again; check the datastore.",
            errno=why,
        )
    if not op.changes:
        return DiskReadFailed(
            f"Reading {where} failed with {why}.",
            "Check the datastore and its storage path.",
            **evidence,
        )
    if code in _FULL:
        return DiskFull(
            f"No room to write {where} ({why}).",
            "Free space on its datastore, then retry.",
            **evidence,
        )
    if code in _REFUSED:
        return DiskReadOnly(
            f"Writing {where} was refused with {why}.",
            "Check that the disk and its datastore are writable for the data mover.",
            **evidence,
        )
    return DiskWriteFailed(
        f"Writing {where} failed with {why}.",
        "Check the datastore and its storage path.",
        **evidence,
    )
