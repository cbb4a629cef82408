"""A run as a person sees it on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from failback.contracts.plan import Finding
from failback.contracts.requests import Answer
from failback.contracts.status import StepStatus
from failback.contracts.words import Phase, RequestKind, Severity, StepName
from starter.disks import disk_lines, disk_table
from starter.units import clock, sentence, size, span
from starter.views import LiveActivity, RunSummary, RunView
from starter.waiting import by_itself, gate_lines, hook_lines, pending

COLOURS = {
    Phase.AWAITING_DECISION: "yellow",
    Phase.READY_TO_SWITCH: "yellow",
    Phase.NEEDS_OPERATOR: "red",
    Phase.UNDOING: "magenta",
    Phase.CLOSED: "green",
}
KEPT_REQUESTS = 3
SHORT = 36
"""Evidence of up to this many characters stands beside the title."""
SHOWN_AS_DISKS = frozenset(
    {StepName.TRANSPORT_CHANGES, StepName.RESYNC_TRANSPORT, StepName.TRANSPORT_CHANGES_2}
)
"""Steps whose evidence the lines of the disks say better."""
ENDINGS = {
    "TERMINATED": "The run was terminated: nothing was undone and its claims remain. "
    "`failback reconcile KEY` says what it left and finishes it.",
    "FAILED": "The run failed in Temporal: nothing was undone and its claims remain. "
    "`failback reconcile KEY` says what it left and finishes it.",
}


def run(
    view: RunView, now: datetime, *, unicode: bool = True, rows: int | None = None
) -> RenderableType:
    """Everything about one run, most important last: that is where the eye is.

    Args:
        unicode: whether the terminal can show more than ASCII.
        rows: height of a live display; older steps and their evidence make room when it is low.
    """
    status = view.status
    parts: list[RenderableType] = [_head(view, now), Text()]
    steps = status.steps if rows is None else _fitting(view, rows)
    if steps:
        parts += [_steps(steps, now, unicode, evidence=rows is None), Text()]
    if lines := disk_lines(view):
        parts += [disk_table(lines), Text()]
    parts += [Text(f"  {line}", style="dim") for line in _snapshots(view.live, now)]
    parts += _troubles(view.live, now)
    parts += [Text(f"  {line}", style="dim") for line in hook_lines(status, now)]
    parts += [Text(f"  {line}", style="yellow") for line in _requests(status.requests, now)]
    parts += [Text(f"  ALARM: {sentence(alarm)}", style="bold red") for alarm in status.alarms]
    if status.findings:
        parts.append(findings(status.findings))
    parts += _call_to_action(view, now)
    return Group(*parts)


def _head(view: RunView, now: datetime) -> RenderableType:
    status = view.status
    what = status.outcome.value if status.outcome else status.phase.value
    if not view.open and status.outcome is None:
        what = view.execution
    title = Text.assemble(
        ("Failback of ", ""),
        (status.replica, "bold"),
        (": ", ""),
        (what, f"bold {_colour(view)}"),
        (" (paused)" if status.paused else "", "yellow"),
    )
    facts = [f"to {status.destination.value}"]
    if status.replica_state:
        facts.insert(0, f"VM replica {status.replica_state.value}")
    if status.started_at:
        by = f" by {status.started_by}" if status.started_by else ""
        facts.append(f"started {clock(status.started_at, now)} UTC{by}")
    lines = [title, Text("  " + ", ".join(facts), style="dim")]
    if status.run_id:
        lines.append(Text(f"  run {status.run_id}", style="dim"))
    if status.downtime_started_at:
        end = status.downtime_ended_at or (now if view.open else None)
        length = f" {span(end - status.downtime_started_at)}" if end else ""
        since = clock(status.downtime_started_at, now)
        until = clock(status.downtime_ended_at, now) if status.downtime_ended_at else "now"
        lines.append(Text(f"  downtime{length} ({since} to {until})"))
    return Group(*lines)


def _colour(view: RunView) -> str:
    if view.execution in ENDINGS:
        return "red"
    return COLOURS.get(view.status.phase, "cyan")


def _fitting(view: RunView, rows: int) -> tuple[StepStatus, ...]:
    """The newest steps that fit above the disks and the call to action; at least three."""
    below = 14 + 3 * len(view.progress) + 2 * len(view.status.transfers)
    return view.status.steps[-max(rows - below, 3) :]


def _steps(
    steps: Iterable[StepStatus], now: datetime, unicode: bool, *, evidence: bool
) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=3)
    table.add_column(ratio=None, overflow="fold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True, justify="right")
    for step in steps:
        mark, style = step_mark(step, unicode)
        title = Text(step.title, style="dim" if step.skipped else "")
        if step.attempts > 1:
            title.append(f" (attempt {step.attempts})", style="yellow")
        if evidence and step.evidence and step.name not in SHOWN_AS_DISKS:
            short = len(step.evidence) <= SHORT
            title.append(f"{': ' if short else chr(10)}{step.evidence}", style="dim")
        table.add_row(
            Text(f"  {mark}", style=style), title, clock(step.started_at, now), _took(step, now)
        )
    return table


def step_mark(step: StepStatus, unicode: bool = True) -> tuple[str, str]:
    """Tick, arrow or dash, and its style."""
    if step.skipped:
        return "-", "dim"
    if step.finished_at:
        return ("✓" if unicode else "+"), "green"
    return ("▸" if unicode else ">"), "cyan"


def _took(step: StepStatus, now: datetime) -> str:
    if step.skipped or step.started_at is None:
        return "skipped" if step.skipped else ""
    return span((step.finished_at or now) - step.started_at)


def _troubles(live: Iterable[LiveActivity], now: datetime) -> list[RenderableType]:
    """Activities that fail and are tried again, and those for which there is no worker."""
    lines: list[RenderableType] = []
    for item in live:
        text = trouble(item, now)
        if text:
            lines.append(Text(f"  {text}", style="yellow"))
    return lines


def trouble(item: LiveActivity, now: datetime) -> str:
    """Why this activity does not get on; empty when it does."""
    if item.state == "waiting for a worker" and item.attempt == 1:
        queue = f" on task queue {item.task_queue}" if item.task_queue else ""
        return f"{item.activity} waits for a worker{queue}."
    if not item.last_failure:
        return ""
    again = ""
    if item.next_try_at and item.next_try_at > now:
        again = f" Next try in {span(item.next_try_at - now)}."
    return f"{item.activity}, try {item.attempt}: {sentence(item.last_failure)}{again}"


def _snapshots(live: Iterable[LiveActivity], now: datetime) -> list[str]:
    """Age, size and growth of the run's snapshots while its decision is awaited."""
    lines = []
    for watched in (item.watched for item in live if item.watched):
        for one in watched.snapshots:
            age = f": {span(now - one.created_at)} old" if one.created_at else ""
            grown = f", {size(one.grown_bytes)} more since {clock(watched.since, now)}"
            free = "" if one.free_bytes is None else f", {size(one.free_bytes)} free"
            lines += [
                f"snapshot on {one.vm}{age}",
                f"  disks take {size(one.stored_bytes)}{grown}{free}",
            ]
    return lines


