"""What failback needs of a Temporal namespace."""

from __future__ import annotations

import argparse
import asyncio

from starter.plugin import SEARCH_ATTRIBUTES, connect, ensure_search_attributes
from starter.shell import Shell
from starter.terminal import quiet


def register(args: argparse.Namespace, shell: Shell) -> int:
    """`failback search-attributes`."""

    async def go() -> tuple[str, tuple[str, ...]]:
        client = await connect(shell.environ, runtime=quiet())
        return client.namespace, await ensure_search_attributes(client)

    namespace, added = asyncio.run(go())
    names = [key.name for key in SEARCH_ATTRIBUTES]
    shell.give({"namespace": namespace, "search_attributes": names, "registered": list(added)})
    if added:
        shell.say(f"Registered in namespace {namespace}: {', '.join(added)}.")
    else:
        shell.say(f"Namespace {namespace} has them all: {', '.join(names)}.")
    return 0
