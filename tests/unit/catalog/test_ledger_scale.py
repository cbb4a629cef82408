"""A disk of 64 TiB has a million segments: its ledger is opened in seconds and little memory."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from failback.catalog import schema
from failback.catalog.extents import encode
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.disks.copier import CopyOptions, copy
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import BLOCK_BYTES, SEGMENT_BYTES, Extent, TransferPlan
from failback.disks.testing import MemoryDisk, MemoryVolume

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024
MAX_GROWTH_BYTES = 64 * MIB
OPEN_S = 30.0
"""Four seconds where nothing else runs; anything quadratic would take many minutes."""


class Vast(MemoryDisk):
    """A disk that says it is as large as one likes; nothing on it is ever read."""

    def __init__(self, capacity_bytes: int) -> None:
        super().__init__(MemoryVolume(b""), maps_zeroes=False)
        self.capacity_bytes = capacity_bytes


def fill(path: Path, count: int) -> None:
    """A plan whose segments are all finished, each with one written block."""
    schema.migrate(f"sqlite:///{path}")
    catalog = Catalog(f"sqlite:///{path}")
    plan = TransferPlan(count * SEGMENT_BYTES)
    SqlLedgerStore(catalog).save("p", "disk", LedgerIdentity("s", "t"), plan)
    catalog.close()
    database = sqlite3.connect(path)
    database.executemany(
        "INSERT INTO ledger_segment VALUES ('p', ?, ?, 65536, 65536, 0, ?)",
        (
            (number, SEGMENT_BYTES, encode((Extent(number * SEGMENT_BYTES, BLOCK_BYTES),)))
            for number in range(count)
        ),
    )
    database.commit()
    database.close()


def work(path: Path, count: int) -> dict[str, float]:
    """Everything that a mover and a verification ask of the ledger, with time and memory."""
    catalog = Catalog(f"sqlite:///{path}")
    store = SqlLedgerStore(catalog)
    store.open("p", "warm up").totals()
    forget_peak()
    before, began = resident_bytes("VmRSS"), time.monotonic()
    ledger = store.open("p", "one")
    disk = Vast(count * SEGMENT_BYTES)
    progress = copy(
        disk,
        Vast(count * SEGMENT_BYTES),
        ledger,
        options=CopyOptions(),
        check=lambda: None,
        report=lambda _: None,
        clock=time.monotonic,
    )
    seconds = time.monotonic() - began
    assert progress.remaining_bytes == 0
    assert ledger.totals().different_bytes == count * BLOCK_BYTES
    assert sum(extent.length for extent in store.written("disk")) == count * BLOCK_BYTES
    catalog.close()
    return {"seconds": seconds, "growth_bytes": resident_bytes("VmHWM") - before}


def resident_bytes(key: str) -> int:
    """VmRSS: now; VmHWM: the most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize(
    "count", [20_000, pytest.param(1_000_000, marks=pytest.mark.soak)], ids=["small", "million"]
)
def test_a_pass_of_many_segments_is_resumed_in_little_time_and_memory(
    tmp_path: Path, count: int
) -> None:
    fill(tmp_path / "ledger.db", count)

    run = subprocess.run(
        [sys.executable, "-m", "tests.unit.catalog.test_ledger_scale", str(tmp_path), str(count)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )

    measured = json.loads(run.stdout)
    print(measured)
    assert measured["growth_bytes"] < MAX_GROWTH_BYTES
    assert measured["seconds"] < OPEN_S


if __name__ == "__main__":
    print(json.dumps(work(Path(sys.argv[1]) / "ledger.db", int(sys.argv[2]))))
