"""The side of the tests: two disks in files, a ledger, and attempts that may come to harm."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failback.catalog.holders import is_stopped, writer
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.disks.copier import CopyOptions
from failback.disks.fence import Fence
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import BLOCK_BYTES, Extent, plan_areas
from failback.disks.progress import CopyProgress
from tests.faults.far import Far
from tests.faults.mover import Ending, Order, run
from tests.helpers.disks import KIB, MIB, QUICK, alive, changed, content, eventually

METHODS = ("compare", "tracked", "full", "digest")
KILLED = (*METHODS, "file")
"""And comparing without exporters, where a disk has a writer only."""
SEGMENT_BYTES = 256 * KIB
SIZE = 4 * MIB + 1234
WAIT_S = 30.0

# Movers are forked from one process that has everything imported: that saves a second on each.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.mover"])


class Running:
    """An attempt that is under way."""

    def __init__(self, order: Order) -> None:
        self._said, its_end = _processes.Pipe(duplex=False)
        self._process = _processes.Process(target=run, args=(order, its_end))
        self._process.start()
        its_end.close()
        self._ending: Ending | None = None
        self._heard: CopyProgress | None = None
        self._over = False

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def examined_bytes(self) -> int:
        """What it said last."""
        return 0 if self._heard is None else self._heard.examined_bytes

    def listen(self, timeout_s: float) -> bool:
        """Hear one more message; False if there was none in time or there will be none."""
        if self._over or not self._said.poll(timeout_s):
            return False
        try:
            message = self._said.recv()
        except (EOFError, ConnectionError):
            self._over = True
            return False
        if isinstance(message, Ending):
            self._ending, self._over = message, True
        else:
            self._heard = message
        return not self._over

    def until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Listen until the condition holds; False if the attempt was over before."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.listen(0.01)
            if self._over:
                return condition()
            assert time.monotonic() < deadline, "the attempt did not get there"
        return True

    def listen_for(self, seconds: float) -> None:
        """Listen that long, or until the attempt is over."""
        deadline = time.monotonic() + seconds
        while not self._over and (left_s := deadline - time.monotonic()) > 0:
            self.listen(left_s)

    @property
    def over(self) -> bool:
        return self._over

    def ending(self, timeout_s: float = WAIT_S) -> Ending | None:
        """How it ended; None if it was killed."""
        self.listen_for(timeout_s)
        assert self.over, "the attempt does not end"
        self._process.join(timeout_s)
        assert not self._process.is_alive(), "the mover does not end"
        return self._ending

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def freeze(self, catalog: Path) -> None:
        """Stop it where it stands, outside of a transaction: SQLite would keep everybody out for
        as long as it is frozen, which is another trouble."""
        threads = Path(f"/proc/{self.pid}/task")
        while True:
            self.send(signal.SIGSTOP)
            eventually(lambda: all(is_stopped(int(one.name)) for one in threads.iterdir()))
            if writer(catalog) != self.pid:
                return
            self.send(signal.SIGCONT)
            eventually(lambda: writer(catalog) != self.pid)

    def supervisors(self) -> list[int]:
        """Of the target and then of the source, as far as they have been started."""
        return children(self.pid)

    def exporters(self) -> list[int]:
        """Of the target and then of the source."""
        return [pid for supervisor in self.supervisors() for pid in children(supervisor)]

    def close(self) -> None:
        """Kill what is left."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self._said.close()


