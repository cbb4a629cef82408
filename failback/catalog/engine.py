"""The database: how it is opened, what a transaction is, and which errors come out.

SQLite: WAL, synchronous=FULL, foreign keys, and BEGIN IMMEDIATE for writers, so that two of them
queue at the start instead of failing in the middle. PostgreSQL: read committed with row locks.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlmodel import Session

from failback.catalog import holders
from failback.errors import CatalogUnavailable, SettingsInvalid, StateConflict

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for another; well below a heartbeat timeout."""

POOL_SIZE = 8
POOL_OVERFLOW = 64
"""More than a worker has threads: a beat must not wait for a connection."""


def parse_url(url: str) -> URL:
    """The URL of a catalog; SettingsInvalid where it cannot be one."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise SettingsInvalid(
            "The URL of the catalog is not a database URL.",
            "Give it as sqlite:////folder/catalog.db or postgresql://user@host/database.",
        ) from error
    if parsed.password is not None or "password" in parsed.query:
        raise SettingsInvalid(
            "The URL of the catalog carries a password.",
            "Take it out, and put it in the PostgreSQL password file (~/.pgpass or PGPASSFILE).",
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingsInvalid(
            "The URL of the catalog names a database in memory, which nothing survives.",
            "Give it as sqlite:////folder/catalog.db.",
        )
    return parsed


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite catalog; None for a server."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def make_engine(url: URL, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine with our rules for connections and transactions; connects at first use."""
    path = sqlite_path(url)
    pool: dict[str, Any] = {"pool_size": POOL_SIZE, "max_overflow": POOL_OVERFLOW}
    if path is None:
        try:
            # hide_parameters: values never reach an error text.
            return create_engine(url, hide_parameters=True, pool_pre_ping=True, **pool)
        except (ImportError, exc.ArgumentError) as error:
            raise SettingsInvalid(
                f"The driver for the catalog's database {url.drivername} cannot be loaded.",
                "Install it (PostgreSQL: psycopg), or use SQLite.",
            ) from error

    def connect() -> sqlite3.Connection:
        # mode=rw: a file that is gone is an error, not a new empty catalog.
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(url, creator=connect, hide_parameters=True, **pool)

    def remember_file(connection: Any, record: Any) -> None:
        record.info["file"] = _file_number(path)

    def check_file(connection: Any, record: Any, proxy: Any) -> None:
        # SQLite would go on writing to a file that was deleted or replaced under it.
        if record.info.get("file") != _file_number(path):
            raise exc.DisconnectionError("the file of the catalog was replaced")

    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("failback_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", remember_file)
    event.listen(engine, "checkout", check_file)
    event.listen(engine, "begin", begin)
    return engine


def _file_number(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


@contextmanager
def typed_errors(url: URL) -> Iterator[None]:
    """The one place where database errors become ours."""
    where = url.render_as_string(hide_password=True)
    try:
        yield
    except exc.IntegrityError as error:
        raise StateConflict(
            "The catalog refused a record that contradicts another one.",
            "Try again; if it happens again, report it with the worker's log.",
            fault=type(error.orig).__name__,
        ) from error
    except (exc.TimeoutError, exc.InvalidRequestError) as error:
        if not isinstance(error, exc.TimeoutError | exc.DisconnectionError) and (
            not isinstance(error.__cause__, exc.DisconnectionError)
        ):
            raise
        raise CatalogUnavailable(
            f"The catalog {where} has no connection to give.",
            "Look whether the database is overloaded or was replaced.",
        ) from error
    except exc.DBAPIError as error:
        raise CatalogUnavailable(*_explain(where, sqlite_path(url), error)) from error


def _explain(where: str, file: Path | None, error: exc.DBAPIError) -> tuple[str, str]:
    text = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
    lower = text.lower()
    if re.search(r"no such (table|column)|(relation|column) .* does not exist", lower):
        return (
            f"The catalog {where} lacks a table of this version ({text}).",
            "Start the worker once, or run `failback catalog migrate`.",
        )
    if "unable to open" in lower:
        return (
            f"The catalog {where} is not there or may not be opened.",
            "Check the path, restore the file, or run `failback catalog migrate` for a new one.",
        )
    if "locked" in lower or "busy" in lower:
        pid = holders.writer(file) if file is not None else None
        if pid is None or pid == os.getpid():
            return (
                f"The catalog {where} is locked by another process.",
                "Look for a stuck process that has the database open; a run tries again by itself.",
            )
        stands = ", which stands still" if holders.is_stopped(pid) else ""
        return (
            f"The catalog {where} is locked by process {pid}{stands}.",
            "Let that process go on, or end it; a run tries again by itself.",
        )
    if "full" in lower:
        return (f"The catalog {where} cannot grow: {text}.", "Make room on its file system.")
    if "malformed" in lower or "not a database" in lower:
        return (f"The catalog {where} is damaged ({text}).", "Restore it from a backup.")
    return (f"The catalog {where} does not answer ({text}).", "Check the database server or file.")


class Database:
    """Runs functions in transactions. Thread-safe: every call has a session of its own."""

    def __init__(self, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.url = parse_url(url)
        self.where = self.url.render_as_string(hide_password=True)
        self.engine = make_engine(self.url, busy_timeout_s)
        self._writer = self.engine.execution_options(failback_writes=True)

    @property
    def single_host(self) -> bool:
        """True where the database is a file, which a second host must not open."""
        return sqlite_path(self.url) is not None

    def read(
        self, work: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(session, ...)` in one transaction that writes nothing."""
        with typed_errors(self.url), Session(self.engine) as session, session.begin():
            return work(session, *args, **kwargs)

    def write(
        self, work: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(session, ...)` in one transaction: all of it is durable on return, or none.

        `work` may run twice: where another writer has just inserted the row that it was about to
        insert, the second time finds that row.
        """
        with typed_errors(self.url):
            try:
                return self._write(work, *args, **kwargs)
            except exc.IntegrityError:
                return self._write(work, *args, **kwargs)

    def _write(
        self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with Session(self._writer) as session, session.begin():
            return work(session, *args, **kwargs)

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self.engine.dispose()
