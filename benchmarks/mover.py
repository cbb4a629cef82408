"""One measured transfer, in a process of its own: `python -m benchmarks.mover ORDER`.

The order is a JSON object, the outcome another one on standard output. Time is taken inside, from
before the disks are opened until they are closed: a worker runs already when work comes, but its
exporters are started for each disk.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.disks.blockio import Answer, BlockIO
from failback.disks.budget import Budget
from failback.disks.copier import CopyOptions, copy
from failback.disks.exporter import NbdkitCommand
from failback.disks.fence import Fence
from failback.disks.kinds import PACES
from failback.disks.ledger import LedgerIdentity, LedgerStore, PassLedger, SegmentRecord
from failback.disks.opening import open_disk, open_local
from failback.disks.plan import Extent, TransferPlan, plan_areas
from failback.disks.progress import CopyProgress
from failback.disks.requests import Requests
from failback.disks.testing import MemoryLedgerStore

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """One disk."""

    source: str
    target: str
    kind: str = "nbd"
    """`nbd`: behind an exporter; `file`: read directly, written by a process that can be killed."""
    window: tuple[int, int] | None = None
    """(offset, length) of the files that are the disk; None is all of them."""
    areas: Sequence[tuple[int, int]] | None = None


@dataclass(frozen=True)
class Order:
    """What is measured."""

    jobs: Sequence[Job]
    folder: str
    """For fences, ledger and counters."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of CopyOptions."""
    budget_bytes: int | None = None
    read_only: bool = False
    """Only read the source from its beginning to its end, holes too."""
    durable: bool = True
    """Ledger in SQLite and a real flush; else a ledger in memory, and no flush at all."""
    count: bool = False
    """Have the target's exporter count what is written."""


@dataclass(frozen=True)
class Outcome:
    """What was seen; seconds and bytes."""

    wall_s: float
    cpu_s: float
    """Of this process; exporters apart."""
    exporters_cpu_s: float
    rss_bytes: int
    """Peak of this process above what it held before the disks were opened."""
    flush_s: float
    """From asking for a flush to its answer, in sum; reading goes on meanwhile."""
    commit_s: float
    examined_bytes: int
    different_bytes: int
    written_bytes: int
    zeroed_bytes: int
    exporter_written_bytes: int | None = None
    exporter_zeroed_bytes: int | None = None


