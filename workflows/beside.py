"""Something that runs beside the main work and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
Over = Callable[[], bool]


async def beside(work: Awaitable[T], companion: Callable[[Over], Awaitable[None]]) -> T:
    """Run both; the companion ends when `over` says so, and has ended when this returns or raises.

    There is no `finally` here on purpose: a worker that drops a run from its cache closes the
    coroutines, and one that waits while it is closed ends in an error.
    """
    done = False

    async def run() -> None:
        await companion(lambda: done)

    task = asyncio.ensure_future(run())
    try:
        result = await work
    except Exception:
        done = True
        await task
        raise
    done = True
    await task
    return result
