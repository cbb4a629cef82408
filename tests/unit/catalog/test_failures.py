"""A database that is locked, full, gone, replaced or damaged: one typed error, nothing changed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from failback.catalog import holders
from failback.catalog.engine import Database
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.disks.ledger import LedgerIdentity, SegmentRecord
from failback.disks.plan import BLOCK_BYTES, Extent, TransferPlan
from failback.errors import CatalogUnavailable, SettingsInvalid
from tests.unit.catalog.build import FAILOVER, READY, add, switched


@pytest.fixture
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's open write transaction, begun by the test."""
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def test_a_locked_catalog_is_unavailable_and_readable(
    file_catalog: Catalog, locked: sqlite3.Connection
) -> None:
    add(file_catalog, "web", READY)
    locked.execute("BEGIN IMMEDIATE")

    with pytest.raises(CatalogUnavailable, match="locked") as caught:
        file_catalog.mark_failover("web")

    assert caught.value.retryable
    assert file_catalog.get_replica("web").state is READY
    locked.execute("ROLLBACK")
    assert file_catalog.mark_failover("web").state is FAILOVER


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_process_that_keeps_the_catalog_locked_is_named(
    file_catalog: Catalog, path: Path
) -> None:
    add(file_catalog, "web", READY)
    assert holders.writer(path) is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        assert holders.writer(path) == other.pid
        with pytest.raises(CatalogUnavailable, match=rf"locked by process {other.pid}. Let"):
            file_catalog.mark_failover("web")
        other.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(CatalogUnavailable, match=rf"{other.pid}, which stands still. Let"):
            file_catalog.mark_failover("web")
        other.kill()

    assert file_catalog.mark_failover("web").state is FAILOVER
    assert not holders.is_stopped(other.pid)


def test_a_writer_waits_for_another(path: Path, locked: sqlite3.Connection) -> None:
    catalog = Catalog(f"sqlite:///{path}", busy_timeout_s=30)
    add(catalog, "web", READY)
    locked.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=catalog.mark_failover, args=("web",))
    thread.start()
    thread.join(timeout=0.1)
    assert thread.is_alive()

    locked.execute("ROLLBACK")

    thread.join(timeout=30)
    assert catalog.get_replica("web").state is FAILOVER
    catalog.close()


def limit_pages(catalog: Catalog, path: Path) -> Any:
    """Let the file grow by two pages at most."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = connection.execute("PRAGMA page_count").fetchone()[0] + 2
    connection.close()

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    catalog.close()
    event.listen(catalog.database.engine, "connect", limit)
    return limit


def test_a_full_catalog_is_unavailable_and_whole(file_catalog: Catalog, path: Path) -> None:
    switched(file_catalog, "run-a", "web")
    limit = limit_pages(file_catalog, path)

    def fill() -> None:
        for number in range(1000):
            file_catalog.raise_alarm("run-a", "TEST", f"{number} {'x' * 2000}")

    with pytest.raises(CatalogUnavailable, match="cannot grow"):
        fill()

    alarms = len(file_catalog.alarms("run-a"))
    assert alarms < 1000
    event.remove(file_catalog.database.engine, "connect", limit)
    file_catalog.close()
    file_catalog.raise_alarm("run-a", "TEST", "there is room again")
    assert len(file_catalog.alarms("run-a")) == alarms + 1


def test_a_full_ledger_finishes_no_segment_of_the_commit(file_catalog: Catalog, path: Path) -> None:
    ledger = SqlLedgerStore(file_catalog)
    ledger.save("p", "disk", LedgerIdentity("s", "t"), TransferPlan(1 << 30, 1 << 20))
    held = ledger.open("p", "one")
    written = tuple(Extent(n * 2 * BLOCK_BYTES, BLOCK_BYTES) for n in range(500))
    limit_pages(file_catalog, path)

    with pytest.raises(CatalogUnavailable, match="cannot grow"):
        held.commit([SegmentRecord(n, 1, 1, 1, 0, written) for n in range(200)])

    assert held.finished() == set()


def test_a_deleted_catalog_is_unavailable(file_catalog: Catalog, path: Path) -> None:
    add(file_catalog, "web")
    path.unlink()

    for call in (file_catalog.list_replicas, lambda: add(file_catalog, "db")):
        with pytest.raises(CatalogUnavailable):
            call()

    assert not path.exists()


def test_a_catalog_put_back_is_used_again(
    file_catalog: Catalog, path: Path, template: Path, tmp_path: Path
) -> None:
    add(file_catalog, "web")
    file_catalog.close()
    backup = Path(shutil.copy(path, tmp_path / "backup.db"))
    add(file_catalog, "db")
    backup.replace(path)
    for leftover in ("catalog.db-wal", "catalog.db-shm"):
        (tmp_path / leftover).unlink(missing_ok=True)

    assert [record.key for record in file_catalog.list_replicas()] == ["web"]


def test_a_catalog_that_never_was_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    catalog = Catalog(f"sqlite:///{path}")

    with pytest.raises(CatalogUnavailable, match="not there"):
        catalog.list_replicas()

    assert not path.exists()
    with pytest.raises(CatalogUnavailable, match="cannot be created"):
        Catalog(f"sqlite:///{tmp_path}/no/folder/catalog.db").migrate()


def test_a_damaged_catalog_is_unavailable(file_catalog: Catalog, path: Path) -> None:
    file_catalog.close()
    path.write_bytes(b"this is no database " * 1000)

    with pytest.raises(CatalogUnavailable, match="damaged"):
        file_catalog.list_replicas()


def test_connections_keep_the_rules(file_catalog: Catalog) -> None:
    with file_catalog.database.engine.connect() as connection:
        rules = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }

    assert rules == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 50,
    }


def test_a_server_that_does_not_answer_or_has_no_driver_here_is_said_so() -> None:
    # The driver is not among the locked packages: SQLite needs none.
    answer = "does not answer" if find_spec("psycopg") else "psycopg"

    with pytest.raises((CatalogUnavailable, SettingsInvalid), match=answer):
        Database("postgresql://nobody@127.0.0.1:1/none").read(lambda session: session.connection())


def test_many_threads_share_one_catalog(catalog: Catalog) -> None:
    add(catalog, "web", READY)
    epochs: list[int] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                epochs.append(catalog.take_lease("x", "thread"))
                catalog.get_replica("web")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert sorted(epochs) == list(range(1, 81))
