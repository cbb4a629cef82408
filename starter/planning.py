"""`failback plan`: what a failback would do, and the command that starts exactly that."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from failback.contracts.preview import PlannedStep, Preview
from starter import mapping, render
from starter.shell import Shell
from starter.terminal import open_client, show
from starter.units import sentence, size, span

DONE, REFUSED = 0, 2


def plan(args: argparse.Namespace, shell: Shell) -> int:
    """`failback plan KEY`."""
    request = mapping.start_request(args, shell.user)

    async def go() -> Preview:
        client = await open_client(shell, args.settings)
        return await client.preview(request)

    found = asyncio.run(go())
    shell.give(found)
    if found.findings:
        show(shell, render.findings(found.findings))
        shell.say("")
    if not found.accepted:
        shell.say(f"A failback of {request.replica} would be refused; nothing was changed.")
        return REFUSED
    show(shell, shown(found))
    shell.say("\nNothing was changed. To start exactly this:")
    # One line however long: it is to be copied.
    shell.say(f"  {start_line(shell.argv[1:], found.plan_hash)}")
    return DONE


def start_line(typed: Sequence[str], plan_hash: str) -> str:
    """What to type: the words after `plan`, and the hash."""
    return " ".join(("failback", "start", *map(shlex.quote, typed), "--plan-hash", plan_hash))


def shown(found: Preview) -> RenderableType:
    """Steps, times and remarks for people."""
    title = Text.assemble(
        "Plan: failback of ", (str(found.replica), "bold"), f" to {found.destination.value}"
    )
    if found.plan is not None:
        target = found.plan.target
        onto = str(target) if target.moref else f"{found.plan.final_name} ({target.site}), made new"
        title.append(f", {found.plan.replica} -> {onto}")
    times = Text(
        f"  until the decision about {span(found.duration)}, "
        f"of it downtime (marked !) about {span(found.downtime)}"
    )
    parts: list[RenderableType] = [title, Text(), _steps(found.steps), Text(), times]
    parts += [Text(f"    {line}", style="dim") for line in found.rests_on]
    parts += [Text(), *(Text(f"  {sentence(line)}") for line in found.remarks)]
    return Group(*parts)


def _steps(steps: Iterable[PlannedStep]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", width=3, justify="right")
    table.add_column("STEP", overflow="fold", ratio=3)
    table.add_column("BYTES", no_wrap=True, justify="right")
    table.add_column("TIME", no_wrap=True, justify="right")
    table.add_column("ON UNDO", overflow="fold", ratio=2, style="dim")
    for step in steps:
        text = Text(step.title, style="dim" if step.skipped else "")
        if step.what:
            text.append(f"\n{step.what}", style="dim")
        count = "" if step.bytes is None else size(step.bytes)
        mark = "-" if step.skipped else "!" if step.downtime else ""
        table.add_row(Text(mark, style="yellow"), text, count, _time(step), Text(step.on_undo))
    return table


def _time(step: PlannedStep) -> str:
    if step.skipped:
        return "skipped"
    return "" if step.seconds is None else span(step.seconds)