def _requests(requests: Iterable[Answer], now: datetime) -> list[str]:
    """The newest requests that were rejected: somebody asked and wonders why nothing happens."""
    rejected = [answer for answer in requests if not answer.accepted][-KEPT_REQUESTS:]
    return [f"{clock(a.at, now)} {a.kind.value} rejected: {sentence(a.message)}" for a in rejected]


def findings(items: Iterable[Finding]) -> RenderableType:
    """Findings of preflight, refusals first."""
    lines: list[RenderableType] = []
    for item in sorted(items, key=lambda finding: finding.severity is not Severity.REFUSE):
        refuses = item.severity is Severity.REFUSE
        line = Text("  REFUSED " if refuses else "  warning ", style="red" if refuses else "yellow")
        line.append(f"{item.code} ", style="bold").append(f"{item.object}: ", style="default")
        line.append(sentence(item.message), style="default")
        lines.append(line)
        if item.remedy:
            lines.append(Padding(Text(sentence(item.remedy)), (0, 0, 0, 10)))
    return Group(*lines)


def _call_to_action(view: RunView, now: datetime) -> list[RenderableType]:
    """What a person has to do now, in a frame; nothing when the run gets on by itself."""
    status = view.status
    body = Text("\n").join(Text(line) for line in to_do(view, now))
    if not body:
        return []
    red = status.operator is not None or not view.open
    return [Panel(body, border_style="red" if red else "yellow", expand=False)]


def to_do(view: RunView, now: datetime) -> list[str]:
    """What a person has to know and type now."""
    status, key = view.status, view.status.replica
    if not view.open:
        return [ENDINGS.get(view.execution, "")] if view.execution in ENDINGS else []
    if (call := status.operator) is not None:
        lines = [f"NEEDS OPERATOR: {call.code} in step {call.step.value}", sentence(call.message)]
        if call.tried:
            lines.append(f"Tried: {sentence(call.tried)}")
        if call.probing:
            lines.append("The site is asked again and again; the run goes on when it answers.")
        if status.warning and RequestKind.UNDO in call.may:
            lines.append(status.warning)
        lines += commands(key, call.may)
        return lines
    if status.phase is Phase.AWAITING_DECISION:
        since = status.decision_since
        lines = ["Awaiting the decision" + (f" since {clock(since, now)} UTC" if since else "")]
        lines += by_itself(status, now)
        lines += [status.warning] if status.warning else []
        lines += pending(status)
        return lines + commands(key, (RequestKind.COMMIT, RequestKind.UNDO))
    if status.paused:
        return ["Paused.", *commands(key, (RequestKind.RESUME, RequestKind.UNDO))]
    if status.gate is not None and status.phase is Phase.READY_TO_SWITCH:
        lines = [*gate_lines(status.gate, now), *pending(status)]
        return lines + commands(key, (RequestKind.SWITCH_OVER, RequestKind.UNDO))
    return pending(status)


MEANING = {
    RequestKind.COMMIT: "keep production",
    RequestKind.UNDO: "go back to DR",
    RequestKind.RETRY: "try the step again",
    RequestKind.RESUME: "go on",
    RequestKind.PAUSE: "stop at the next checkpoint",
    RequestKind.SWITCH_OVER: "move the work over now",
    RequestKind.RESCHEDULE: "change when the work moves over",
    RequestKind.ADJUST: "change limits, or who decides",
    RequestKind.APPROVE: "agree, as a second person",
}


def commands(key: str, kinds: Iterable[RequestKind]) -> list[str]:
    """The commands with what they mean."""
    typed = {kind: f"failback {kind.value.replace('_', '-')} {key}" for kind in kinds}
    width = max(map(len, typed.values()), default=0)
    return [f"  {text:<{width}}   {MEANING[kind]}" for kind, text in typed.items()]


def runs(items: Iterable[RunSummary], now: datetime) -> RenderableType:
    """The list of runs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("VM REPLICA", "PHASE", "STARTED (UTC)", "TOOK", "RUN"):
        table.add_column(column, no_wrap=column != "RUN", overflow="fold")
    for item in items:
        phase = item.phase if item.execution in ("RUNNING", "COMPLETED") else item.execution
        end = item.closed_at or now
        took = span(end - item.started_at) if item.started_at else ""
        table.add_row(item.replica, phase, clock(item.started_at, now), took, item.run_id)
    return table
