"""A PostgreSQL server of one's own, where its programs are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tests.helpers.disks import eventually

USER = "failback"


def missing() -> str:
    """Why there can be no server here; empty if there can."""
    for program in ("initdb", "postgres"):
        if _program(program) is None:
            return f"{program} of PostgreSQL is not installed"
    if os.geteuid() == 0 and _other_user() is None:
        return "PostgreSQL does not run as root, and there is no other user here"
    return ""


@contextmanager
def server() -> Iterator[str]:
    """URL of an empty database, behind a unix socket in a private folder; ended by SIGQUIT."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    other = _other_user() if os.geteuid() == 0 else None
    if other is not None:
        os.chown(folder, other.pw_uid, other.pw_gid)
    as_user = {} if other is None else {"user": other.pw_uid, "group": other.pw_gid}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    data = folder / "data"
    try:
        subprocess.run(
            [str(_program("initdb")), "-D", data, "-U", USER, "-A", "trust", "--no-sync"],
            check=True,
            timeout=60,
            **quiet,  # type: ignore[call-overload]
            **as_user,
        )
        process = subprocess.Popen(
            [str(_program("postgres")), "-D", data, "-k", folder, "-c", "listen_addresses="],
            **quiet,  # type: ignore[call-overload]
            **as_user,
        )
        try:
            url = f"postgresql://{USER}@/postgres?host={folder}"
            eventually(lambda: _answers(url))
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(20)
    finally:
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    engine = create_engine(url)
    try:
        engine.connect().close()
    except OperationalError:
        return False
    finally:
        engine.dispose()
    return True


def _program(name: str) -> Path | None:
    # Debian keeps the server's programs out of the way of others.
    found = shutil.which(name)
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return Path(found) if found else next(iter(places[::-1]), None)


def _other_user() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None
