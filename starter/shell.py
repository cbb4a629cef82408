"""The process around a command: streams, environment, clock, and how results are printed."""

from __future__ import annotations

import asyncio
import getpass
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from failback.errors import FailbackError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from starter.client import FailbackClient


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Shell:
    """What a command may touch of the process; tests give it other streams and another client."""

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    environ: Mapping[str, str]
    user: str
    json: bool = False
    argv: Sequence[str] = ()
    """The words of the command, without the program's name."""
    now: Callable[[], datetime] = _utc_now
    pause: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)
    open_client: Callable[[Shell, str | None], Awaitable[FailbackClient]] | None = None
    """Instead of the Temporal server that the environment names; second: the settings file."""

    @classmethod
    def of_process(cls) -> Shell:
        """The real one."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # Names of VMs may hold what this terminal cannot show; that is no reason to fail.
                stream.reconfigure(errors="replace")
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a uid without a name, as in containers
            user = f"uid {os.getuid()}"
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ, user)

    @property
    def interactive(self) -> bool:
        """Whether somebody can read a question and type an answer."""
        return self.stdin.isatty() and self.stderr.isatty()

    def note(self, text: str) -> None:
        """A remark for people, never machine output."""
        self.stderr.write(f"{text}\n")
        self.stderr.flush()

    def say(self, text: str) -> None:
        """A sentence of the result, for people only."""
        if not self.json:
            self.stdout.write(f"{text}\n")

    def give(self, result: BaseModel | Mapping[str, Any] | list[Any]) -> None:
        """The result for machines: one line of JSON; nothing when people read."""
        if not self.json:
            return
        dump = getattr(result, "model_dump_json", None)
        text = dump() if dump else json.dumps(result, default=str)
        self.stdout.write(f"{text}\n")
        self.stdout.flush()

    def fail(self, error: FailbackError) -> None:
        """An expected error: a sentence for people, an object for machines."""
        self.note(f"failback: {error}")
        self.give({"error": {"type": error.type, "message": error.what, "remedy": error.remedy}})

    def ask(self, question: str) -> bool:
        """True for an explicit yes; the default is no."""
        self.stderr.write(f"{question} [y/N] ")
        self.stderr.flush()
        return self.stdin.readline().strip().lower() in ("y", "yes")