def children(pid: int) -> list[int]:
    """Direct children, oldest first."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Scene:
    """Two disks in one directory, with a plan in the ledger.

    Args:
        url: of a migrated catalog.
        method: compare, tracked (the areas are known), full (the target is not read) or digest
            (the source is behind a mover of its own); or file (compare, without exporters).
    """

    root: Path
    url: str
    rng: random.Random
    method: str = "compare"
    size: int = SIZE
    plan_name: str = "plan"
    attempts: int = 0
    rounds: int = 0

    @property
    def source(self) -> Path:
        return self.root / "source.img"

    @property
    def target(self) -> Path:
        return self.root / "target.img"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.db"

    @property
    def plan_id(self) -> str:
        return f"{self.plan_name} {self.rounds}"

    def __post_init__(self) -> None:
        self.far = Far(_processes, self.root) if self.method == "digest" else None

    def close(self) -> None:
        """End what the scene itself has started."""
        if self.far is not None:
            self.far.kill()

    def fence(self, owner: str = "test") -> Fence:
        return Fence(self.root / "state", "disk-1", owner)

    def fill(self) -> None:
        """Give both disks new contents that differ, and plan a new pass."""
        self.rounds += 1
        original = content(self.rng, self.size)
        other = changed(self.rng, original, share=0.5)
        self.source.write_bytes(original)
        self.target.write_bytes(other)
        self.save_plan(self._areas(original, other))

    def damage(self, extent: Extent) -> None:
        """Make sure that both disks differ there, and that neither is zero."""
        for path in (self.source, self.target):
            with path.open("r+b") as file:
                file.seek(extent.offset)
                file.write(self.rng.randbytes(extent.length))

    def _areas(self, original: bytes, other: bytes) -> list[Extent] | None:
        """What change tracking would say: everything that differs, and a little more."""
        if self.method != "tracked":
            return None
        return [
            Extent(start, BLOCK_BYTES)
            for start in range(0, self.size, BLOCK_BYTES)
            if original[start : start + BLOCK_BYTES] != other[start : start + BLOCK_BYTES]
            or self.rng.random() < 0.2
        ]

    def save_plan(
        self, areas: list[Extent] | None = None, *, target_identity: str = "target 1"
    ) -> None:
        with self.store() as store:
            store.save(
                self.plan_id,
                "disk-1",
                LedgerIdentity("source", target_identity),
                plan_areas(self.size, areas, SEGMENT_BYTES),
            )

    @contextlib.contextmanager
    def store(self) -> Iterator[SqlLedgerStore]:
        catalog = Catalog(self.url)
        try:
            yield SqlLedgerStore(catalog)
        finally:
            catalog.close()

    @property
    def options(self) -> CopyOptions:
        return CopyOptions(
            window=QUICK.window,
            request_bytes=QUICK.request_bytes,
            flush_interval_s=QUICK.flush_interval_s,
            full=self.method == "full",
        )

    @contextlib.contextmanager
    def start(self, **changes: Any) -> Iterator[Running]:
        """An attempt in a process of its own; killed at the end of the block."""
        self.attempts += 1
        order = Order(
            source=self.source,
            target=self.target,
            fence=self.fence(changes.pop("owner", f"attempt {self.attempts}")),
            url=self.url,
            plan_id=self.plan_id,
            far=None if self.far is None else (self.far.port(), self.far.client),
            local=self.method == "file",
            **{"options": self.options, **changes},
        )
        running = Running(order)
        try:
            yield running
        finally:
            running.close()

    def attempt(self, **changes: Any) -> Ending:
        """An attempt that nobody kills, to its end."""
        with self.start(**changes) as running:
            ending = running.ending()
        assert ending is not None, "the mover died by itself"
        return ending

    def finish(self, **changes: Any) -> Ending:
        """The attempt after the trouble: it must make the disks equal."""
        ending = self.attempt(**changes)
        assert ending.done, ending
        assert self.equal()
        assert self.fence().is_free()
        return ending

    def finished(self) -> set[int]:
        """Segments that the ledger calls done."""
        with self.store() as store:
            return set(store.finished(self.plan_id))

    def wrong_segments(self) -> list[int]:
        """Segments that the ledger calls done although the files differ there."""
        with self.store() as store:
            records = store.finished(self.plan_id)
        with self.source.open("rb") as source, self.target.open("rb") as target:

            def part(index: int) -> tuple[bytes, bytes]:
                both = []
                for file in (source, target):
                    file.seek(index * SEGMENT_BYTES)
                    both.append(file.read(min(SEGMENT_BYTES, self.size - index * SEGMENT_BYTES)))
                return both[0], both[1]

            return [index for index in sorted(records) if len(set(part(index))) > 1]

    def equal(self) -> bool:
        """By another program than ours."""
        done = subprocess.run(["cmp", "-s", self.source, self.target], check=False)
        return done.returncode == 0


def copy_of(template: Path, folder: Path) -> str:
    """URL of a new empty catalog."""
    return f"sqlite:///{shutil.copy(template, folder / 'catalog.db')}"


def gone(pid: int) -> bool:
    return not alive(pid)
