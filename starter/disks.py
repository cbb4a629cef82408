"""Disks of a run as lines: the finished passes from the status, the live one from heartbeats."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from starter.units import ratio, size, span
from starter.views import RunView

BAR_WIDTH = 24


@dataclass(frozen=True)
class DiskLine:
    """One disk in one pass."""

    address: str
    pass_no: int
    doing: str
    """`transport`, `verify`, `waiting` or `done`."""
    total_bytes: int
    examined_bytes: int
    different_bytes: int
    written_bytes: int
    resumed_bytes: int = 0
    rate_bytes_per_s: float = 0.0
    eta_s: float | None = None
    seconds: float = 0.0
    method: str = ""
    reason: str = ""

    @property
    def share(self) -> float:
        """Examined part of the whole, 0 to 1; a disk with nothing to examine is done."""
        if self.doing == "done" or self.total_bytes <= 0:
            return 1.0
        return min(self.examined_bytes / self.total_bytes, 1.0)

    @property
    def numbers(self) -> str:
        """What was examined, found different, written and resumed."""
        done = self.doing == "done"
        examined = (
            size(self.examined_bytes) if done else ratio(self.examined_bytes, self.total_bytes)
        )
        parts = [f"examined {examined}"]
        if self.doing != "verify":
            parts.append(f"different {size(self.different_bytes)}")
            parts.append(f"written {size(self.written_bytes)}")
        if self.resumed_bytes:
            parts.append(f"resumed {size(self.resumed_bytes)}")
        return ", ".join(parts)

    @property
    def pace(self) -> str:
        """Rate and time left; or how long it took."""
        if self.doing == "done":
            return f"in {span(self.seconds)}"
        rate = f"{size(self.rate_bytes_per_s)}/s" if self.rate_bytes_per_s > 0 else ""
        left = f"{span(self.eta_s)} left" if self.eta_s is not None else ""
        return ", ".join(part for part in (rate, left) if part)


def disk_lines(view: RunView) -> tuple[DiskLine, ...]:
    """All disks in all passes, in the order in which they were planned."""
    status = view.status
    plans = {(plan.address, plan.pass_no): plan for plan in status.differences}
    lines: dict[tuple[str, int], DiskLine] = {}
    passes: dict[str, int] = {}
    for done in status.transfers:
        # Of a version that did not say it: results come pass by pass.
        passes[done.address] = passes.get(done.address, 0) + 1
        number = done.pass_no or passes[done.address]
        plan = plans.get((done.address, number))
        lines[done.address, number] = DiskLine(
            address=done.address,
            pass_no=number,
            doing="done",
            total_bytes=done.examined_bytes,
            examined_bytes=done.examined_bytes,
            different_bytes=done.different_bytes,
            written_bytes=done.written_bytes,
            resumed_bytes=done.resumed_bytes,
            seconds=done.seconds,
            method=done.method.value,
            reason=plan.reason if plan else "",
        )
    for live in view.progress.values():
        plan = plans.get((live.address, live.pass_no))
        lines[live.address, live.pass_no] = DiskLine(
            address=live.address,
            pass_no=live.pass_no,
            doing=live.doing,
            total_bytes=live.total_bytes,
            examined_bytes=live.examined_bytes,
            different_bytes=live.different_bytes,
            written_bytes=live.written_bytes,
            resumed_bytes=live.resumed_bytes,
            rate_bytes_per_s=live.rate_bytes_per_s,
            eta_s=live.eta_s,
            method=plan.method.value if plan else "",
            reason=plan.reason if plan else "",
        )
    return tuple(sorted(lines.values(), key=lambda line: (line.pass_no, line.address)))


def disk_table(lines: tuple[DiskLine, ...]) -> RenderableType:
    """A bar and a line of numbers for every disk."""
    blocks: list[RenderableType] = []
    for line in lines:
        row = Table.grid(padding=(0, 1))
        live = line.doing != "done"
        what = f"pass {line.pass_no}" if line.doing in ("done", "transport") else line.doing
        row.add_row(
            Text(f"  {line.address:<8}", style="bold" if live else ""),
            Text(f"{what:<7}"),
            Text(f"{line.method:<7}"),
            ProgressBar(total=1.0, completed=line.share, width=BAR_WIDTH),
            Text(f"{line.share:4.0%} {line.pace}", style="cyan" if live else "green"),
        )
        blocks += [row, Text(f"  {line.numbers}", style="dim")]
        if line.reason and live:
            blocks.append(Text(f"  {line.method}: {line.reason}", style="dim"))
    return Group(*blocks)
