"""A migrated catalog for every test: a copy of one made once, in SQLite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from failback.catalog.repository import Catalog
from failback.catalog.schema import migrate
from tests.unit.catalog.build import NOW

POSTGRES = os.environ.get("FAILBACK_TEST_POSTGRES")
"""URL of an empty PostgreSQL database: the same tests run there too."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "catalog.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """File of an empty catalog."""
    return Path(shutil.copy(template, tmp_path / "catalog.db"))


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRES else [])])
def url(request: pytest.FixtureRequest, path: Path) -> str:
    """URL of an empty catalog."""
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    assert POSTGRES
    empty_postgres(POSTGRES)
    migrate(POSTGRES)
    return POSTGRES


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """A catalog whose clock stands still."""
    catalog = Catalog(url, now=lambda: NOW)
    yield catalog
    catalog.close()


@pytest.fixture
def file_catalog(path: Path) -> Iterator[Catalog]:
    """A catalog in an SQLite file that gives up waiting for a lock at once."""
    catalog = Catalog(f"sqlite:///{path}", now=lambda: NOW, busy_timeout_s=0.05)
    yield catalog
    catalog.close()


def empty_postgres(url: str) -> None:
    """Drop what an earlier test left."""
    catalog = Catalog(url)
    with catalog.database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    catalog.close()
