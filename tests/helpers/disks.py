"""Shared by the tests of the data path: contents, waiting, a ledger in a file, a mover process.

`python -m tests.helpers.disks ORDER` runs a mover that a test may kill or stop at any instant.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from failback.disks import supervisor
from failback.disks.blockio import BlockIO
from failback.disks.copier import CopyOptions, copy
from failback.disks.exporter import Command
from failback.disks.fence import Fence
from failback.disks.ledger import SegmentRecord, SegmentSet, SegmentTotals, total
from failback.disks.opening import NBDKIT, WRITER, open_disk, open_local
from failback.disks.plan import BLOCK_BYTES, Extent, TransferPlan
from failback.disks.progress import CopyProgress
from failback.disks.throttle import Throttle
from failback.errors import FailbackError, LeaseLost

KIB = 1024
MIB = 1024 * 1024
REPOSITORY = Path(__file__).parents[2]
QUICK = CopyOptions(window=4, request_bytes=2 * BLOCK_BYTES, flush_interval_s=0.02)


def no_check() -> None:
    """A check that never objects."""


def no_report(_: CopyProgress) -> None:
    """A report that nobody reads."""


def eventually(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """The condition's first true value; fails the test if it stays false."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
    return value


def content(rng: random.Random, size: int, *, zero_share: float = 0.3) -> bytes:
    """Random blocks with zero blocks between them."""
    blocks = (
        bytes(BLOCK_BYTES) if rng.random() < zero_share else rng.randbytes(BLOCK_BYTES)
        for _ in range(-(-size // BLOCK_BYTES))
    )
    return b"".join(blocks)[:size]


def changed(rng: random.Random, original: bytes, *, share: float = 0.3) -> bytes:
    """The original with a share of its blocks made different, some of them to zeroes."""
    data = bytearray(original)
    for start in range(0, len(data), BLOCK_BYTES):
        end = min(start + BLOCK_BYTES, len(data))
        if rng.random() < share:
            at = rng.randrange(start, end)
            length = rng.randint(1, end - at)
            filler = bytes(length) if rng.random() < 0.3 else rng.randbytes(length)
            data[at : at + length] = filler
    return bytes(data)


def alive(pid: int | None) -> bool:
    return pid is not None and supervisor.start_time(pid) is not None


def holder(fence: Fence) -> dict[str, Any]:
    """Who is on record as holding the fence; empty before the first."""
    if not fence.holder_path.exists():
        return {}
    found: dict[str, Any] = json.loads(fence.holder_path.read_bytes())
    return found


def exporter_pid(fence: Fence) -> int | None:
    known = holder(fence).get("exporter")
    return known[0] if known else None


def supervisor_pid(fence: Fence) -> int | None:
    known = holder(fence).get("supervisor")
    return known[0] if known else None


class FileLedger:
    """A PassLedger in a small file, so that it survives its process. The newest holder wins."""

    def __init__(self, path: Path, plan: TransferPlan) -> None:
        self.path = path
        self.plan = plan
        with self._state() as state:
            state["opened"] = self._opened = state.get("opened", 0) + 1

    def finished(self) -> SegmentSet:
        return SegmentSet(record.index for record in self.records())

    def totals(self) -> SegmentTotals:
        return total(self.records())

    def records(self) -> Iterator[SegmentRecord]:
        with self._state() as state:
            found = state.get("finished", {}).values()
        for record in sorted(found, key=lambda record: int(record["index"])):
            extents = tuple(Extent(**one) for one in record["written"])
            yield SegmentRecord(**{**record, "written": extents})

    def commit(self, records: Sequence[SegmentRecord]) -> None:
        with self._state(held=True) as state:
            finished = state.setdefault("finished", {})
            finished.update({str(record.index): asdict(record) for record in records})

    def complete(self) -> None:
        with self._state(held=True) as state:
            state["complete"] = True

    @contextmanager
    def _state(self, *, held: bool = False) -> Iterator[dict[str, Any]]:
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(self.path.read_bytes()) if self.path.exists() else {}
            if held and state["opened"] != self._opened:
                raise LeaseLost("The pass was taken over by another attempt.")
            yield state
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(state))
            os.replace(new, self.path)


def finished_count(path: Path) -> int:
    """Segments that a FileLedger knows as finished."""
    return len(json.loads(path.read_bytes()).get("finished", {})) if path.exists() else 0


@dataclass(frozen=True)
class Site:
    """Two files, a ledger and a fence in one directory."""

    root: Path
    size: int
    segment_bytes: int = 256 * KIB
    kind: str = "flat"
    """How the disks are opened: `flat` through exporters, `file` by the mover itself."""

    @property
    def source(self) -> Path:
        return self.root / "source.img"

    @property
    def target(self) -> Path:
        return self.root / "target.img"

    @property
    def ledger_path(self) -> Path:
        return self.root / "ledger.json"

    @property
    def plan(self) -> TransferPlan:
        return TransferPlan(self.size, self.segment_bytes)

    def fence(self, owner: str = "test") -> Fence:
        return Fence(self.root / "state", "disk-1", owner)

    def fill(self, rng: random.Random) -> bytes:
        """Write different contents to both files; returns the source's."""
        original = content(rng, self.size)
        self.source.write_bytes(original)
        self.target.write_bytes(changed(rng, original, share=0.5))
        return original

    def run(
        self,
        *,
        owner: str = "test",
        lease_s: float = 10.0,
        options: CopyOptions = QUICK,
        command: Command | None = None,
        wrap: Callable[[BlockIO], BlockIO] = lambda disk: disk,
        report: Callable[[CopyProgress], None] = no_report,
    ) -> CopyProgress:
        """One attempt of a mover."""
        renewals: list[Callable[[], None]] = []

        def check() -> None:
            for renew in renewals:
                renew()

        opener = open_local if self.kind == "file" else open_disk
        with (
            opener(self.source, writable=False, fence=None, check=check, lease_s=lease_s) as src,
            opener(
                self.target,
                writable=True,
                fence=self.fence(owner),
                check=check,
                lease_s=lease_s,
                command=command or (WRITER if self.kind == "file" else NBDKIT),
            ) as tgt,
        ):
            renewals += [src[1], tgt[1]]
            ledger = FileLedger(self.ledger_path, self.plan)
            return copy(
                src[0],
                wrap(tgt[0]),
                ledger,
                options=options,
                check=check,
                report=report,
                clock=time.monotonic,
            )


@contextmanager
def mover(site: Site, *, lease_s: float, bytes_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """A mover in a process of its own, at a limited speed; killed at the end."""
    order = {
        "root": str(site.root),
        "size": site.size,
        "segment_bytes": site.segment_bytes,
        "lease_s": lease_s,
        "bytes_s": bytes_s,
        "kind": site.kind,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.disks", json.dumps(order)], cwd=REPOSITORY
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Exit 0 when the copy is complete, 3 when it ended with one of our errors."""
    order = json.loads(sys.argv[1])
    site = Site(Path(order["root"]), order["size"], order["segment_bytes"], order["kind"])
    throttle = Throttle(order["bytes_s"], clock=time.monotonic, burst_s=0.02)
    options = CopyOptions(
        window=4, request_bytes=2 * BLOCK_BYTES, flush_interval_s=0.02, throttle=throttle
    )
    try:
        site.run(owner=f"mover {os.getpid()}", lease_s=order["lease_s"], options=options)
    except FailbackError as error:
        print(f"{error.type}: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
