"""The schema: what the migrations make is what the tables say, whoever else migrates."""

from __future__ import annotations

import concurrent.futures
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from failback.catalog.repository import Catalog
from failback.catalog.schema import SCRIPTS, migrate
from failback.catalog.tables import Table
from failback.errors import CatalogUnavailable, SettingsInvalid, StateConflict
from tests.unit.catalog.build import add

ROOT = Path(__file__).parents[3]


def test_the_migrations_make_exactly_the_tables(catalog: Catalog) -> None:
    with catalog.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_every_constraint_has_a_name(path: Path) -> None:
    for table in Table.metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, f"{table.name} has a constraint that no migration can change"


def test_migrating_again_keeps_the_data(path: Path) -> None:
    catalog = Catalog(f"sqlite:///{path}")
    add(catalog, "web")

    catalog.migrate()

    assert len(catalog.list_replicas()) == 1
    catalog.close()


def test_workers_that_start_together_migrate_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    code = f"from failback.catalog.schema import migrate; migrate({url!r})"
    workers = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(3)
    ]

    for worker in workers:
        assert worker.communicate(timeout=60)[1] == b""
        assert worker.returncode == 0

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(migrate, [url] * 4))
    catalog = Catalog(url)
    assert catalog.list_replicas() == ()
    catalog.close()


def test_a_failed_migration_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    with sqlite3.connect(path) as connection:
        # In the way of the last table of the first migration.
        connection.execute("CREATE TABLE ledger_segment (x)")
    connection.close()

    with pytest.raises(CatalogUnavailable):
        migrate(f"sqlite:///{path}")

    connection = sqlite3.connect(path)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert tables == {"ledger_segment"}


def test_only_the_account_of_the_worker_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.touch(mode=0o644)
    before = os.umask(0)
    try:
        migrate(f"sqlite:///{path}")
        catalog = Catalog(f"sqlite:///{path}")
        add(catalog, "web")
        files = list(tmp_path.iterdir())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files}
    finally:
        os.umask(before)
    catalog.close()

    assert modes["catalog.db"] == 0o600
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3


def test_a_catalog_of_a_newer_version_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    with pytest.raises(StateConflict, match="9999"):
        migrate(f"sqlite:///{path}")


def test_a_catalog_that_was_not_migrated_says_so(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    sqlite3.connect(path).execute("PRAGMA user_version = 1").connection.close()
    catalog = Catalog(f"sqlite:///{path}")

    with pytest.raises(CatalogUnavailable, match="lacks a table"):
        catalog.list_replicas()
    catalog.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("no url at all", "not a database URL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("postgresql://ann:geheim@host/db", "carries a password"),
        ("postgresql://host/db?password=geheim", "carries a password"),
        ("nosuch://host/db", "driver"),
    ],
)
def test_a_wrong_url_is_refused_without_repeating_it(url: str, complaint: str) -> None:
    for call in (migrate, Catalog):
        with pytest.raises(SettingsInvalid, match=complaint) as caught:
            call(url)
        assert "geheim" not in str(caught.value)


def test_the_scripts_are_in_the_package() -> None:
    assert {"env.py", "script.py.mako", "versions"} <= {file.name for file in SCRIPTS.iterdir()}


def test_importing_the_package_loads_no_database() -> None:
    code = "import sys, failback.catalog; print('sqlalchemy' in sys.modules)"

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "False"
