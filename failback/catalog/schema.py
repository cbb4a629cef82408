"""Brings a catalog's schema to this version; safe when several workers start at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from failback.catalog.engine import (
    BUSY_TIMEOUT_S,
    make_engine,
    parse_url,
    sqlite_path,
    typed_errors,
)
from failback.errors import CatalogUnavailable, StateConflict

SCRIPTS = Path(__file__).parent / "migrations"

ADVISORY_LOCK = 0x6661696C6261636B
"""Key of the PostgreSQL lock that migrating workers queue at: the bytes of `failback`."""

# Alembic keeps the migration under way in module globals, so one thread at a time.
_one_at_a_time = threading.Lock()


def migrate(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """Create the catalog or upgrade it to this version; up to date already is success.

    An SQLite file is created with mode 0600. Everything happens in one transaction that other
    migrating processes wait for.

    Raises:
        SettingsInvalid: the URL is wrong.
        CatalogUnavailable: locked, full or not to be reached; nothing was changed.
        StateConflict: a newer version of this program has migrated it already.
    """
    parsed = parse_url(url)
    _make_private(parsed)
    engine = make_engine(parsed, busy_timeout_s)
    try:
        with (
            _one_at_a_time,
            typed_errors(parsed),
            engine.execution_options(failback_writes=True).begin() as connection,
        ):
            _upgrade(connection)
    finally:
        engine.dispose()


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration of our scripts; developers make a revision with it."""
    made = Config()
    # A percent sign in the path would be an interpolation.
    made.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    made.set_main_option("path_separator", "newline")
    made.attributes["connection"] = connection
    return made


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    settings = config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise StateConflict(
            f"The catalog has schema {min(unknown)}, which this version does not know.",
            "Start the newer version of failback that has migrated it.",
        )
    try:
        command.upgrade(settings, "head")
    except CommandError as error:
        raise CatalogUnavailable(
            f"The schema of the catalog cannot be upgraded: {error}.",
            "Install the package again: its migration scripts are incomplete.",
        ) from error


def _make_private(url: URL) -> None:
    path = sqlite_path(url)
    if path is None:
        return
    try:
        # SQLite gives its -wal and -shm files the mode of the database file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CatalogUnavailable(
            f"The file of the catalog, {path}, cannot be created or opened "
            f"({type(error).__name__}).",
            "Check that its folder exists and belongs to this account.",
        ) from error