def measure(order: Order) -> Outcome:
    """Run an order in a new process; raises RuntimeError with what it said if it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mover", json.dumps(asdict(order))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the mover failed: {done.stderr.strip()}")
    return Outcome(**json.loads(done.stdout))


class _Watched:
    """A target whose flushes are timed, or left out."""

    def __init__(self, disk: BlockIO, *, durable: bool) -> None:
        self._disk, self._durable = disk, durable
        self._flushes: dict[int, float] = {}
        self._skipped: list[Answer] = []
        self._wake: Callable[[], None] = lambda: None
        self.flush_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def submit_flush(self, tag: int) -> None:
        if not self._durable:
            self._skipped.append(Answer(tag))
            self._wake()
            return
        self._flushes[tag] = time.perf_counter()
        self._disk.submit_flush(tag)

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._disk.on_answer(wake)

    def poll(self, timeout_s: float) -> list[Answer]:
        skipped, self._skipped = self._skipped, []
        answers = self._disk.poll(0 if skipped else timeout_s)
        for answer in answers:
            if answer.tag in self._flushes:
                self.flush_s += time.perf_counter() - self._flushes.pop(answer.tag)
        return [*skipped, *answers]


class _TimedLedger:
    """A pass whose commits are timed."""

    def __init__(self, inner: PassLedger) -> None:
        self._inner = inner
        self.commit_s = 0.0

    @property
    def plan(self) -> TransferPlan:
        return self._inner.plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, records: Sequence[SegmentRecord]) -> None:
        with self._timed():
            self._inner.commit(records)

    def complete(self) -> None:
        with self._timed():
            self._inner.complete()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.commit_s += time.perf_counter() - began


class _Transfer(threading.Thread):
    """One disk, in a thread as in a worker."""

    def __init__(
        self, number: int, job: Job, order: Order, ledgers: LedgerStore, budget: Budget | None
    ) -> None:
        super().__init__()
        self._number, self._job, self._order = number, job, order
        self._ledgers, self._budget = ledgers, budget
        self.progress = CopyProgress(0)
        self.flush_s = self.commit_s = 0.0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with ExitStack() as stack:
                self._transfer(stack)
        # Kept for the caller, who raises it: a thread's own would only be printed.
        except BaseException as error:
            self.failure = error

    def _transfer(self, stack: ExitStack) -> None:
        renewals: list[Callable[[], None]] = []

        def check() -> None:
            for renew in renewals:
                renew()

        source = self._open(stack, self._job.source, renewals, check, writable=False)
        if self._order.read_only:
            _read_all(source, check)
            return
        target = _Watched(
            self._open(stack, self._job.target, renewals, check, writable=True),
            durable=self._order.durable,
        )
        areas = self._job.areas
        plan = plan_areas(
            source.capacity_bytes, None if areas is None else [Extent(*area) for area in areas]
        )
        name = f"disk{self._number}"
        self._ledgers.save(name, name, LedgerIdentity("source", "target"), plan)
        ledger = _TimedLedger(self._ledgers.open(name, "bench"))
        self.progress = copy(
            source,
            target,
            ledger,
            options=self._options(),
            check=check,
            report=lambda _: None,
            clock=time.monotonic,
        )
        self.flush_s, self.commit_s = target.flush_s, ledger.commit_s

    def _options(self) -> CopyOptions:
        pace = PACES["flat" if self._job.kind == "nbd" else self._job.kind]
        return replace(
            CopyOptions(**self._order.options),
            window=pace.window,
            request_bytes=pace.request_bytes,
            budget=self._budget,
        )

    def _open(
        self,
        stack: ExitStack,
        path: str,
        renewals: list[Callable[[], None]],
        check: Callable[[], None],
        *,
        writable: bool,
    ) -> BlockIO:
        filters, parameters = list[str](), list[str]()
        if writable and self._order.count:
            filters.append("log")
            parameters.append(f"logfile={_log(self._order, self._number)}")
        if self._job.window is not None:
            filters.append("offset")
            offset, length = self._job.window
            parameters += [f"offset={offset}", f"range={length}"]
        fence = (
            Fence(Path(self._order.folder), f"disk{self._number}", "bench") if writable else None
        )
        disk, renew = stack.enter_context(
            open_local(Path(path), writable=writable, fence=fence, check=check)
            if self._job.kind == "file"
            else open_disk(
                Path(path),
                writable=writable,
                fence=fence,
                check=check,
                command=NbdkitCommand(filters=filters, parameters=parameters),
            )
        )
        renewals.append(renew)
        return disk


def _read_all(disk: BlockIO, check: Callable[[], None]) -> None:
    options = CopyOptions()
    requests = Requests(
        disk, check=check, clock=time.monotonic, stall_timeout_s=60, check_interval_s=0.25
    )
    free = [memoryview(bytearray(options.request_bytes)) for _ in range(options.window)]
    offset = 0
    while offset < disk.capacity_bytes or requests.open:
        while free and offset < disk.capacity_bytes:
            view = free.pop()
            length = min(len(view), disk.capacity_bytes - offset)
            requests.read(disk, offset, view[:length], _returning(free, view))
            offset += length
        requests.turn(1.0)


def _returning(free: list[memoryview], view: memoryview) -> Callable[[Answer], None]:
    return lambda _: free.append(view)


def _log(order: Order, number: int) -> Path:
    return Path(order.folder) / f"stats{number}"


def _counted(order: Order, request: str) -> int | None:
    """Bytes of such requests in the logs of the targets' exporters."""
    if not order.count:
        return None
    pattern = re.compile(rf" {request} id=\d+ offset=0x[0-9a-f]+ count=0x([0-9a-f]+)")
    return sum(
        int(count, 16)
        for number in range(len(order.jobs))
        for count in pattern.findall(_log(order, number).read_text())
    )


def _memory(word: str) -> int:
    """Bytes of a line of /proc/self/status."""
    match = re.search(rf"{word}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def run(order: Order) -> Outcome:
    """Run an order in this process."""
    folder = Path(order.folder)
    ledgers: LedgerStore
    if order.durable:
        catalog = Catalog(f"sqlite:///{folder / 'ledger.db'}")
        catalog.migrate()
        ledgers = SqlLedgerStore(catalog)
    else:
        ledgers = MemoryLedgerStore()
    budget = None if order.budget_bytes is None else Budget(order.budget_bytes)
    # A worker has used its database before.
    ledgers.save("warm", "warm", LedgerIdentity("source", "target"), TransferPlan(1))
    ledgers.open("warm", "bench").commit([SegmentRecord(0, 1, 0, 0, 0, ())])
    before = _memory("VmRSS")
    times, began = os.times(), time.perf_counter()
    transfers = [
        _Transfer(number, job, order, ledgers, budget) for number, job in enumerate(order.jobs)
    ]
    for transfer in transfers:
        transfer.start()
    for transfer in transfers:
        transfer.join()
    wall_s, after = time.perf_counter() - began, os.times()
    for transfer in transfers:
        if transfer.failure is not None:
            raise transfer.failure
    return Outcome(
        wall_s=wall_s,
        cpu_s=after.user + after.system - times.user - times.system,
        exporters_cpu_s=after.children_user
        + after.children_system
        - times.children_user
        - times.children_system,
        rss_bytes=_memory("VmHWM") - before,
        flush_s=sum(one.flush_s for one in transfers),
        commit_s=sum(one.commit_s for one in transfers),
        examined_bytes=sum(one.progress.examined_bytes for one in transfers),
        different_bytes=sum(one.progress.different_bytes for one in transfers),
        written_bytes=sum(one.progress.written_bytes for one in transfers),
        zeroed_bytes=sum(one.progress.zeroed_bytes for one in transfers),
        exporter_written_bytes=_counted(order, "Write"),
        exporter_zeroed_bytes=_counted(order, "Zero"),
    )


def main() -> None:
    given = json.loads(sys.argv[1])
    jobs = [Job(**job) for job in given.pop("jobs")]
    print(json.dumps(asdict(run(Order(jobs, **given)))))


if __name__ == "__main__":
    main()
