"""Real processes for acceptance tests: a Temporal server, workers, commands.

Whatever is started here dies with this process, also when it is killed: each child asks the kernel
for SIGKILL at its parent's end before it becomes the program. Everything listens on loopback.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.helpers.lab import ROOT, LabHandle
from tests.helpers.nursery import Forked, Nursery
from tools import paths

T = TypeVar("T")

START_S = 60.0
"""A machine with two busy cores starts nothing quickly; waiting ends as soon as it is ready."""

STOP_S = 20.0

DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""A preexec_fn would do the same, but forking Python code beside running threads may deadlock."""

FAST_TIMERS = ("--dynamic-config-value", 'history.timerProcessorMaxTimeShift="10ms"')
ATTRIBUTES = ("FailbackPhase", "FailbackReplica", "FailbackDestination")


def until(what: str, ask: Callable[[], T | None], timeout_s: float = 30.0) -> T:
    """Ask until the answer is neither None nor False, and return it."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.02)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without anything that steers Temporal or failback."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "FAILBACK_"))}
    return kept | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | more


@dataclass
class Child:
    """A program that runs beside the test; its output goes to a file."""

    process: subprocess.Popen[bytes] | Forked
    log: Path

    @classmethod
    def start(cls, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> Child:
        """Start the program; it dies with this process."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=ROOT,
            )
        return cls(process, log)

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def says(self, pattern: str, timeout_s: float = START_S) -> None:
        """Wait until its output contains the pattern."""

        def ask() -> bool:
            if re.search(pattern, self.output):
                return True
            assert self.alive, f"it ended with {self.process.returncode}: {self.output}"
            return False

        until(f"output {pattern!r} in {self.log}", ask, timeout_s)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; also one that is stopped."""
        if self.alive:
            self.process.kill()
        self.process.wait(STOP_S)

    def freeze(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self.send(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        until(
            "the process is stopped", lambda: stat.read_text().rpartition(")")[2].split()[0] == "T"
        )

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)


class TemporalServer:
    """A dev server with a database file, so that it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.child: Child | None = None
        self.starts = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it on its port and wait until it serves."""
        self.starts += 1
        attributes = [
            part for name in ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")
        ]
        self.child = Child.start(
            [
                *(str(paths.temporal()), "server", "start-dev", "--headless", "--ip", "127.0.0.1"),
                *("--port", str(self.port), "--db-filename", str(self.folder / "temporal.db")),
                *("--log-level", "error", *FAST_TIMERS, *attributes),
            ],
            self.folder / f"server-{self.starts}.log",
            environment(),
        )
        self.child.says("Temporal Server")

    def kill(self) -> None:
        """SIGKILL."""
        if self.child is not None:
            self.child.kill()


@dataclass
class Stack:
    """One installation of failback at a lab: settings, catalog, workers and commands."""

    lab: LabHandle
    folder: Path
    address: str
    queue: str
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings that differ from those below, by table."""
    workers: list[Child] = field(default_factory=list)
    nursery: Nursery | None = None
    """Where workers come from; None: each is a new program."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings = self.folder / "failback.toml"
        self.settings.write_text(self.settings_text(), encoding="utf-8")

    @property
    def catalog_file(self) -> Path:
        return self.folder / "state" / "catalog.db"

    def settings_text(self, **sites: dict[str, Any]) -> str:
        """The settings file; `sites` replace single keys of a site."""
        tables: dict[str, dict[str, Any]] = {
            "worker": {
                "state_dir": str(self.folder / "state"),
                "heartbeat_timeout_s": 3.0,
                "graceful_shutdown_s": 5.0,
            },
            "temporal": {"task_queue": self.queue},
            "transfer": {
                "segment_bytes": 262144,
                "flush_interval_s": 0.1,
                # The lab's datastores are as full as the disk of this machine.
                "reserve_bytes": 1048576,
                "reserve_percent": 0.0,
            },
        }
        for name, more in self.changes.items():
            tables[name] = tables.get(name, {}) | more
        manifest = self.lab.manifest
        for name, site in manifest["sites"].items():
            tables[f"sites.{name}"] = {
                "url": site["url"],
                "username": manifest["username"],
                "password_file": manifest["password_file"],
                "tls": {"ca_file": manifest["ca_file"]},
                "chain_members_complete": True,
                "datastores": site["datastores"],
            } | sites.get(name, {})
        return "".join(
            f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
            for name, table in tables.items()
        )

    def env(self, **more: str) -> dict[str, str]:
        return environment(TEMPORAL_ADDRESS=self.address, **more)

    def worker(self, settings: Path | None = None, *, ready: bool = True) -> Child:
        """Start a worker process; `ready`: wait until it polls."""
        arguments = ["--settings", str(settings or self.settings)]
        log = self.folder / f"worker-{len(self.workers)}.log"
        log.touch()
        if self.nursery is not None:
            child = Child(self.nursery.worker(arguments, log, self.env()), log)
        else:
            argv = [sys.executable, str(ROOT / "worker.py"), *arguments]
            child = Child.start(argv, log, self.env())
        self.workers.append(child)
        if ready:
            child.says("worker ready")
        return child

    def cli(
        self, *arguments: str, settings: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the `failback` command to its end."""
        env = self.env(FAILBACK_SETTINGS=str(settings or self.settings))
        return run([sys.executable, "-m", "starter.cli", *arguments], env)

    def temporal(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Temporal's own command to its end."""
        return run([str(paths.temporal()), *arguments], self.env())

    def close(self) -> None:
        """End the workers and the lab."""
        for worker in self.workers:
            worker.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.lab.stop()


def start_nursery() -> Nursery:
    """A process that forks workers; it dies with this one."""
    return Nursery(
        subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid())),
                *(sys.executable, "-m", "tests.helpers.nursery"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
        )
    )


def run(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it said."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=dict(env),
        cwd=ROOT,
        timeout=60,
        check=False,
    )


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list():
            return "[" + ", ".join(_toml(v) for v in value) + "]"
        case dict():
            return "{ " + ", ".join(f'"{k}" = {_toml(v)}' for k, v in value.items()) + " }"
        case _:
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            return f'"{text}"'
