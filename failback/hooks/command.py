"""Runs a command of the settings: bounded in time and output, and never left behind."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from failback.hooks import guard
from failback.hooks.output import Tail

KEPT_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")
"""Of the worker's variables; the others may hold its credentials."""

POLL_S = 0.25
BEAT_S = 1.0
END_S = 5.0
"""The guard asks, waits two seconds, and kills."""


@dataclass(frozen=True)
class Called:
    """How a call ended."""

    ok: bool
    output: str
    """Its end, bounded and without secrets."""
    evidence: str


def run_command(
    argv: Sequence[str],
    variables: Mapping[str, str],
    said: bytes,
    *,
    timeout_s: float,
    beat: Callable[[], None],
    secrets: Collection[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Called:
    """Run it to its end, or end it and everything in its process group after `timeout_s`.

    `beat` is called about every second; whatever it raises ends the command too. `said` is what
    the command reads from its standard input."""
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    control, ours = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(control), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment | dict(variables),
            cwd="/",
            pass_fds=(control,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(ours)
        return Called(False, "", f"it could not be started ({error.strerror})")
    finally:
        os.close(control)
    tail, began = Tail(), clock()
    try:
        _tell(process, said)
        _listen(process, tail, began + timeout_s, beat, clock)
        late = process.poll() is None
    finally:
        # Closing our end is what makes the guard end the command, if it still runs.
        os.close(ours)
        _reap(process)
        _drain(process, tail)
    output = tail.text(secrets)
    if late:
        return Called(False, output, f"it did not end within {timeout_s:g} s and was ended")
    took = f"after {clock() - began:.1f} s"
    status = process.returncode
    if status == guard.NOT_STARTED:
        return Called(False, output, "it could not be started, or ended with exit status 127")
    if status > 128:
        return Called(False, output, f"it was ended by signal {status - 128} {took}")
    return Called(status == 0, output, f"exit status {status} {took}")


def _tell(process: subprocess.Popen[bytes], said: bytes) -> None:
    assert process.stdin is not None
    # A command need not read what it is told; a few KiB fit into the pipe either way.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(said)
        process.stdin.close()


def _listen(
    process: subprocess.Popen[bytes],
    tail: Tail,
    deadline: float,
    beat: Callable[[], None],
    clock: Callable[[], float],
) -> None:
    """Until the command has ended or the time is over. Not until the end of its output: what it
    has left running in the background may hold that open."""
    assert process.stdout is not None
    stream, open_ = process.stdout.fileno(), True
    os.set_blocking(stream, False)
    due = clock()
    while process.poll() is None and clock() < deadline:
        if clock() >= due:
            beat()
            due = clock() + BEAT_S
        if not open_:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(POLL_S, max(deadline - clock(), 0.001)))
        elif select.select([stream], [], [], min(POLL_S, max(deadline - clock(), 0)))[0]:
            data = os.read(stream, 65536)
            tail.add(data)
            open_ = bool(data)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _drain(process: subprocess.Popen[bytes], tail: Tail) -> None:
    """What was said in the end and lies in the pipe."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while data := os.read(process.stdout.fileno(), 65536):
            tail.add(data)
    process.stdout.close()
