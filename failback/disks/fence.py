"""One exporter per disk, proven by the kernel.

Supervisor and exporter share one open file with an exclusive flock on it (see supervisor.py). While
either lives the lock is held, so taking it is the proof that every earlier exporter of this disk on
this host is dead. The lock file is local to the host: a data mover serves its disks from one host.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failback.disks import supervisor
from failback.disks.blockio import Check, Clock, Sleep
from failback.errors import ExporterAlive, SettingsInvalid

POLL_S = 0.05


@dataclass(frozen=True)
class Fence:
    """The place where writers of one disk exclude each other.

    Args:
        state_dir: a directory on a local file system, the same for every mover process of the host.
        disk_id: the same for every attempt and every pass on this disk.
        owner: names this attempt in the holder record; no secret.
    """

    state_dir: Path
    disk_id: str
    owner: str = ""

    @property
    def _stem(self) -> Path:
        name = hashlib.blake2b(self.disk_id.encode(), digest_size=16).hexdigest()
        return self.state_dir / "fences" / name

    @property
    def lock_path(self) -> Path:
        return self._stem.with_suffix(".lock")

    @property
    def holder_path(self) -> Path:
        return self._stem.with_suffix(".json")

    @property
    def doubt_path(self) -> Path:
        """Exists after a flush failed: the page cache may show bytes that the disk never got."""
        return self._stem.with_suffix(".doubt")

    def prepare(self) -> None:
        """Make the directory. Raises SettingsInvalid if that is impossible."""
        try:
            self.lock_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsInvalid(
                f"The fences of disks cannot be kept in {self.lock_path.parent} ({error}).",
                "Set the data mover's state directory to one that it can write to.",
            ) from error

    def is_free(self) -> bool:
        """True if every exporter of this disk was dead at this moment."""
        self.prepare()
        lock = supervisor.take_lock(str(self.lock_path))
        if lock is None:
            return False
        os.close(lock)
        return True


def prove_dead(
    fence: Fence,
    *,
    check: Check,
    timeout_s: float = 10.0,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> None:
    """End every earlier exporter of this disk and return when they are proven dead.

    `check` is called before anything is killed: a stale attempt must learn that it is stale (by
    LeaseLost) instead of ending its successor's exporter, and again during every wait.
    Raises ExporterAlive after `timeout_s`: a process inside a hanging storage call dies only when
    the call returns."""
    deadline = clock() + timeout_s
    while not fence.is_free():
        check()
        kill_holder(fence)
        if clock() >= deadline:
            raise alive(fence)
        sleep(POLL_S)


def alive(fence: Fence) -> ExporterAlive:
    holder = _read(fence.holder_path)
    supervised, exporter = (holder.get(key) or [None] for key in ("supervisor", "exporter"))
    return ExporterAlive(
        f"An earlier exporter of {fence.disk_id} is not dead yet (process {exporter[0]} under"
        f" {supervised[0]}, started for {holder.get('owner') or 'an unknown attempt'}).",
        "It is waited for; if this lasts, check whether its datastore hangs.",
        supervisor=supervised[0],
        exporter=exporter[0],
    )


def kill_holder(fence: Fence) -> None:
    """Send SIGKILL, which also ends stopped processes, to those who are on record as holders."""
    holder = _read(fence.holder_path)
    if holder.get("boot_id") != supervisor.boot_id():
        return  # from before a restart of the host: whoever holds the lock now is someone else
    for known in (holder.get("supervisor"), holder.get("exporter")):
        if known and known[1] is not None:
            kill(known[0], known[1])


def kill(pid: int, started: int) -> None:
    """SIGKILL to the process that began at `started`; nothing if the pid belongs to another."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The handle is taken first: from here on the pid cannot pass to another unnoticed.
        if supervisor.start_time(pid) == started:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return  # it died meanwhile
    finally:
        os.close(handle)


def _read(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}  # nobody to kill; the lock alone decides
    return holder if isinstance(holder, dict) else {}
