"""`failback replica list|show|mark-failover`: VM replicas in the catalog."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from failback.catalog.records import ReplicaDetail, ReplicaRecord
from failback.contracts.vm import VmIdentity
from failback.contracts.words import ReplicaState
from starter.administration import catalog, detail_json, record_json, settings
from starter.describe import checked_key
from starter.shell import Shell
from starter.terminal import show as print_out
from starter.units import clock

COLOURS = {
    ReplicaState.READY: "green",
    ReplicaState.FAILOVER: "yellow",
    ReplicaState.READY_TO_SWITCH: "cyan",
    ReplicaState.FAILBACK: "magenta",
}
NEXT = {
    ReplicaState.READY: "After a failover: `failback replica mark-failover {key}`.",
    ReplicaState.FAILOVER: "Fail it back with `failback start {key}`.",
    ReplicaState.READY_TO_SWITCH: "A run holds it: `failback status {key}`.",
    ReplicaState.FAILBACK: "A run holds it: `failback status {key}`.",
}


def list_replicas(args: argparse.Namespace, shell: Shell) -> int:
    """`failback replica list`."""
    with catalog(settings(shell, args.settings)) as opened:
        records = opened.list_replicas()
    shell.give([record_json(record) for record in records])
    if records:
        print_out(shell, table(records))
    else:
        shell.say("There are no VM replicas. Add one with `failback replica add`.")
    return 0


def show(args: argparse.Namespace, shell: Shell) -> int:
    """`failback replica show KEY`."""
    key = checked_key(args.key)
    with catalog(settings(shell, args.settings)) as opened:
        found = opened.replica_detail(key)
    shell.give(detail_json(found))
    print_out(shell, detail(found, shell.now()))
    return 0


def mark_failover(args: argparse.Namespace, shell: Shell) -> int:
    """`failback replica mark-failover KEY`."""
    key = checked_key(args.key)
    with catalog(settings(shell, args.settings)) as opened:
        record = opened.mark_failover(key)
    shell.give(record_json(record))
    shell.say(f"VM replica {key} is in state {record.state.value}; its replication is on hold.")
    shell.say(NEXT[record.state].format(key=key))
    return 0


def table(records: Iterable[ReplicaRecord]) -> RenderableType:
    """One line per replica."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("KEY", "STATE", "VM REPLICA", "SOURCE VM", "RUN"):
        rows.add_column(column, overflow="fold")
    for record in records:
        rows.add_row(
            Text(record.key, style="bold"),
            Text(record.state.value, style=COLOURS[record.state]),
            short(record.replica),
            short(record.source),
            record.held_by or "",
        )
    return rows


def short(vm: VmIdentity) -> str:
    """A VM in a line of a table."""
    return f"{vm.site}:{vm.name}"


def detail(found: ReplicaDetail, now: datetime) -> RenderableType:
    """Everything that hangs on a replica."""
    record = found.replica
    hold = "on hold" if record.replication_on_hold else "may run"
    state = Text.assemble((record.state.value, f"bold {COLOURS[record.state]}"))
    parts: list[RenderableType] = [
        Text.assemble("VM replica ", (record.key, "bold"), ": ", state),
        Text(f"  since {clock(record.updated_at, now)} UTC, replication {hold}", style="dim"),
        Text(),
        _vm("VM replica", record.replica),
        _vm("source VM", record.source),
    ]
    for title, lines in (
        (
            "Restore points",
            [
                f"{clock(point.created_at, now)}  {point.name} ({point.kind}, {point.snapshot})"
                for point in found.restore_points
            ],
        ),
        (
            "Runs",
            [
                f"{clock(run.started_at, now)}  {run.outcome.value if run.outcome else run.phase}  "
                f"{run.run_id}"
                + (f"  by {run.by}" if run.by else "")
                + (f": {run.reason}" if run.reason else "")
                for run in found.runs
            ],
        ),
        (
            "Replication jobs",
            [
                f"{job.name}"
                + (" (running)" if job.running else "")
                + (f", next run: {job.next_run}" if job.next_run else "")
                for job in found.jobs
            ],
        ),
    ):
        if lines:
            parts += [Text(), Text(title, style="bold"), *(Text(f"  {line}") for line in lines)]
    parts += [Text(), Text(NEXT[record.state].format(key=record.key))]
    return Group(*parts)


def _vm(title: str, vm: VmIdentity) -> Text:
    ids = f"{vm.moref}, instance UUID {vm.instance_uuid}"
    return Text(f"  {title:<10}  {vm.site}:{vm.path}\n{'':14}{ids}")
