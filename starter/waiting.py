"""What a run waits for, as lines for people: the gate, the decision, a second person, hooks."""

from __future__ import annotations

from datetime import datetime

from failback.contracts.status import GateStatus, Status
from starter.units import clock, sentence, size, span

KEPT_HOOKS = 3


def gate_lines(gate: GateStatus, now: datetime) -> list[str]:
    """Why it waits, what a switch would cost now, and what comes next."""
    lines = ["Ready to switch" + (f": {gate.holds}." if gate.holds else ".")]
    if (told := gate.prediction) is not None:
        lines.append(f"A switch now: about {span(told.downtime)} of downtime")
        lines += [f"  {text}" for text in told.rests_on]
        rate = told.change_rate_bytes_per_s
        changes = f", {size(int(rate))}/s come to differ" if rate is not None else ""
        lines.append(f"Lag: {size(told.lag_bytes)} in the newest cycle{changes}")
    if gate.downtime_budget is not None:
        lines.append(f"Downtime budget: {span(gate.downtime_budget)}")
    if gate.next_cycle_at is not None and gate.next_cycle_at > now:
        lines.append(f"Next cycle in {span(gate.next_cycle_at - now)}")
    return lines


def by_itself(status: Status, now: datetime) -> list[str]:
    """What the run decides without a person, and when."""
    told = status.finalize
    if told is None:
        return []
    if told.ended:
        return [f"{told.mode.value} has ended: {sentence(told.ended)}"]
    if told.at is None:
        return [f"{told.mode.value}: its timer stands still while the run is paused."]
    return [f"{told.mode.value} in {span(told.at - now)}, unless somebody decides before"]


def pending(status: Status) -> list[str]:
    """Requests that wait for a second person, and what that person types."""
    lines = []
    for asked in status.pending:
        lines.append(f"{asked.kind.value} of {asked.by} waits: {sentence(asked.message)}")
        lines.append(f"  failback approve {status.replica} {asked.request_id}")
    return lines


def hook_lines(status: Status, now: datetime) -> list[str]:
    """The newest calls of the settings and how they ended."""
    return [
        f"hook {one.name} {one.when} {one.step.value} at {clock(one.at, now)}: "
        f"{'done' if one.ok else 'failed'}"
        for one in status.hooks[-KEPT_HOOKS:]
    ]
