"""The ledger's database locked, full, damaged or gone; clocks that jump."""

from __future__ import annotations

import ast
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from failback.catalog.schema import migrate
from failback.disks import exporter, fence, opening, supervisor
from tests.faults.matrix import Matrix
from tests.faults.mover import JumpingClock, JumpingWallClock
from tests.faults.scene import Scene, copy_of
from tests.helpers.disks import MIB

NewScene = Callable[..., Scene]


def file_of(scene: Scene) -> Path:
    return Path(scene.url.removeprefix("sqlite:///"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else writes to the database and does not come to an end."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def test_a_locked_ledger(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    with here.start(bytes_s=8 * MIB, busy_timeout_s=0.2) as running:
        running.until(lambda: len(here.finished()) > 1)
        with locked(file_of(here)):
            ending = running.ending()

    assert ending is not None
    assert ending.code == "CatalogUnavailable"
    assert "locked" in ending.what
    assert here.wrong_segments() == []
    here.finish()
    matrix.add("the ledger is locked", ending)


def test_a_ledger_that_cannot_grow(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    here.plan_name = "long" * 500  # every segment's row bears the name, so rows take pages
    here.save_plan()
    with sqlite3.connect(file_of(here)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()

    # One commit for all, too large for what is left.
    ending = here.attempt(ledger_pages=pages, options=replace(here.options, flush_interval_s=60))

    assert ending.code == "CatalogUnavailable"
    assert "cannot grow" in ending.what
    assert here.wrong_segments() == []
    here.finish()
    matrix.add("the ledger's file system is full", ending)


def test_a_ledger_that_is_deleted(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    file = file_of(here)
    with here.start(bytes_s=8 * MIB) as running:
        running.until(lambda: len(here.finished()) > 1)
        for name in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
            name.unlink(missing_ok=True)
        ending = running.ending()

    assert ending is not None
    assert ending.code == "CatalogUnavailable"
    assert not file.exists(), "a new one is not made by the way"
    # What it said is forgotten, so everything is compared again.
    migrate(here.url)
    here.save_plan()
    assert here.finished() == set()
    here.finish()
    matrix.add("the ledger is gone", ending)


def test_a_ledger_put_back_from_a_backup(scene: NewScene, matrix: Matrix) -> None:
    """An older ledger knows less, which costs a comparison and nothing else."""
    here = scene()
    backup = here.root / "backup"
    backup.mkdir()
    url = copy_of(file_of(here), backup)
    here.finish()

    here.url = url
    here.save_plan()
    ending = here.finish()

    assert ending.progress is not None
    assert ending.progress.different_bytes == 0
    matrix.add("the ledger is an older one", ending)


def test_a_clock_that_goes_back(scene: NewScene, matrix: Matrix) -> None:
    here = scene()

    matrix.add("the clock jumps back", here.finish(clock=JumpingClock(7, back=True)))


def test_a_clock_that_goes_forward(scene: NewScene, matrix: Matrix) -> None:
    here = scene()

    ending = here.finish(clock=JumpingClock(7, back=False))

    matrix.add("the clock jumps forward", ending)


def test_a_calendar_that_is_set_during_a_pass(scene: NewScene, matrix: Matrix) -> None:
    here = scene()

    matrix.add("the wall clock jumps", here.finish(now=JumpingWallClock(7), lease_s=2.0))


@pytest.mark.parametrize("module", [exporter, fence, opening, supervisor])
def test_no_lease_looks_at_the_calendar(module: object) -> None:
    """Leases count by the time since boot, which nobody can set."""
    path = getattr(module, "__file__", None)
    assert isinstance(path, str)
    tree = ast.parse(Path(path).read_text())
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    assert not {
        name for name in used if name in {"time.time", "time.time_ns"} or "datetime" in name
    }
    assert abs(supervisor.boottime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
