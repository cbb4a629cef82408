"""The disks that are measured: a source, a target that is a little behind it, an empty one.

A quarter of a disk is one hole on both sides. Of the other blocks of 64 KiB a share differs; a few
of those read as zeroes in the source, half of them as a hole, as after a guest's trim.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from failback.disks.file import punch
from failback.disks.plan import BLOCK_BYTES, Extent

MIB = 1024 * 1024
ZEROED_SHARE = 0.02
"""Of the changed blocks, those that are zeroes in the source."""


@dataclass(frozen=True)
class Images:
    """Files of one size in one folder."""

    root: Path
    size: int

    @property
    def source(self) -> Path:
        return self.root / "source.raw"

    @property
    def target(self) -> Path:
        return self.root / "target.raw"

    @property
    def empty(self) -> Path:
        """What a full copy is written to; absent until `make_empty`."""
        return self.root / "empty.raw"

    @property
    def hole(self) -> Extent:
        """The hole of both sides, a quarter of the disk, beginning at its first quarter's end."""
        return Extent(self.size // 4, self.size // 4)

    @property
    def data(self) -> tuple[Extent, Extent]:
        """What lies before and behind the hole."""
        return Extent(0, self.hole.offset), Extent(self.hole.end, self.size - self.hole.end)

    @property
    def data_bytes(self) -> int:
        return self.size - self.hole.length

    def make(self) -> None:
        """Write both sides, equal except where `changes(10)` are zeroes in the source."""
        pool = random.Random(1).randbytes(64 * MIB)
        for path in (self.source, self.target):
            rng = random.Random(2)
            with path.open("wb") as file:
                file.truncate(self.size)
                for part in self.data:
                    file.seek(part.offset)
                    for _ in range(0, part.length, MIB):
                        at = rng.randrange(len(pool) - MIB)
                        file.write(pool[at : at + MIB])
        with self.source.open("r+b") as file:
            for number, block in enumerate(self.zeroed()):
                if number % 2:
                    os.pwrite(file.fileno(), bytes(block.length), block.offset)
                else:
                    punch(file.fileno(), block.offset, block.length)
        self.equalise()
        _settle(self.source)

    def changes(self, percent: int) -> list[Extent]:
        """The blocks that differ, in the order of the disk."""
        rng = random.Random(percent)
        blocks = [at for part in self.data for at in range(part.offset, part.end, BLOCK_BYTES)]
        zeroed = {block.offset for block in self.zeroed()}
        count = self.size // BLOCK_BYTES * percent // 100
        rest = rng.sample([at for at in blocks if at not in zeroed], count - len(zeroed))
        return [Extent(at, BLOCK_BYTES) for at in sorted([*rest, *zeroed])]

    def zeroed(self) -> list[Extent]:
        """The changed blocks that read as zeroes in the source; the same for every percentage."""
        rng = random.Random(3)
        blocks = [at for part in self.data for at in range(part.offset, part.end, BLOCK_BYTES)]
        count = int(self.size // BLOCK_BYTES * 0.02 * ZEROED_SHARE)
        return [Extent(at, BLOCK_BYTES) for at in sorted(rng.sample(blocks, count))]

    def make_stale(self, percent: int) -> None:
        """Let so many per cent of the target's blocks differ from the source again.

        The target is equal to the source before: it was made so, or a measurement did it."""
        stale = random.Random(4).randbytes(BLOCK_BYTES)
        _overwrite(self.target, [(block.offset, stale) for block in self.changes(percent)])

    def equalise(self) -> None:
        """Make the target equal to the source where `changes` of any percentage lie."""
        with self.source.open("rb") as file:
            blocks = {block for percent in (2, 10) for block in self.changes(percent)}
            _overwrite(
                self.target,
                [
                    (block.offset, os.pread(file.fileno(), block.length, block.offset))
                    for block in sorted(blocks)
                ],
            )

    def make_empty(self) -> None:
        """A file of the disk's size that was never written."""
        self.empty.unlink(missing_ok=True)
        with self.empty.open("wb") as file:
            file.truncate(self.size)

    def warm(self) -> None:
        """Have both sides in the page cache; the kernel may have given them up meanwhile."""
        buffer = memoryview(bytearray(4 * MIB))
        for path in (self.source, self.target):
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def forget_cached(self) -> None:
        """Have both sides read from their disk the next time."""
        for path in (self.source, self.target):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def check_equal(self, other: Path) -> None:
        """Raises AssertionError where a measurement left another content than the source's."""
        with self.source.open("rb") as ours, other.open("rb") as theirs:
            for offset in range(0, self.size, 4 * MIB):
                if ours.read(4 * MIB) != theirs.read(4 * MIB):
                    raise AssertionError(f"{other.name} differs from {offset} on")

    def enough_room(self) -> bool:
        """Whether the folder's file system holds three such disks."""
        return shutil.disk_usage(self.root).free > 3 * self.data_bytes + 1024 * MIB


def _overwrite(path: Path, blocks: Sequence[tuple[int, bytes]]) -> None:
    with path.open("r+b") as file:
        for offset, data in blocks:
            os.pwrite(file.fileno(), data, offset)
    _settle(path)


def _settle(path: Path) -> None:
    """What one measurement wrote must not be written back during the next one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
