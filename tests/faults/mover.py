"""A mover as a process of its own: what a worker does for one disk, without Temporal.

It opens both disks as the product does (exporter, supervisor, fence), takes the pass over in the
SQL ledger and copies. A test may kill, stop or starve it at any instant.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy import event

from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog, utc_now
from failback.disks.blockio import Answer, BlockIO, Clock
from failback.disks.copier import CopyOptions
from failback.disks.exporter import NbdkitCommand
from failback.disks.fence import Fence
from failback.disks.opening import NBDKIT, WRITER, open_disk, open_local
from failback.disks.progress import CopyProgress
from failback.disks.remote.disk import MoverAddress, RemoteDisk, open_remote
from failback.disks.remote.scout import copy_from
from failback.disks.throttle import Throttle
from failback.disks.tls import TlsClient, TlsFiles
from failback.errors import FailbackError, Stopped
from tests.faults.far import NAME
from tests.helpers.disks import QUICK


@dataclass(frozen=True)
class Order:
    """What one attempt is to do, and under which conditions."""

    source: Path
    target: Path
    fence: Fence
    url: str
    """Of the catalog that holds the ledger."""
    plan_id: str
    options: CopyOptions = QUICK
    bytes_s: float | None = None
    """Speed limit, so that there is a middle to be killed in."""
    lease_s: float = 30.0
    from_source: NbdkitCommand = NBDKIT
    to_target: NbdkitCommand = NBDKIT
    connect_timeout_s: float = 10.0
    io_timeout_s: float = 120.0
    busy_timeout_s: float = 10.0
    clock: Clock = time.monotonic
    now: Callable[[], datetime] = utc_now
    far: tuple[int, TlsFiles] | None = None
    """Port and our certificate: the source is read by the other site's mover (method digest)."""
    local: bool = False
    """Both disks are read by the mover itself, without an exporter (kind file)."""
    late_flush: bool = False
    """Put a commit before its flush: the mistake that the checks must notice."""
    ledger_pages: int | None = None
    """The ledger's database may not grow beyond so many pages: a full file system."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; no code where it ended well."""

    code: str = ""
    what: str = ""
    remedy: str = ""
    retryable: bool = False
    evidence: dict[str, str | int | None] = field(default_factory=dict)
    progress: CopyProgress | None = None

    @property
    def done(self) -> bool:
        return not self.code


def run(order: Order, said: Connection) -> None:
    """The process: tells CopyProgress again and again, and an Ending at the end."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    try:
        ending = Ending(progress=attempt(order, said.send, lambda: bool(stopping)))
    except FailbackError as error:
        ending = Ending(error.type, error.what, error.remedy, error.retryable, dict(error.evidence))
    said.send(ending)


def attempt(
    order: Order, report: Callable[[CopyProgress], None], stopping: Callable[[], bool]
) -> CopyProgress:
    """One attempt at the pass."""
    renewals: list[Callable[[], None]] = []

    def check() -> None:
        for renew in renewals:
            renew()
        if stopping():
            raise Stopped("The worker is shutting down.", "Another attempt goes on.")

    with ExitStack() as stack:
        opener = open_local if order.local else open_disk

        def opened(path: Path, *, writable: bool, command: NbdkitCommand) -> BlockIO:
            disk, renew = stack.enter_context(
                opener(
                    path,
                    writable=writable,
                    fence=order.fence if writable else None,
                    check=check,
                    lease_s=order.lease_s,
                    command=WRITER if order.local else command,
                    connect_timeout_s=order.connect_timeout_s,
                    io_timeout_s=order.io_timeout_s,
                )
            )
            renewals.append(renew)
            return disk

        # As a worker does: the fence before the ledger.
        target = opened(order.target, writable=True, command=order.to_target)
        source = (
            opened(order.source, writable=False, command=order.from_source)
            if order.far is None
            else stack.enter_context(contextlib.closing(opened_far(order, *order.far)))
        )
        catalog = Catalog(order.url, busy_timeout_s=order.busy_timeout_s)
        stack.callback(catalog.close)
        if order.ledger_pages is not None:
            _limit_growth(catalog, order.ledger_pages)
        throttle = order.bytes_s and Throttle(order.bytes_s, clock=time.monotonic, burst_s=0.02)
        return copy_from(
            source,
            LateFlush(target) if order.late_flush else target,
            SqlLedgerStore(catalog, now=order.now).open(order.plan_id, order.fence.owner),
            options=replace(order.options, throttle=throttle or None),
            check=check,
            report=report,
            clock=order.clock,
        )


def opened_far(order: Order, port: int, files: TlsFiles) -> RemoteDisk:
    """The source, behind TLS."""
    return open_remote(
        MoverAddress("127.0.0.1", port, TlsClient(files.client(), NAME)),
        str(order.source),
        "replica disk",
        connect_timeout_s=order.connect_timeout_s,
        io_timeout_s=order.io_timeout_s,
    )


def _limit_growth(catalog: Catalog, pages: int) -> None:
    def limit(connection: object, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]

    event.listen(catalog.database.engine, "connect", limit)


class LateFlush:
    """A target whose flushes are answered at once, and only every fifth is sent: segments are
    committed up to four checkpoints before they are flushed."""

    def __init__(self, disk: BlockIO) -> None:
        self._disk = disk
        self._answers: list[Answer] = []
        self._owed = 0
        self._wake: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        return self._disk.name

    @property
    def capacity_bytes(self) -> int:
        return self._disk.capacity_bytes

    @property
    def max_request_bytes(self) -> int:
        return self._disk.max_request_bytes

    @property
    def maps_zeroes(self) -> bool:
        return self._disk.maps_zeroes

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        self._disk.submit_read(tag, offset, into)

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        self._disk.submit_write(tag, offset, data)

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        self._disk.submit_zero(tag, offset, length)

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        self._disk.submit_map(tag, offset, length)

    def submit_flush(self, tag: int) -> None:
        self._owed += 1
        if self._owed % 5 == 0:
            self._disk.submit_flush(-tag)
        self._answers.append(Answer(tag))
        self._wake()

    def poll(self, timeout_s: float) -> list[Answer]:
        early, self._answers = self._answers, []
        heard = self._disk.poll(0 if early else timeout_s)
        return early + [answer for answer in heard if answer.tag > 0]

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._disk.on_answer(wake)

    def interest(self) -> tuple[int, int] | None:
        return self._disk.interest()

    def close(self) -> None:
        self._disk.close()


class JumpingClock:
    """A clock that is set: by up to an hour, back or forth, at every tenth look or so."""

    def __init__(self, seed: int, *, back: bool) -> None:
        self._rng = random.Random(seed)
        self._back = back
        self._offset_s = 0.0

    def __call__(self) -> float:
        if self._rng.random() < 0.1:
            jump_s = self._rng.uniform(0, 3600)
            self._offset_s += -jump_s if self._back else jump_s
        return time.monotonic() + self._offset_s


class JumpingWallClock:
    """A calendar that says any moment of two centuries."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __call__(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=self._rng.uniform(0, 73_000))
