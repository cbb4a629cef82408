"""The closing table: every proof with what was seen, and the numbers of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from demo.proof import DiskSpace, Proof
from demo.site import KEY
from failback.contracts.operations import TransportResult
from failback.contracts.status import Status
from failback.contracts.words import StepName
from starter.units import size, span


@dataclass
class Told:
    """What the demo remembers of the run."""

    began: float = field(default_factory=time.monotonic)
    examined_when_killed: int = 0
    total_bytes: int = 0
    late_text: str = ""
    status: Status | None = None
    history_events: int = 0

    def resumed_bytes(self, status: Status) -> int:
        """What the second worker found done in pass 1."""
        return sum(one.resumed_bytes for one in passes(status)[0])


def passes(status: Status) -> tuple[Sequence[TransportResult], Sequence[TransportResult]]:
    """The results come pass by pass, one for each disk."""
    disks = sum(plan.pass_no == 1 for plan in status.differences)
    return status.transfers[:disks], status.transfers[disks:]


def resumed(told: Told) -> Proof:
    """The proof about the crash."""
    assert told.status is not None
    found = told.resumed_bytes(told.status)
    return Proof(
        "after the crash pass 1 went on, not from zero",
        f"killed when {size(told.examined_when_killed)} of {size(told.total_bytes)} were shown, "
        f"{size(found)} found done",
        0 < found < told.total_bytes,
    )


def table(proofs: Sequence[Proof], told: Told, disks: Sequence[DiskSpace]) -> Table:
    """One table for all of it."""
    shown = Table(title=f"Failback of {KEY}: what was proven", title_justify="left")
    for column in ("proof", "seen", "holds"):
        shown.add_column(column, overflow="fold")
    for one in proofs:
        verdict = Text("yes", "green") if one.holds else Text("NO", "bold red")
        shown.add_row(Text(one.claim), Text(one.seen), verdict)
    shown.add_section()
    for claim, seen in _numbers(told, disks):
        shown.add_row(Text(claim), Text(seen), "")
    return shown


def _numbers(told: Told, disks: Sequence[DiskSpace]) -> Iterator[tuple[str, str]]:
    status = told.status
    assert status is not None
    yield (
        "the replica's disks",
        f"{len(disks)}, {size(sum(disk.capacity_bytes for disk in disks))}, "
        f"of which {size(sum(disk.allocated_bytes for disk in disks))} hold data",
    )
    for number, results in enumerate(passes(status), 1):
        examined, different, written = (
            size(sum(getattr(one, name) for one in results))
            for name in ("examined_bytes", "different_bytes", "written_bytes")
        )
        how = ", ".join(sorted({one.method.value for one in results}))
        yield (
            f"pass {number}: examined, different, written",
            f"{examined}, {different}, {written} ({how})",
        )
    ends = {step.name: step.finished_at for step in status.steps}
    down = status.downtime_started_at
    up = ends.get(StepName.POWER_ON_TARGET)
    if down and up:
        yield "downtime of the switch", span(up - down)
    away = {step.name: step.started_at for step in status.steps}.get(StepName.UNDO_POWER_ON_TARGET)
    back = ends.get(StepName.UNDO_POWER_OFF_REPLICA)
    if away and back:
        yield "downtime of the undo", span(back - away)
    yield "events in the run's history", str(told.history_events)
    yield "the whole demo", span(time.monotonic() - told.began)
