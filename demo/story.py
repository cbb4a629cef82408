"""The story: what happens on stage, in which order, and what is said about it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from demo import proof
from demo.processes import DemoFailed
from demo.site import KEY, REPLICA, Site
from failback.contracts.status import Status
from failback.contracts.words import Phase, StepName
from starter.client import FailbackClient
from starter.shell import Shell
from starter.views import RunView
from starter.watching import Display, display, follow

KILL_AT = 0.12
"""Share of pass 1 after which the worker dies."""


@dataclass
class Told:
    """What the demo remembers for its closing table."""

    began: float = field(default_factory=time.monotonic)
    examined_when_killed: int = 0
    total_bytes: int = 0
    late_text: str = ""
    status: Status | None = None
    history_events: int = 0


class Director:
    """Shows the run as `failback watch` does, and makes the accident happen in the middle."""

    def __init__(self, site: Site, told: Told, screen: Display, worker: str) -> None:
        self._site, self._told, self._screen, self._worker = site, told, screen, worker
        self._killed = False
        self._examined: dict[str, int] = {}

    def view(self, view: RunView) -> None:
        self._screen.view(view)
        if view.status.phase is not Phase.SYNCING or view.status.transfers:
            return
        total = sum(plan.areas_bytes for plan in view.status.differences)
        # A disk that is done has no live numbers any more, but what it did still counts.
        self._examined |= {a: p.examined_bytes for a, p in view.progress.items()}
        examined = sum(self._examined.values())
        if not self._told.late_text and examined > 0:
            self._order_comes_in()
        if not self._killed and self._told.late_text and examined > KILL_AT * total:
            self._killed = True
            self._told.examined_when_killed, self._told.total_bytes = examined, total
            self._accident()

    def trouble(self, message: str) -> None:
        self._screen.trouble(message)

    def _order_comes_in(self) -> None:
        """Users go on working on DR: one more file is written on the running replica."""
        late = self._site.manifest["demo"]["late_file"]
        text = f"order 4711, placed on DR at {datetime.now(UTC):%H:%M:%S}, pass 1 was running\n"
        self._site.ask(
            f"/sites/dr/vms/{REPLICA}/guest/write",
            {"disk": late["disk"], "file": late["path"], "text": text},
        )
        self._told.late_text = text
        self._screen.trouble(f"users go on working on DR: {late['path']} is written there now")

    def _accident(self) -> None:
        self._site.processes.kill(self._worker)
        self._screen.trouble(f"{self._worker} was killed with SIGKILL in the middle of pass 1")
        name = self._site.start_worker()
        self._screen.trouble(
            f"{name} is up; it goes on when the heartbeat timeout (3 s) has passed"
        )


async def tell(site: Site, console: Console, *, undo: bool, decide: bool) -> tuple[Told, bool]:
    """Tell the story; returns what is remembered and whether every proof held."""
    told = Told()
    _stage(console, "The sites", "two vCenters, each with its disks, and a Temporal server")
    site.start()
    worker = site.start_worker()
    _say(console, f"production: {KEY}, stale since the disaster; DR: {REPLICA}, running, two disks")
    _say(console, f"Temporal UI: http://127.0.0.1:{site.ui_port}")
    _say(console, f"files of this demo: {site.folder}")

    _stage(
        console, "Failback begins", "the replica keeps serving while its changes are written home"
    )
    add = ("replica", "add", KEY, "--replica", f"dr:{REPLICA}", "--source", f"production:{KEY}")
    _run(site, console, *add, "--in-failover")
    _run(site, console, "start", KEY, "--accept-target-overwrite", "--by", "demo")
    _say(console, "In the middle of pass 1 an order comes in on DR, and the worker is killed (-9).")
    client = await FailbackClient.connect(site.environment())
    status = await _follow(site, told, client, worker, "decision")
    if not told.examined_when_killed:
        raise DemoFailed("Pass 1 was over before the worker could be killed: it ran too fast.")
    resumed = sum(t.resumed_bytes for t in status.transfers)
    _say(
        console, f"The second worker found {_mib(resumed)} of pass 1 in the ledger: not from zero."
    )

    _stage(console, "The decision", "production serves; the replica is off and protected")
    _say(console, f"commit keeps production, undo goes back to DR; look at it: {site.ui}")
    told.status = status
    if not decide:
        return told, True
    request = ("undo", KEY, "--yes") if undo else ("commit", KEY)
    _run(site, console, *request, "--by", "demo", "--reason", "the demo decides")
    told.status = await client.wait(KEY)
    if not undo:
        site.wait_for_cleanup()

    _stage(console, "The proof", "bytes, file systems, files, inventory, catalog")
    proofs = list(proof.undone(site) if undo else proof.committed(site, told.late_text))
    proofs.append(
        proof.Proof(
            "the transfer resumed after the crash",
            f"killed at {_mib(told.examined_when_killed)} of {_mib(told.total_bytes)}, "
            f"{_mib(resumed)} resumed",
            resumed > 0,
        )
    )
    console.print(_table(proofs, told))
    return told, all(one.holds for one in proofs)


async def _follow(
    site: Site, told: Told, client: FailbackClient, worker: str, until: str
) -> Status:
    shell = Shell.of_process()

    async def pause(_: float) -> None:
        await asyncio.sleep(0.25)

    shell.pause = pause
    with display(shell) as screen:
        verdict = await follow(client, KEY, until, Director(site, told, screen, worker), shell)
    view = await client.status(KEY)
    if verdict != 0:
        why = view.status.operator.message if view.status.operator else view.status.phase
        raise DemoFailed(f"The run did not come to the decision: {why}")
    return view.status


def _table(proofs: list[proof.Proof], told: Told) -> Table:
    table = Table(title=f"Failback of {KEY}: what was proven", title_justify="left")
    table.add_column("proof")
    table.add_column("seen")
    table.add_column("holds")
    for one in proofs:
        mark = "[green]yes[/]" if one.holds else "[bold red]NO[/]"
        table.add_row(one.claim, one.seen, mark)
    table.add_section()
    for claim, seen in _numbers(told):
        table.add_row(claim, seen, "")
    return table


def _numbers(told: Told) -> list[tuple[str, str]]:
    status = told.status
    assert status is not None
    plans = {plan.plan_id: plan for plan in status.differences}
    half = len(status.transfers) // 2
    passes = (status.transfers[:half], status.transfers[half:])
    down, up = status.downtime_started_at, status.downtime_ended_at
    marked = next((s for s in status.steps if s.name is StepName.POWER_ON_TARGET), None)
    if marked is not None and marked.finished_at is not None:
        up = marked.finished_at
    rows = [
        (
            f"pass {number}: examined, different, written",
            ", ".join(
                _mib(sum(getattr(t, name) for t in transfers))
                for name in ("examined_bytes", "different_bytes", "written_bytes")
            )
            + f" ({', '.join(sorted({t.method.value for t in transfers}))})",
        )
        for number, transfers in enumerate(passes, 1)
    ]
    if down and up:
        rows.append(("downtime of the service", f"{(up - down).total_seconds():.1f} s"))
    rows.append(("disks planned in two passes", str(len(plans))))
    rows.append(("the whole demo", f"{time.monotonic() - told.began:.0f} s"))
    return rows


def _mib(count: int) -> str:
    return f"{count / 1024 / 1024:.1f} MiB"


def _stage(console: Console, title: str, text: str) -> None:
    console.print()
    console.print(f"[bold]{title}[/]: {text}", highlight=False)


def _say(console: Console, text: str) -> None:
    console.print(f"  {text}", highlight=False, soft_wrap=True)


def _run(site: Site, console: Console, *arguments: str) -> None:
    """Show a command as somebody would type it, and what it answers."""
    console.print(f"  [cyan]$ failback {' '.join(arguments)}[/]", highlight=False, soft_wrap=True)
    for line in site.command(*arguments).splitlines():
        console.print(f"    {line}", highlight=False, soft_wrap=True)
