"""The two disks of a command: what their names mean, what they are, and how they are opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from failback.disks.address import NbdAddress, is_address, open_address, parse_address
from failback.disks.blockio import BlockIO
from failback.disks.claim import claim
from failback.disks.file import FileDisk
from failback.disks.opening import forget_cached
from failback.errors import DiskFlushFailed, DiskSizeMismatch, DiskUnavailable, SettingsInvalid

_FORMATS = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "sparse VMDK",
    b"# Disk DescriptorFile": "VMDK descriptor",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
}
_LONGEST = max(map(len, _FORMATS))


@dataclass(frozen=True)
class Side:
    """One disk as it was named."""

    text: str
    role: str
    """`source` or `target`, for messages."""
    address: NbdAddress | None = None
    path: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.role} {self.text}"

    def place(self) -> tuple[object, ...]:
        """Equal for two names of one disk, as far as can be told from here; DiskUnavailable."""
        if self.address is not None:
            return self.address.place
        status = self.status()
        if stat.S_ISBLK(status.st_mode):
            return "device", status.st_rdev
        return "file", status.st_dev, status.st_ino

    def identity(self, capacity_bytes: int, *, changes: bool) -> str:
        """What a ledger binds this side to.

        Args:
            changes: we write to it ourselves, so its time of change says nothing.
        """
        parts = [*self.place(), capacity_bytes]
        if self.path is not None and not changes:
            parts.append(self.status().st_mtime_ns)
        return " ".join(map(str, parts))

    def status(self) -> os.stat_result:
        assert self.path is not None
        try:
            return self.path.stat()
        except OSError as error:
            raise DiskUnavailable(
                f"The {self.name} cannot be looked at ({error.strerror}).",
                "Check the path; a new target is made with `truncate -s SIZE FILE`.",
            ) from error


@dataclass(frozen=True)
class Pair:
    """Both disks, open."""

    source: BlockIO
    target: BlockIO
    source_identity: str
    target_identity: str

    @property
    def capacity_bytes(self) -> int:
        return self.source.capacity_bytes


def named(text: str, role: str) -> Side:
    """What a name means; SettingsInvalid."""
    if is_address(text):
        return Side(text, role, address=parse_address(text))
    if not text:
        raise SettingsInvalid(f"The {role} has no name.", "Give a path or an NBD address.")
    return Side(text, role, path=Path(text))


@contextmanager
def opened(
    source: str, target: str, *, write: bool, raw: bool = False, tls_dir: Path | None = None
) -> Iterator[Pair]:
    """Both sides, the target for writing if `write`; `raw`: whatever a file looks like, and
    `tls_dir`: certificates for addresses with TLS.

    Raises SettingsInvalid where both are one disk or a file is no raw image, DiskSizeMismatch for a
    target that is too small, DiskUnavailable and DiskReadOnly."""
    ours, theirs = named(source, "source"), named(target, "target")
    if ours.place() == theirs.place():
        raise SettingsInvalid(
            f"Source and target are the same disk: {source}.", "Name two different disks."
        )
    with ExitStack() as stack:
        # The target first: whether it is free is the question that is refused most often.
        target_disk = stack.enter_context(_opened(theirs, write, raw, tls_dir))
        source_disk = stack.enter_context(_opened(ours, False, raw, tls_dir))
        if target_disk.capacity_bytes < source_disk.capacity_bytes:
            raise DiskSizeMismatch(
                f"The {theirs.name} has {target_disk.capacity_bytes} bytes, the source has"
                f" {source_disk.capacity_bytes}.",
                f"Make the target larger, for example with `truncate -s"
                f" {source_disk.capacity_bytes}` if it is a file.",
            )
        yield Pair(
            source_disk,
            target_disk,
            ours.identity(source_disk.capacity_bytes, changes=False),
            theirs.identity(target_disk.capacity_bytes, changes=True),
        )


@contextmanager
def _opened(side: Side, write: bool, raw: bool, tls_dir: Path | None) -> Iterator[BlockIO]:
    disk: BlockIO
    if side.address is not None:
        disk = open_address(side.address, writable=write, name=side.name, tls_dir=tls_dir)
    else:
        disk = _open_file(side, write=write, raw=raw)
    try:
        yield disk
    except DiskFlushFailed:
        # What is cached may never have reached the disk; the next comparison must read the disk.
        if write and side.path is not None:
            forget_cached(side.path)
        raise
    finally:
        disk.close()


def _open_file(side: Side, *, write: bool, raw: bool) -> FileDisk:
    assert side.path is not None
    mode = side.status().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise SettingsInvalid(
            f"The {side.name} is neither a file nor a block device.",
            "Name a raw image, a block device or an NBD address.",
        )
    lock = claim(side.path, f"The {side.name}", writable=write)
    try:
        if not raw:
            _demand_raw(lock, side)
        # The lock is held until no thread can write any more, not only until `close` returns.
        return FileDisk(side.path, side.name, writable=write, release=lambda: os.close(lock))
    except BaseException:
        os.close(lock)
        raise


def _demand_raw(fd: int, side: Side) -> None:
    try:
        start = os.pread(fd, _LONGEST, 0)
    except OSError as error:
        raise DiskUnavailable(
            f"The {side.name} cannot be read ({error.strerror}).", "Check the device."
        ) from error
    for magic, kind in _FORMATS.items():
        if start.startswith(magic):
            raise SettingsInvalid(
                f"The {side.name} is a {kind} image: its bytes are not the disk's bytes.",
                "Serve it with `qemu-nbd` and name that address, or say --raw if it is raw.",
            )
