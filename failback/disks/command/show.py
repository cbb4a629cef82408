"""What a command says while it works, and in the end: to a terminal, a log, or a program."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TextIO

from failback.disks.command.units import size, span
from failback.disks.progress import CopyProgress

LINE_S = 2.0
"""Between two lines of progress where there is no terminal."""


class Meter(Protocol):
    """Shows progress."""

    def show(self, now: CopyProgress) -> None: ...

    def close(self) -> None: ...


@dataclass
class Screen:
    """Results on standard output, everything else on standard error."""

    stdout: TextIO
    stderr: TextIO
    json: bool = False
    quiet: bool = False
    meter: Meter | None = None

    def begin(self, doing: str) -> None:
        """From here on `progress` has something to show it with."""
        if self.quiet:
            return
        if self.json:
            self.meter = Lines(self.stdout, _as_json)
        elif self.stderr.isatty() and os.environ.get("TERM") != "dumb":
            # Only now: a third of the command's start is the library that draws.
            live = import_module("failback.disks.command.live")
            self.meter = live.Live(self.stderr, doing)
        else:
            self.meter = Lines(self.stderr, lambda now: f"{doing}: {line(now)}")

    def progress(self, now: CopyProgress) -> None:
        if self.meter is not None:
            self.meter.show(now)

    def end(self) -> None:
        """Take the progress away; harmless twice."""
        if self.meter is not None:
            self.meter.close()
            self.meter = None

    def note(self, text: str) -> None:
        """A remark for people."""
        self.stderr.write(f"{text}\n")
        self.stderr.flush()

    def say(self, text: str) -> None:
        """A line of the result for people."""
        if not self.json:
            self.stdout.write(f"{text}\n")

    def give(self, event: str, **fields: Any) -> None:
        """A line of the result for programs."""
        if self.json:
            self.stdout.write(json.dumps({"event": event, **fields}) + "\n")


class Lines:
    """A line now and then."""

    def __init__(
        self,
        stream: TextIO,
        text: Callable[[CopyProgress], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._text, self._clock = stream, text, clock
        self._shown_at = clock()

    def show(self, now: CopyProgress) -> None:
        if self._clock() - self._shown_at >= LINE_S:
            self._shown_at = self._clock()
            self._stream.write(self._text(now) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """A line stays."""


def line(now: CopyProgress) -> str:
    """Progress in a line."""
    done = now.examined_bytes + now.resumed_bytes
    percent = 100 * done / now.total_bytes if now.total_bytes else 100.0
    parts = [
        f"{percent:.1f} % of {size(now.total_bytes)}",
        f"{size(now.different_bytes)} different",
        f"{size(now.rate_bytes_s)}/s",
    ]
    if now.eta_s is not None:
        parts.append(f"{span(now.eta_s)} left")
    return ", ".join(parts)


def _as_json(now: CopyProgress) -> str:
    return json.dumps({"event": "progress", **vars(now)})


def screen(*, as_json: bool, quiet: bool) -> Screen:
    """The process's own."""
    return Screen(sys.stdout, sys.stderr, as_json, quiet)
