"""What changed between two looks at a run, as plain lines: for logs and pipes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from starter.disks import DiskLine, disk_lines
from starter.render import SHOWN_AS_DISKS, to_do, trouble
from starter.units import sentence, span
from starter.views import RunView

STRIDE = 10
"""A disk is reported every 10 %: a log wants some, not hundreds."""


class Line(NamedTuple):
    """One line, and when it happened where the run knows that."""

    text: str
    at: datetime | None = None


def changes(before: RunView | None, after: RunView, now: datetime) -> list[Line]:
    """Lines for everything new; all of it when there is no earlier look."""
    rest = (*_disks(before, after), *_rest(before, after, now))
    return [*_steps(before, after), *map(Line, rest)]


def _steps(before: RunView | None, after: RunView) -> Iterator[Line]:
    known = {step.name: step for step in before.status.steps} if before else {}
    for step in after.status.steps:
        old = known.get(step.name)
        if old == step:
            continue
        told = step.evidence and step.name not in SHOWN_AS_DISKS
        evidence = f": {step.evidence}" if told else ""
        if step.skipped:
            yield Line(f"skipped  {step.title}", step.finished_at)
        elif step.finished_at and step.started_at:
            took = span(step.finished_at - step.started_at)
            yield Line(f"done     {step.title} ({took}){evidence}", step.finished_at)
        elif old is None:
            yield Line(f"started  {step.title}", step.started_at)
        elif step.attempts > old.attempts:
            yield Line(f"again    {step.title} (attempt {step.attempts})")


def _disks(before: RunView | None, after: RunView) -> Iterator[str]:
    known = {(line.address, line.pass_no): line for line in disk_lines(before)} if before else {}
    for line in disk_lines(after):
        old = known.get((line.address, line.pass_no))
        if old is not None and _notch(old) == _notch(line):
            continue
        pace = f", {line.pace}" if line.pace else ""
        yield (
            f"disk     {line.address} pass {line.pass_no} {line.doing} {line.share:.0%}: "
            f"{line.numbers}{pace}"
        )


def _notch(line: DiskLine) -> tuple[str, int]:
    return line.doing, int(line.share * 100) // STRIDE


def _rest(before: RunView | None, after: RunView, now: datetime) -> Iterator[str]:
    old, new = before.status if before else None, after.status
    known = {trouble(item, item.next_try_at or now) for item in before.live} if before else set()
    for item in after.live:
        text = trouble(item, item.next_try_at or now)
        if text and text not in known:
            yield f"trouble  {text}"
    for alarm in new.alarms:
        if old is None or alarm not in old.alarms:
            yield f"ALARM    {sentence(alarm)}"
    for answer in new.requests:
        if old is None or answer not in old.requests:
            verdict = "accepted" if answer.accepted else f"rejected: {sentence(answer.message)}"
            by = f" by {answer.by}" if answer.by else ""
            yield f"request  {answer.kind.value}{by} {verdict}"
    if old is None or old.paused != new.paused:
        if new.paused:
            yield "paused"
        elif old is not None:
            yield "resumed"
    if old is None or old.phase is not new.phase or old.outcome is not new.outcome:
        downtime = ""
        if new.downtime_started_at and new.downtime_ended_at:
            length = span(new.downtime_ended_at - new.downtime_started_at)
            downtime = f" (downtime {length})"
        yield f"phase    {new.outcome.value if new.outcome else new.phase.value}{downtime}"
    was = to_do(before, now) if before else []
    if (todo := to_do(after, now)) != was:
        yield from (f"         {line}" for line in todo)
