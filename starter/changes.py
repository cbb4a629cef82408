"""What changed between two looks at a run, as plain lines: for logs and pipes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from starter.disks import DiskLine, disk_lines
from starter.render import to_do, trouble
from starter.units import sentence, span
from starter.views import RunView

STRIDE = 10
"""A disk is reported every 10 %: a log wants some, not hundreds."""


def changes(before: RunView | None, after: RunView, now: datetime) -> list[str]:
    """Lines for everything new; all of it when there is no earlier look."""
    return [*_steps(before, after), *_disks(before, after), *_rest(before, after, now)]


def _steps(before: RunView | None, after: RunView) -> Iterator[str]:
    known = {step.name: step for step in before.status.steps} if before else {}
    for step in after.status.steps:
        old = known.get(step.name)
        if old == step:
            continue
        evidence = f": {step.evidence}" if step.evidence else ""
        if step.skipped:
            yield f"skipped  {step.title}"
        elif step.finished_at and step.started_at:
            yield f"done     {step.title} ({span(step.finished_at - step.started_at)}){evidence}"
        elif old is None:
            yield f"started  {step.title}"
        elif step.attempts > old.attempts:
            yield f"again    {step.title} (attempt {step.attempts})"


def _disks(before: RunView | None, after: RunView) -> Iterator[str]:
    known = {(line.address, line.pass_no): line for line in disk_lines(before)} if before else {}
    for line in disk_lines(after):
        old = known.get((line.address, line.pass_no))
        if old is not None and _notch(old) == _notch(line):
            continue
        left = f", {span(line.eta_s)} left" if line.eta_s is not None else ""
        yield (
            f"disk     {line.address} pass {line.pass_no} {line.doing} {line.share:.0%}: "
            f"{line.numbers}{left}"
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
