"""A worker that moves bytes until it is killed: `python -m tests.replay.doomed ADDRESS QUEUE`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from temporalio.client import Client

from starter.plugin import failback_plugin
from tests.workflow.stand_ins import Site, wait_for_cancel


async def moving(argument: Any, count: int) -> None:
    """Say that it has begun, and beat."""
    print("moves", flush=True)
    await wait_for_cancel()


async def main(address: str, queue: str) -> None:
    """Move until killed."""
    client = await Client.connect(address, plugins=[failback_plugin()])
    await Site(client, queue, {"transport_changes": moving}).movers().run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
