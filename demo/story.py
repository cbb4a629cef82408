"""The story: what happens on stage, in which order, and what is said about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console

from demo import closing, proof
from demo.processes import DemoFailed
from demo.screen import Screen, screen
from demo.site import HEARTBEAT_TIMEOUT_S, KEY, REPLICA, Site
from failback.contracts.status import Status
from failback.contracts.words import Phase
from starter.client import FailbackClient
from starter.shell import Shell
from starter.units import size, span
from starter.views import RunView
from starter.watching import follow

KILL_AT = 0.12
"""Share of pass 1 after which the worker dies. What is shown is a second old, and the ends of both
disks are holes, which cost no time: the middle of the work comes long before the middle of the
disks."""

LIMIT_S = 240.0
"""A demo takes half a minute; one that stands still has failed and must say so."""


class Director:
    """Shows the run, and makes the accident happen in the middle."""

    def __init__(self, site: Site, told: closing.Told, shown: Screen, worker: str) -> None:
        self._site, self._told, self._shown, self._worker = site, told, shown, worker
        self._examined: dict[str, int] = {}
        self._resumed = False

    def view(self, view: RunView) -> None:
        self._shown.view(view)
        self._site.processes.require_alive()
        if view.status.phase is not Phase.SYNCING or view.status.transfers:
            return
        total = sum(plan.areas_bytes for plan in view.status.differences)
        if self._told.examined_when_killed:
            self._watch_resuming(view)
            return
        # A disk that is done has no live numbers any more, but what it did still counts.
        self._examined |= {a: p.examined_bytes for a, p in view.progress.items()}
        examined = sum(self._examined.values())
        if not self._told.late_text and examined > 0:
            self._order_comes_in()
        if self._told.late_text and examined > KILL_AT * total:
            self._told.examined_when_killed, self._told.total_bytes = examined, total
            self._accident()

    def trouble(self, message: str) -> None:
        self._shown.trouble(message)
        self._site.processes.require_alive()

    def _order_comes_in(self) -> None:
        """Users go on working on DR: one more file is written on the running replica."""
        late = self._site.manifest["demo"]["late_file"]
        text = f"order 4711, placed on DR at {datetime.now(UTC):%H:%M:%S}, pass 1 was running\n"
        self._site.ask(
            f"/sites/dr/vms/{REPLICA}/guest/write",
            {"disk": late["disk"], "file": late["path"], "text": text},
        )
        self._told.late_text = text
        self._shown.remark(f"An order comes in on DR while pass 1 runs: {late['path']}")

    def _accident(self) -> None:
        self._site.processes.kill(self._worker)
        self._shown.remark(f"{self._worker} is killed with SIGKILL in the middle of pass 1")
        name = self._site.start_worker()
        self._shown.remark(
            f"{name} is up; Temporal notices the death after {HEARTBEAT_TIMEOUT_S} s without a "
            "heartbeat"
        )

    def _watch_resuming(self, view: RunView) -> None:
        resumed = sum(p.resumed_bytes for p in view.progress.values())
        if resumed and not self._resumed:
            self._resumed = True
            self._shown.remark("The transfer goes on from the ledger, not from zero")


async def tell(site: Site, console: Console, *, undo: bool, decide: bool) -> bool:
    """Tell the story; returns whether every proof held."""
    told = closing.Told()
    try:
        async with asyncio.timeout(LIMIT_S):
            return await _tell(site, console, told, undo=undo, decide=decide)
    except TimeoutError:
        raise DemoFailed(f"The demo did not come to its end within {LIMIT_S:.0f} s.") from None


async def _tell(
    site: Site, console: Console, told: closing.Told, *, undo: bool, decide: bool
) -> bool:
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
    status = await _follow(site, told, client, worker, console)
    if not told.examined_when_killed:
        raise DemoFailed("Pass 1 was over before the worker could be killed: it ran too fast.")
    _say(
        console,
        f"The second worker found {size(told.resumed_bytes(status))} of pass 1 in the ledger.",
    )

    _stage(console, "The decision", "production serves; the replica is off and protected")
    if not decide:
        _say(console, "The run waits for commit or undo, for as long as you like.")
        return True
    if undo:
        _say(console, "commit would keep production; this demo undoes: work goes back to DR.")
        _run(site, console, "undo", KEY, "--yes", "--by", "demo", "--reason", "the other branch")
    else:
        _say(console, "undo would go back to DR; this demo commits: production is kept.")
        _run(site, console, "commit", KEY, "--by", "demo", "--reason", "all is well")
    told.status = await client.wait(KEY)
    for line in _done_since(told.status, len(status.steps)):
        _say(console, line)
    _say(console, f"The run has ended: {told.status.outcome}.")
    if not undo:
        site.wait_for_cleanup()
        _say(console, "A workflow of its own has removed the target's protective snapshot.")
    run = client.client.get_workflow_handle(f"failback/{KEY}")
    told.history_events = (await run.describe()).history_length

    _stage(console, "The proof", "bytes, file systems, files, inventory, catalog")
    proofs = list(proof.undone(site) if undo else proof.committed(site, told.late_text))
    proofs.append(closing.resumed(told))
    console.print(closing.table(proofs, told, proof.replica_disks(site)))
    return all(one.holds for one in proofs)


def _done_since(status: Status, count: int) -> Iterator[str]:
    """What the decision set off, step by step."""
    for step in status.steps[count:]:
        if step.finished_at and step.started_at and not step.skipped:
            yield f"done  {step.title} ({span(step.finished_at - step.started_at)})"


async def _follow(
    site: Site, told: closing.Told, client: FailbackClient, worker: str, console: Console
) -> Status:
    shell = Shell.of_process()

    async def pause(_: float) -> None:
        await asyncio.sleep(0.25)

    shell.pause = pause
    with screen(console, shell) as shown:
        director = Director(site, told, shown, worker)
        verdict = await follow(client, KEY, "decision", director, shell)
    view = await client.status(KEY)
    if verdict != 0:
        why = view.status.operator.message if view.status.operator else view.status.phase
        raise DemoFailed(f"The run did not come to the decision: {why}")
    return view.status


def _stage(console: Console, title: str, text: str) -> None:
    console.print()
    console.print(f"[bold]{title}[/]: {text}", highlight=False)


def _say(console: Console, text: str) -> None:
    console.print(f"  {text}", highlight=False, soft_wrap=True, markup=False)


def _run(site: Site, console: Console, *arguments: str) -> None:
    """Show a command as somebody would type it, and what it answers."""
    shown = " ".join(f"'{part}'" if " " in part else part for part in arguments)
    _print(console, f"  $ failback {shown}", "cyan")
    for line in site.command(*arguments).splitlines():
        _print(console, f"    {line}", "")


def _print(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)
