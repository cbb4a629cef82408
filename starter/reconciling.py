"""`failback reconcile`: what a run left behind whose workflow is gone, and its end."""

from __future__ import annotations

import argparse
import asyncio

from rich.table import Table

from failback.contracts.remains import ReconcileRequest, Remains
from failback.contracts.words import Finish
from starter import mapping
from starter.describe import checked_key
from starter.shell import Shell
from starter.terminal import open_client, show

DONE, REFUSED = 0, 2


def reconcile(args: argparse.Namespace, shell: Shell) -> int:
    """Say what was left; with `--finish` bring the run to its end."""
    key = checked_key(args.key)
    finish = Finish(args.finish) if args.finish else None
    request = ReconcileRequest(
        replica=key, finish=finish, request=mapping.request(args, shell.user)
    )

    async def go() -> Remains:
        client = await open_client(shell, args.settings)
        return await client.reconcile(request)

    if finish is Finish.UNDO and not args.yes and shell.interactive:
        shell.note("Undo takes the work back to the VM replica; what production wrote is lost.")
        if not shell.ask(f"Undo the run of {key} that was left behind?"):
            shell.note("Nothing was begun.")
            return REFUSED
    remains = asyncio.run(go())
    shell.give(remains)
    if not remains.run_id:
        shell.say(f"There was no run of {key}: nothing is left.")
        return DONE
    if remains.left:
        show(shell, table(remains))
    for text in told(remains):
        shell.say(text)
    return DONE


def table(remains: Remains) -> Table:
    """What is not as it was."""
    made = Table(title=f"Run {remains.run_id} of {remains.replica}", title_justify="left")
    made.add_column("object")
    made.add_column("what is left")
    for one in remains.left:
        made.add_row(one.object, one.what)
    return made


def told(remains: Remains) -> list[str]:
    """What it means and what to type, in sentences."""
    key = remains.replica
    state = remains.outcome or f"open in phase {remains.phase}"
    lines = [f"The run is {state} in the catalog; the replica is {remains.replica_state}."]
    lines += [f"Could not be read: {text}" for text in remains.unread]
    if remains.finishing is not None:
        what = "cleanup" if remains.finishing is Finish.CLEANUP else "run"
        lines.append(
            f"The {what} goes on: {remains.finishing.value}. "
            f"Follow it with `failback watch {key} --until end`."
        )
    elif not remains.left and not remains.may:
        lines.append("Nothing is left to do.")
    elif remains.may:
        ways = " or ".join(f"`failback reconcile {key} --finish {one}`" for one in remains.may)
        lines.append(f"To finish it: {ways}.")
        if remains.first:
            lines.append(f"Commit would first do: {'; '.join(remains.first)}.")
        if remains.no_commit:
            lines.append(f"Commit is not possible. {remains.no_commit}")
    return lines
