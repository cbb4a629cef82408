"""What a command loads: a fresh interpreter tells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("temporalio", "rich", "pydantic", "pyVmomi", "sqlmodel", "sqlalchemy")


def loaded(code: str) -> set[str]:
    """Which of the heavy packages this code loads."""
    script = f"import sys\n{code}\nprint('LOADED', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


RUN = "from starter.cli import run; from starter.shell import Shell; run({!r}, Shell.of_process())"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import starter", set()),
        (RUN.format(["--help"]), set()),
        (RUN.format(["undo", "--help"]), set()),
        (RUN.format(["version"]), set()),
        ("import starter.plugin", {"temporalio", "pydantic"}),
        ("import starter.client", {"temporalio", "pydantic"}),
        ("import starter.watching, starter.commands", {"temporalio", "pydantic", "rich"}),
    ],
)
def test_loads_only(code: str, expected: set[str]) -> None:
    assert loaded(code) <= expected


def test_entry_point_exits_with_the_status_and_flushed_streams() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "starter.cli", "status", "web01"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TEMPORAL_ADDRESS": "127.0.0.1:1"},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("failback: The Temporal server at 127.0.0.1:1 does not answer.")
