"""What other VMs cost: whole failbacks between two small vCenters and between two crowded ones.

Both installations run side by side, each with its own simulated vCenters, worker and catalog, and
share one Temporal server. The runs alternate, so that both see the same noise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.table import Row, Tell, ratio_row, rounds
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.words import Outcome, Phase
from starter.client import FailbackClient
from starter.plugin import connect
from tests.acceptance.scene import enrol
from tests.helpers.lab import start_lab
from tests.helpers.stack import Stack, TemporalServer

CROWD = 1000
RUNS = 7
DISK_BYTES = 4 << 20
PATIENCE_S = 120.0


def rows(folder: Path, tell: Tell) -> Iterator[Row]:
    """Time of a run in a crowd of VMs, over its time where there are no others."""
    with ExitStack() as ending:
        server = TemporalServer(folder / "temporal")
        ending.callback(server.kill)
        server.start()
        runner = ending.enter_context(asyncio.Runner())
        contestants: dict[str, Callable[[], float]] = {}
        for name, others in (("alone", 0), ("crowd", CROWD)):
            tell(f"  starting vCenters with {others} other VMs each")
            stack = _stack(folder / name, server, name, others)
            ending.callback(stack.close)
            contestants[name] = _runs(stack, name, runner)
        times = rounds(contestants, RUNS, tell)
    yield ratio_row(f"a run among {CROWD} other VMs / alone", times, "crowd", "alone", 1.10)


def _stack(folder: Path, server: TemporalServer, name: str, others: int) -> Stack:
    lab = start_lab(_world(others), folder)
    stack = Stack(lab, folder, server.address, f"queue-{name}")
    for number in range(RUNS):
        enrol(
            stack, f"{name}-{number}", ("dr", f"vm{number}-replica"), ("production", f"vm{number}")
        )
    stack.worker()
    return stack


def _runs(stack: Stack, name: str, runner: asyncio.Runner) -> Callable[[], float]:
    """Each call fails the next replica back, commits, and returns the seconds that took."""
    keys = iter(f"{name}-{number}" for number in range(RUNS))

    async def run(key: str) -> float:
        client = FailbackClient(await connect(stack.env()), task_queue=stack.queue)
        began = time.monotonic()
        answer = await client.start(StartRequest(replica=key))
        if not answer.accepted:
            raise RuntimeError(f"{key} was refused: {answer.findings}")
        while (phase := (await client.status(key)).status.phase) is not Phase.AWAITING_DECISION:
            if time.monotonic() - began > PATIENCE_S:
                raise RuntimeError(f"{key} is still in {phase}")
            await asyncio.sleep(0.05)
        await client.commit(key, Request(by="bench"))
        status = await asyncio.wait_for(client.wait(key), PATIENCE_S)
        if status.outcome is not Outcome.COMMITTED:
            raise RuntimeError(f"{key} ended {status.outcome}")
        return time.monotonic() - began

    return lambda: runner.run(run(next(keys)))


def _world(others: int) -> dict[str, Any]:
    """Pairs of a stale production VM and its running replica, among VMs that are off."""

    def vm(name: str, seed: int, power: str) -> dict[str, Any]:
        return {"name": name, "power": power, "disks": [{"size_bytes": DISK_BYTES, "seed": seed}]}

    pairs = range(RUNS)
    return {
        "sites": [
            {
                "name": "production",
                "datastore": "ds-production",
                "fillers": others,
                "vms": [vm(f"vm{number}", 7 + number, "off") for number in pairs],
            },
            {
                "name": "dr",
                "datastore": "ds-dr",
                "fillers": others,
                "vms": [vm(f"vm{number}-replica", 70 + number, "on") for number in pairs],
            },
        ]
    }
