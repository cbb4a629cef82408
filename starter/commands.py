"""Commands that ask a run something once: start, status, list, and the requests."""

from __future__ import annotations

import argparse
import asyncio

from failback.contracts.plan import BeginAnswer
from failback.contracts.requests import Answer
from failback.contracts.words import RequestKind
from starter import mapping, render
from starter.client import FailbackClient
from starter.describe import checked_key
from starter.shell import Shell
from starter.terminal import console, open_client, show, unicode_safe
from starter.units import sentence
from starter.views import RunView

DONE, REFUSED = 0, 2

NEXT = {
    RequestKind.COMMIT: "Follow its end with `failback watch {key} --until end`.",
    RequestKind.UNDO: "The run goes back to DR. Follow it with `failback watch {key} --until end`.",
    RequestKind.RETRY: "Follow it with `failback watch {key}`.",
    RequestKind.PAUSE: "The run stops at the next checkpoint; go on with `failback resume {key}`.",
    RequestKind.RESUME: "Follow it with `failback watch {key}`.",
    RequestKind.SWITCH_OVER: "Follow it with `failback watch {key}`.",
    RequestKind.RESCHEDULE: "See what it waits for with `failback status {key}`.",
    RequestKind.ADJUST: "See it with `failback status {key}`.",
    RequestKind.APPROVE: "Follow it with `failback watch {key}`.",
}


def start(args: argparse.Namespace, shell: Shell) -> int:
    """`failback start KEY`."""
    request = mapping.start_request(args, shell.user)

    async def go() -> BeginAnswer:
        client = await open_client(shell, args.settings)
        return await client.start(request, wait=not args.no_wait)

    answer = asyncio.run(go())
    shell.give(answer)
    key = request.replica
    if answer.findings:
        show(shell, render.findings(answer.findings))
    if not answer.accepted:
        shell.say(f"The failback of {key} is refused; nothing was changed.")
        return REFUSED
    how = "is started; preflight has not answered yet" if args.no_wait else "is accepted"
    shell.say(f"The failback of {key} {how} (run {answer.run_id}).")
    shell.say(f"Follow it with `failback watch {key}`.")
    return DONE


def status(args: argparse.Namespace, shell: Shell) -> int:
    """`failback status KEY`."""
    key = checked_key(args.key)

    async def go() -> RunView:
        return await (await open_client(shell, args.settings)).status(key)

    view = asyncio.run(go())
    shell.give(view)
    show(shell, render.run(view, shell.now(), unicode=unicode_safe(console(shell))))
    return DONE


def list_runs(args: argparse.Namespace, shell: Shell) -> int:
    """`failback list`."""

    async def go() -> int:
        found = await (await open_client(shell, args.settings)).list()
        shell.give([run.model_dump(mode="json") for run in found])
        if found:
            show(shell, render.runs(found, shell.now()))
        else:
            shell.say("There are no runs.")
        return DONE

    return asyncio.run(go())


def ask(args: argparse.Namespace, shell: Shell) -> int:
    """`failback commit|undo|retry|pause|resume|switch-over|reschedule|adjust|approve KEY`."""
    kind = RequestKind(args.name.replace("-", "_"))
    request = mapping.request(args, shell.user)

    async def go() -> Answer | None:
        client = await open_client(shell, args.settings)
        if kind is RequestKind.UNDO and not await _agreed(args, shell, client):
            return None
        return await client.ask(kind, args.key, request)

    answer = asyncio.run(go())
    if answer is None:
        shell.note("Nothing was sent.")
        return REFUSED
    shell.give(answer)
    if not answer.accepted:
        shell.note(f"failback: {args.key}: {sentence(answer.message)}")
        return REFUSED
    if answer.pending:
        shell.say(f"{kind.value} of {args.key} waits: {sentence(answer.message)}")
        shell.say(f"Another person types `failback approve {args.key} {answer.request_id}`.")
        return DONE
    remark = f"{sentence(answer.message)} " if answer.message else ""
    shell.say(f"{kind.value} of {args.key} is accepted. {remark}{NEXT[kind].format(key=args.key)}")
    return DONE


async def _agreed(args: argparse.Namespace, shell: Shell, client: FailbackClient) -> bool:
    """Say what undo loses before it happens; ask where somebody can answer."""
    view = await client.status(args.key)
    if not view.open:
        return True  # the answer will say that it is too late
    for line in undo_loses(view):
        shell.note(line)
    if args.yes or not shell.interactive:
        return True
    return shell.ask(f"Undo the failback of {args.key}?")


def undo_loses(view: RunView) -> list[str]:
    """What undo does and loses now, in sentences."""
    status = view.status
    lines = [
        f"Undo takes the work of {status.replica} back to its VM replica at the DR site "
        f"(the run is in phase {status.phase.value})."
    ]
    lines.append(
        status.warning
        or "Production has not been powered on by this run, so none of its writes are lost."
    )
    return lines
