"""Progress as a bar that stays in its place; loaded only where there is a terminal."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from failback.disks.command.show import line
from failback.disks.progress import CopyProgress


class Live:
    """A Meter for a terminal."""

    def __init__(self, stream: TextIO, doing: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[line]}", markup=False),
            console=Console(file=stream, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task(doing, total=None, line="")
        self._progress.start()

    def show(self, now: CopyProgress) -> None:
        self._progress.update(
            self._task,
            total=max(now.total_bytes, 1),
            completed=now.examined_bytes + now.resumed_bytes,
            line=line(now),
        )

    def close(self) -> None:
        self._progress.stop()
