"""The other tools, as people run them; each returns seconds of wall time."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("nbdkit", "nbdcopy", "qemu-img", "rsync")


def missing() -> list[str]:
    """Programs that are not there."""
    return [program for program in NEEDED if shutil.which(program) is None]


@contextmanager
def served(path: Path, folder: Path, *, writable: bool) -> Iterator[str]:
    """The URI of a file behind an nbdkit of its own, warm and without our supervisor."""
    socket = folder / f"{path.stem}.sock"
    socket.unlink(missing_ok=True)
    server = subprocess.Popen(
        [
            "nbdkit",
            "--foreground",
            "--exit-with-parent",
            f"--unix={socket}",
            *([] if writable else ["--readonly"]),
            "file",
            f"file={path}",
        ]
    )
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"nbdkit did not serve {path}")
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={socket}"
    finally:
        server.terminate()
        server.wait()


def nbdcopy(source: str, target: str, *flags: str) -> float:
    """Copy everything, whatever the target holds, and flush it."""
    return _timed([["nbdcopy", "--flush", *flags, source, target]])


def read(uri: str) -> float:
    """Read a whole disk in one stream, holes too: one connection, like ours."""
    return _timed([["nbdcopy", "--no-extents", "--connections=1", uri, "null:"]])


def read_both(source: str, target: str) -> float:
    """Read two disks at once and do nothing with them: no comparison over NBD can be shorter,
    unless it reads less."""
    return _timed([["nbdcopy", uri, "null:"] for uri in (source, target)])


def rsync(source: Path, target: Path) -> float:
    """Send only what differs, within the target file; both files are local."""
    flags = ["--inplace", "--no-whole-file", "--fsync", "--ignore-times"]
    return _timed([["rsync", *flags, str(source), str(target)]])


def compare(source: str, target: str) -> float:
    """Read two disks that are equal and find them so; raises RuntimeError if they are not."""
    return _timed([["qemu-img", "compare", "-f", "raw", "-F", "raw", source, target]])


def _timed(commands: Sequence[Sequence[str]]) -> float:
    """Run commands at once; until the last one ends. Raises RuntimeError if one fails."""
    began = time.perf_counter()
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    said = [process.communicate()[1] for process in running]
    wall_s = time.perf_counter() - began
    for process, words in zip(running, said, strict=True):
        if process.returncode != 0:
            raise RuntimeError(f"{process.args!r} failed: {words.strip()}")
    return wall_s
