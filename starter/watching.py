"""`failback watch`: follow a run until a person is needed or it ends."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from failback.contracts.words import Outcome, Phase
from starter import render
from starter.changes import Line, changes
from starter.client import FailbackClient
from starter.describe import checked_key
from starter.errors import ClientError, WorkerAbsent
from starter.shell import Shell
from starter.terminal import console, open_client, unicode_safe
from starter.units import clock
from starter.views import RunView

INTERVAL_S = 1.0
"""Heartbeats of movers arrive about every second; a query costs one small workflow task."""

REACHED, REFUSED, ENDED_OR_STANDS = 0, 2, 3


class Display(Protocol):
    """Where a watch shows what it sees."""

    def view(self, view: RunView) -> None: ...

    def trouble(self, message: str) -> None: ...


def watch(args: argparse.Namespace, shell: Shell) -> int:
    """`failback watch KEY`."""
    key = checked_key(args.key)

    async def go() -> int:
        client = await open_client(shell, args.settings)
        with display(shell) as screen:
            return await follow(client, key, args.until, screen, shell)

    try:
        return asyncio.run(go())
    except KeyboardInterrupt:
        shell.note(f"The run goes on; see it again with `failback watch {key}`.")
        raise


async def follow(
    client: FailbackClient, key: str, until: str, display: Display, shell: Shell
) -> int:
    """Look again and again; an absent server or worker is shown and waited for."""
    while True:
        try:
            view = await client.status(key)
        except ClientError as error:
            if not (error.unreachable or isinstance(error, WorkerAbsent)):
                raise
            display.trouble(str(error))
        else:
            display.view(view)
            if (verdict := end_of_watch(view, until)) is not None:
                return verdict
        await shell.pause(INTERVAL_S)


def end_of_watch(view: RunView, until: str) -> int | None:
    """Exit status when there is nothing to wait for any more; None: go on.

    A site that we ask ourselves ends no watch: the run goes on when it answers.
    """
    status = view.status
    if not view.open:
        if status.outcome is Outcome.REFUSED:
            return REFUSED
        ended = until == "end" and status.outcome in (Outcome.COMMITTED, Outcome.UNDONE)
        return REACHED if ended else ENDED_OR_STANDS
    if status.operator is not None:
        return None if status.operator.probing else ENDED_OR_STANDS
    if status.phase is Phase.AWAITING_DECISION and until == "decision":
        return REACHED
    return None


@contextmanager
def display(shell: Shell) -> Iterator[Display]:
    target = console(shell)
    if shell.json:
        yield _Machine(shell)
    elif target.is_terminal:
        yield from _live(shell, target)
    else:
        yield _Lines(shell)


def _live(shell: Shell, target: Console) -> Iterator[Display]:
    with Live(console=target, auto_refresh=False, transient=True) as live:
        screen = _Screen(shell, target, live)
        try:
            yield screen
        finally:
            live.stop()
            if screen.last is not None:
                unicode = unicode_safe(target)
                target.print(render.run(screen.last, shell.now(), unicode=unicode))


class _Screen:
    """Redraws the run in place; the whole of it stays when the watch ends."""

    def __init__(self, shell: Shell, target: Console, live: Live) -> None:
        self._shell, self._target, self._live = shell, target, live
        self.last: RunView | None = None

    def view(self, view: RunView) -> None:
        self.last = view
        self._draw("")

    def trouble(self, message: str) -> None:
        self._draw(message)

    def _draw(self, message: str) -> None:
        now, target = self._shell.now(), self._target
        parts = [Text(f"  {message}", style="red")] if message else []
        if self.last is None:
            self._live.update(Group(*parts), refresh=True)
            return
        unicode = unicode_safe(target)
        body = render.run(self.last, now, unicode=unicode, rows=target.height)
        self._live.update(Group(body, *parts), refresh=True)


class _Lines:
    """One line per change, for logs and pipes."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._last: RunView | None = None
        self._trouble = ""

    def view(self, view: RunView) -> None:
        now = self._shell.now()
        self._write(changes(self._last, view, now))
        self._last, self._trouble = view, ""

    def trouble(self, message: str) -> None:
        if message != self._trouble:
            self._write([Line(f"trouble  {message}")])
        self._trouble = message

    def _write(self, lines: list[Line]) -> None:
        for line in lines:
            self._shell.say(f"{clock(line.at or self._shell.now())} {line.text}")
        self._shell.stdout.flush()


class _Machine:
    """One JSON object per line whenever the run has changed."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._last: RunView | None = None

    def view(self, view: RunView) -> None:
        if view != self._last:
            self._shell.give(view)
        self._last = view

    def trouble(self, message: str) -> None:
        self._shell.note(f"failback: {message}")
