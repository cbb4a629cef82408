"""The main job as a newcomer starts it: both branches, kept, and interrupted."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.processes import start_time

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]


def start(**more: str) -> subprocess.Popen[str]:
    """The demo as `make demo` starts it, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def folder_of(line: str) -> Path:
    """The folder that the demo names on screen."""
    found = re.search(r"files of this demo: (.+)$", line)
    assert found is not None
    return Path(found[1])


def living(folder: Path) -> list[int]:
    """Processes on record of this demo that still live."""
    record = json.loads((folder / "processes.json").read_text())
    return [pid for pid, started in record.values() if start_time(pid) == started]


@pytest.mark.parametrize(("branch", "proofs"), [("commit", 11), ("undo", 10)])
def test_the_demo_proves_its_branch(branch: str, proofs: int) -> None:
    process = start(DEMO=branch)
    output, _ = process.communicate(timeout=150)

    assert process.returncode == 0, output
    rows = [line.split("│") for line in output.splitlines() if line.count("│") == 4]
    verdicts = {row[1].strip(): row[3].strip() for row in rows if row[3].strip()}
    assert len(verdicts) == proofs, output
    assert set(verdicts.values()) == {"yes"}
    folder = folder_of(next(line for line in output.splitlines() if "files of" in line))
    assert not folder.exists()


def test_a_demo_whose_site_dies_says_so_and_where_the_logs_are() -> None:
    process = start()
    assert process.stdout is not None
    folder = None
    for line in process.stdout:
        if "files of this demo" in line:
            folder = folder_of(line)
        if "pass 1 transport" in line and folder is not None:
            break
    assert folder is not None
    record = json.loads((folder / "processes.json").read_text())

    os.kill(record["practice-site"][0], signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert re.search("The demo failed: .*practice.site", rest), rest
    assert f"Logs: {folder}" in rest
    assert not [pid for pid, started in record.values() if start_time(pid) == started]
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(number: signal.Signals) -> None:
    process = start()
    assert process.stdout is not None
    pids: list[int] = []
    folder = None
    for line in process.stdout:
        if "files of this demo" in line:
            folder = folder_of(line)
        if "pass 1 transport" in line and folder is not None:
            pids = living(folder)
            break

    os.killpg(process.pid, number)
    process.communicate(timeout=60)

    assert len(pids) >= 3
    assert process.returncode == 128 + number
    assert not [pid for pid in pids if start_time(pid) is not None]
    assert folder is not None
    assert not folder.exists()


def test_a_kept_demo_stays_up_until_it_is_stopped() -> None:
    process = start(KEEP="1", KEEP_AT="decision")
    output, _ = process.communicate(timeout=150)
    folder = folder_of(next(line for line in output.splitlines() if "files of" in line))
    try:
        assert process.returncode == 0, output
        pids = living(folder)
        assert len(pids) == 3
        assert f"-m demo stop {shlex.quote(str(folder))}" in output
    finally:
        stop = subprocess.run(
            [sys.executable, "-m", "demo", "stop", str(folder)], cwd=ROOT, check=False
        )
    deadline = time.monotonic() + 20
    while any(start_time(pid) is not None for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert stop.returncode == 0
    assert not [pid for pid in pids if start_time(pid) is not None]
    assert not folder.exists()
