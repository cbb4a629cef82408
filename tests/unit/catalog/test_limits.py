"""What a run carries in the catalog beside its steps: limits and plan."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command

from failback.catalog.engine import make_engine, parse_url
from failback.catalog.repository import Catalog
from failback.catalog.schema import config
from failback.contracts.policies import Limits, TransferWindow
from failback.errors import StateConflict
from tests.unit.catalog.build import add, start


def test_the_newest_limits_are_read(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    newest = Limits(
        bandwidth_bytes_per_s=1000, window=TransferWindow(begin="22:00", end="06:00"), note="night"
    )

    before = catalog.run_limits("run-a")
    catalog.set_run_limits("run-a", Limits(bandwidth_bytes_per_s=7))
    catalog.set_run_limits("run-a", newest)

    assert before is None
    assert catalog.run_limits("run-a") == newest


def test_limits_and_plan_belong_to_a_run(catalog: Catalog) -> None:
    assert catalog.run_limits("run-x") is None
    with pytest.raises(StateConflict, match="no run run-x"):
        catalog.set_run_limits("run-x", Limits())
    with pytest.raises(StateConflict, match="no run run-x"):
        catalog.set_run_plan("run-x", "{}")


def test_the_plan_is_kept_with_the_run(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")

    assert catalog.get_run("run-a").plan is None
    catalog.set_run_plan("run-a", '{"final_name": "web"}')

    assert catalog.get_run("run-a").plan == '{"final_name": "web"}'


def test_a_catalog_of_the_first_version_is_upgraded_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.touch(mode=0o600)
    engine = make_engine(parse_url(f"sqlite:///{path}"), 5.0)
    with engine.begin() as connection:
        command.upgrade(config(connection), "0001")
    engine.dispose()
    with sqlite3.connect(path) as old:
        old.execute(
            "INSERT INTO alarm VALUES (1, 'run-a', '2026-01-01', '2026-01-01', 1, 'C', 'm')"
        )
    old.close()

    catalog = Catalog(f"sqlite:///{path}")
    catalog.migrate()

    assert [alarm.message for alarm in catalog.alarms("run-a")] == ["m"]
    assert catalog.list_runs() == ()
    catalog.close()
