"""Records the histories that test_replay.py replays: `python -m tests.replay.record`.

Run it only when commands of the workflows change on purpose; such a change carries a
`workflow.patched` marker, and the old histories stay beside the new ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from failback.contracts.status import Status
from failback.contracts.words import Phase
from starter.plugin import SEARCH_ATTRIBUTES, failback_plugin
from tests.workflow.stand_ins import Script, Site, begin, until, wait_for_cancel, working
from tools import paths

HISTORIES = Path(__file__).parent / "histories"
Handle = WorkflowHandle[Any, Status]


async def commit(handle: Handle, site: Site) -> None:
    """The whole list, then commit."""
    await until(handle, Phase.AWAITING_DECISION)
    await handle.signal("commit", {"by": "ann"})


async def undo(handle: Handle, site: Site) -> None:
    """The whole list, then undo."""
    await until(handle, Phase.AWAITING_DECISION)
    await handle.signal("undo", {"by": "ann"})


async def undo_in_transport(handle: Handle, site: Site) -> None:
    """Undo while bytes move."""
    await moves(site)
    await handle.signal("undo")


async def pause_and_resume(handle: Handle, site: Site) -> None:
    """Pause while bytes move, resume, commit."""
    await moves(site)
    await handle.execute_update("pause")
    await handle.execute_update("resume")
    await commit(handle, site)


async def trouble(handle: Handle, site: Site) -> None:
    """NEEDS_OPERATOR, retry, commit."""
    await until(handle, Phase.NEEDS_OPERATOR)
    await handle.execute_update("retry")
    await commit(handle, site)


async def moves(site: Site) -> None:
    """Wait until both disks move."""
    async with asyncio.timeout(20):
        while site.issued.count("transport_changes") < 2:
            await asyncio.sleep(0.02)


async def moving(argument: Any, count: int) -> None:
    """A transport that moves until it is stopped; the next tries are quick."""
    if count < 2:
        await wait_for_cancel()


def failing(argument: Any, count: int) -> BaseException | None:
    """Fails once, for good."""
    if count:
        return None
    return ApplicationError("No room.", {"tried": "1"}, type="DiskFull", non_retryable=True)


PATHS: dict[str, tuple[Callable[[Handle, Site], Awaitable[None]], dict[str, Script]]] = {
    "commit": (commit, {}),
    "undo": (undo, {}),
    "undo-in-transport": (undo_in_transport, {"transport_changes": moving}),
    "pause-and-resume": (pause_and_resume, {"transport_changes": moving}),
    "needs-operator-and-retry": (trouble, {"protect_target": failing}),
}


def without_machine(value: Any) -> Any:
    """The history without what names the machine it was recorded on."""
    if isinstance(value, dict):
        kept = {key: without_machine(item) for key, item in value.items() if key != "stackTrace"}
        return {key: "worker" if key == "identity" else item for key, item in kept.items()}
    if isinstance(value, list):
        return [without_machine(item) for item in value]
    return value


async def record(client: Client, name: str) -> None:
    """Live one path and store its history."""
    drive, script = PATHS[name]
    async with working(client, **script) as (site, queue):
        handle = await begin(client, queue)
        await drive(handle, site)
        await handle.result()
        history = without_machine(json.loads((await handle.fetch_history()).to_json()))
    HISTORIES.mkdir(exist_ok=True)
    (HISTORIES / f"{name}.json").write_text(json.dumps(history, indent=1) + "\n")


async def main() -> None:
    """Record every path on a dev server of our own."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(paths.temporal()),
        dev_server_startup_timeout=timedelta(seconds=60),
        search_attributes=SEARCH_ATTRIBUTES,
        plugins=[failback_plugin()],
    ) as env:
        for name in PATHS:
            await record(env.client, name)


if __name__ == "__main__":
    asyncio.run(main())
