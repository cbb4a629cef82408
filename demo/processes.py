"""The processes of a demo: started, recorded by identity, ended in order, never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

RECORD = "processes.json"
STOP_S = 15.0
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

BECOME = """
import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if sys.argv[1] != "keep":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Unless it is kept: asks the kernel for SIGKILL when the parent dies. Then becomes the program."""


class DemoFailed(Exception):
    """Something of the demo did not come up or did not end; the message says where to look."""


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None if there is none. With it a recorded
    pid cannot be mistaken for a later process of the same number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if stat[0] in (b"Z", b"X") else int(stat[19])


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, ask: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for a condition; DemoFailed when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not ask():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what} did not happen within {timeout_s:.0f} s.")
        time.sleep(0.02)


@dataclass
class Processes:
    """Everything that was started, newest last.

    Args:
        folder: private; logs and the record of the processes are kept there.
        keep: the processes outlive this one.
    """

    folder: Path
    keep: bool
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a program in a session of its own, so that Ctrl-C reaches us first."""
        become = (sys.executable, "-I", "-S", "-c", BECOME)
        parent = "keep" if self.keep else str(os.getpid())
        # Ctrl-C waits until the process is on record: nothing is started and then forgotten.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.running[name] = subprocess.Popen(
                    [*become, parent, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(env),
                    cwd=ROOT,
                    start_new_session=True,
                )
            self._record()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def says(self, name: str, word: str) -> None:
        """Wait until a program's output contains a word."""
        log = self.folder / f"{name}.log"

        def ask() -> bool:
            if word in log.read_text(errors="replace"):
                return True
            if self.running[name].poll() is not None:
                raise DemoFailed(f"{name} ended before it was ready; its output is in {log}.")
            return False

        until(f"'{word}' in the output of {name} ({log})", ask)

    def require_alive(self) -> None:
        """DemoFailed as soon as one is gone that nobody killed: the run would wait for it."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise DemoFailed(f"{name} ended with {process.returncode}; see {name}.log.")

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash or the kernel's memory killer does it."""
        process = self.running.pop(name)
        process.kill()
        process.wait()
        self._record()

    def stop(self) -> None:
        """End all, newest first, each with time to put its things down."""
        for name in reversed(list(self.running)):
            process = self.running.pop(name)
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._record()

    def _record(self) -> None:
        known = {
            name: [process.pid, start_time(process.pid)] for name, process in self.running.items()
        }
        record = self.folder / RECORD
        new = record.with_suffix(".new")
        new.write_text(json.dumps(known))
        new.replace(record)


def stop_recorded(folder: Path) -> int:
    """End the processes that a kept demo left running in this folder; returns how many."""
    record = folder / RECORD
    if not record.is_file():
        raise DemoFailed(f"{folder} is not the folder of a demo: it has no {RECORD}.")
    alive = [
        (pid, started)
        for pid, started in reversed(list(json.loads(record.read_text()).values()))
        if started is not None and start_time(pid) == started
    ]
    for pid, started in alive:
        os.kill(pid, signal.SIGTERM)
        if not _gone(pid, started):
            os.kill(pid, signal.SIGKILL)
            if not _gone(pid, started):
                raise DemoFailed(f"Process {pid} does not end.")
    record.unlink()
    return len(alive)


def _gone(pid: int, started: int) -> bool:
    """Wait for the end of a process that is no child of ours; whether it came."""
    try:
        until(f"the end of process {pid}", lambda: start_time(pid) != started, STOP_S)
    except DemoFailed:
        return False
    return True
