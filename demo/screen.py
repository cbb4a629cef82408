"""What the audience sees while a run goes on: the run as `failback watch` shows it, and remarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from starter import render
from starter.shell import Shell
from starter.terminal import unicode_safe
from starter.units import clock
from starter.views import RunView
from starter.watching import Display, display


class Screen(Display, Protocol):
    """A display that also takes remarks of the demo itself."""

    def remark(self, text: str) -> None: ...


@contextmanager
def screen(console: Console, shell: Shell) -> Iterator[Screen]:
    """In place on a terminal, line by line elsewhere."""
    if not console.is_terminal:
        with display(shell) as lines:
            yield _Lines(lines, shell)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        stage = _Stage(console, live, shell)
        try:
            yield stage
        finally:
            live.stop()
            stage.leave()


class _Lines:
    def __init__(self, lines: Display, shell: Shell) -> None:
        self._lines, self._shell = lines, shell
        self.view, self.trouble = lines.view, lines.trouble

    def remark(self, text: str) -> None:
        self._shell.say(f"{clock(self._shell.now())} DEMO     {text}")
        self._shell.stdout.flush()


class _Stage:
    """Remarks stay below the run, so that nobody misses one that came between two glances."""

    def __init__(self, console: Console, live: Live, shell: Shell) -> None:
        self._console, self._live, self._shell = console, live, shell
        self._last: RunView | None = None
        self._remarks: list[str] = []

    def view(self, view: RunView) -> None:
        self._last = view
        self._draw()

    def trouble(self, message: str) -> None:
        self._draw(message)

    def remark(self, text: str) -> None:
        self._remarks.append(f"{clock(self._shell.now())}  {text}")
        self._draw()

    def leave(self) -> None:
        """What stays on the terminal."""
        if self._last is not None:
            self._console.print(self._run(self._last, rows=None))
        for remark in self._remarks:
            self._console.print(Text(f"  {remark}", style="magenta"))

    def _draw(self, trouble: str = "") -> None:
        below = [Text(f"  {remark}", style="bold magenta") for remark in self._remarks]
        if trouble:
            below.append(Text(f"  {trouble}", style="red"))
        above = []
        if self._last is not None:
            above.append(self._run(self._last, rows=self._console.height - len(below) - 1))
        self._live.update(Group(*above, *below), refresh=True)

    def _run(self, view: RunView, rows: int | None) -> Group:
        unicode = unicode_safe(self._console)
        return Group(render.run(view, self._shell.now(), unicode=unicode, rows=rows))
