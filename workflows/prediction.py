"""How long the downtime of a switch would be, told from what this run has measured itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from failback.contracts.status import Cycle, Prediction, StepStatus
from failback.contracts.words import Method, StepName
from workflows.facts import Facts

SHUTDOWN = timedelta(seconds=30)
"""A guest that shuts down in order; not measured before the switch."""
HARD_OFF = timedelta(seconds=2)
BOOT = timedelta(seconds=30)
"""Until a guest's kernel runs; what its services need is not known to us."""
SNAPSHOT = timedelta(seconds=5)
"""Where no snapshot of this run was measured yet."""
BYTES_PER_S = 100e6
"""Where no transport of this run was measured yet."""
SAMPLE = 0.01
"""Share of a disk that verify reads beside what was written."""


def predict(facts: Facts, steps: Sequence[StepStatus], now: datetime) -> Prediction:
    """Guest shutdown, snapshot, final pass, verify and boot, if the switch began at `now`."""
    parts = (
        _shutdown(facts),
        _snapshot(steps),
        _final_pass(facts, now),
        _verify(facts),
        (BOOT, f"boot {_s(BOOT)} assumed") if facts.request.power_on_target else (timedelta(0), ""),
    )
    newest = facts.cycles[-1] if facts.cycles else None
    return Prediction(
        downtime=timedelta(seconds=round(sum(part.total_seconds() for part, _ in parts), 1)),
        rests_on=tuple(text for _, text in parts if text),
        lag_bytes=newest.different_bytes if newest else 0,
        change_rate_bytes_per_s=change_rate(facts.cycles),
    )


def change_rate(cycles: Sequence[Cycle]) -> float | None:
    """Bytes per second that come to differ, between the read snapshots of the newest cycles."""
    if len(cycles) < 2:
        return None
    before, newest = cycles[-2:]
    seconds = (newest.frozen_at - before.frozen_at).total_seconds()
    return newest.different_bytes / seconds if seconds > 0 else None


def cycle_time(cycles: Sequence[Cycle]) -> timedelta:
    """How long the next cycle will probably take: as long as the newest."""
    return cycles[-1].ended_at - cycles[-1].began_at if cycles else timedelta(0)


def _shutdown(facts: Facts) -> tuple[timedelta, str]:
    if facts.known.replica_tools:
        return SHUTDOWN, f"guest shutdown {_s(SHUTDOWN)} assumed"
    text = "no guest tools: powered off hard, so that tracking may be lost"
    return HARD_OFF, text


def _snapshot(steps: Sequence[StepStatus]) -> tuple[timedelta, str]:
    for name in (StepName.RESYNC_FREEZE, StepName.FREEZE_REPLICA):
        row = next((row for row in steps if row.name is name), None)
        if row is not None and row.started_at is not None and row.finished_at is not None:
            took = row.finished_at - row.started_at
            return took, f"snapshot {_s(took)} as measured"
    return SNAPSHOT, f"snapshot {_s(SNAPSHOT)} assumed"


def _final_pass(facts: Facts, now: datetime) -> tuple[timedelta, str]:
    capacity = sum(pair.capacity_bytes for pair in facts.known.pairs)
    pace = _pace(facts.cycles)
    trusted = all(facts.change_base(str(pair.address)) for pair in facts.known.pairs)
    if not trusted or not facts.cycles or not facts.known.replica_tools:
        seconds = capacity / pace
        why = "without trusted change tracking the final pass compares whole disks"
        return timedelta(seconds=seconds), f"{why}: {capacity} bytes at {pace / 1e6:.0f} MB/s"
    rate, newest = change_rate(facts.cycles), facts.cycles[-1]
    since = (now - newest.frozen_at).total_seconds()
    if rate is None:
        # One cycle says nothing of the rate; what the replica changed since the failover would be
        # far too much, so pass 1's own share of differing bytes is not used.
        changed, text = 0.0, "change rate not known before a second cycle"
    else:
        changed, text = rate * since, f"{rate / 1e6:.2f} MB/s come to differ, for {since:.0f} s now"
    return timedelta(seconds=min(changed, capacity) / pace), f"final pass: {text}"


def _verify(facts: Facts) -> tuple[timedelta, str]:
    capacity = sum(pair.capacity_bytes for pair in facts.known.pairs)
    written = sum(one.written_bytes for one in facts.transfers if one.method is not Method.FULL)
    share = capacity if facts.request.verify_whole_disk else min(capacity, written)
    seconds = (share + capacity * SAMPLE) / _pace(facts.cycles)
    return timedelta(seconds=seconds), f"verify {seconds:.0f} s"


def _pace(cycles: Sequence[Cycle]) -> float:
    """Bytes per second that both sides were read at, of the newest cycle that says something."""
    for cycle in reversed(cycles):
        if cycle.transport_s > 0.5 and cycle.examined_bytes:
            return cycle.examined_bytes / cycle.transport_s
    return BYTES_PER_S


def _s(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
