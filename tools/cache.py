"""The per-user cache of built and downloaded programs, shared by all checkouts.

An entry appears by one rename and never changes: whoever sees it sees it whole. A lock per kind
makes two checkouts that need the same thing do the work once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.host import Problem, say

KEPT_PER_KIND = 8
"""Entries of one kind that survive a new one: enough for several checkouts and branches."""


def cache_dir(env: Mapping[str, str]) -> Path:
    """Where the cache is: FAILBACK_CACHE, else `failback` in the user's cache folder."""
    if own := env.get("FAILBACK_CACHE"):
        return Path(own).absolute()
    if shared := env.get("XDG_CACHE_HOME"):
        return Path(shared).absolute() / "failback"
    try:
        home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    except RuntimeError as error:
        raise Problem("There is no home folder: set FAILBACK_CACHE to a folder to use.") from error
    return home / ".cache" / "failback"


def fingerprint(parts: Iterable[bytes]) -> str:
    """Name a sequence of contents; moving a byte from one part to the next changes the name."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


@contextmanager
def locked(cache: Path, name: str) -> Iterator[None]:
    """Hold a lock among all processes of this user. It ends with its holder, however that ends.

    The commands that the holder runs hold it too: when the holder is killed, a pip or go that it
    leaves behind still writes, and the next one must wait for it.
    """
    folder = cache / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        os.set_inheritable(handle, True)
    except OSError as error:
        raise Problem(
            f"The cache folder {cache} cannot be written ({error.strerror}):"
            " set FAILBACK_CACHE to a folder that can."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that prepares {name} ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def find(cache: Path, kind: str, key: str, program: str) -> Path | None:
    """Find a finished entry, and mark it as used."""
    path = cache / kind / key / program
    if not os.access(path, os.X_OK):
        return None
    # A cache that someone else fills and we may only read is fine too.
    with suppress(OSError):
        os.utime(path.parent)
    return path


def obtain(cache: Path, kind: str, key: str, program: str, produce: Callable[[Path], None]) -> Path:
    """Return the entry's program; where it is missing, let `produce` write it, once for all.

    `produce` gets the path to write. It works in a folder that nobody looks at, which is renamed
    when it returns and removed when it raises.
    """
    if ready := find(cache, kind, key, program):
        return ready
    with locked(cache, kind):
        if ready := find(cache, kind, key, program):
            return ready
        shelf = cache / kind
        shelf.mkdir(exist_ok=True)
        # We hold the lock: what still stands here was left by a process that was killed.
        for leftover in shelf.glob("tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix="tmp-", dir=shelf))
        try:
            produce(aside / program)
            (aside / program).chmod(0o755)
            aside.chmod(0o755)
            target = shelf / key
            # An entry without its program was damaged by hand: the new one takes its place.
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _forget_oldest(shelf, keep=key)
        return target / program


def _forget_oldest(shelf: Path, keep: str) -> None:
    entries = [entry for entry in shelf.iterdir() if entry.name != keep]
    entries.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in entries[KEPT_PER_KIND - 1 :]:
        shutil.rmtree(entry, ignore_errors=True)
