"""Records the histories that test_replay.py replays: `python -m tests.replay.record [PATH...]`.

Run it only when commands of the workflows change on purpose; such a change carries a
`workflow.patched` marker, and the old histories stay beside the new ones.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from failback.contracts.operations import PreflightResult, WatchResult
from failback.contracts.plan import Carry
from failback.contracts.status import Status
from failback.contracts.words import Phase
from starter.plugin import SEARCH_ATTRIBUTES, failback_plugin
from tests.workflow.stand_ins import QUICK, Script, Site, begin, until, wait_for_cancel, working
from tools import paths
from workflows.failback import FailbackWorkflow

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


async def declared(handle: Handle, site: Site) -> None:
    """NEEDS_OPERATOR; a VM is declared to be off that is none of the run's, then one that is."""
    await until(handle, Phase.NEEDS_OPERATOR)
    said = {"by": "ann", "reason": "It burnt."}
    await handle.execute_update("retry", {**said, "attest_off": ["web02"]})
    await handle.execute_update("retry", {**said, "attest_off": ["web01-replica"]})
    await commit(handle, site)


async def switch_over(handle: Handle, site: Site) -> None:
    """Wait for two more cycles, then switch, then commit."""
    await cycles(handle, 3)
    await handle.execute_update("switch_over")
    await commit(handle, site)


async def reschedule(handle: Handle, site: Site) -> None:
    """A manual switch gets a time, which comes."""
    await until(handle, Phase.READY_TO_SWITCH)
    at = datetime.now(UTC) + timedelta(seconds=2)
    await handle.execute_update(
        "reschedule", {"switch": {"mode": "scheduled", "at": at.isoformat()}}
    )
    await commit(handle, site)


async def undo_in_the_gate(handle: Handle, site: Site) -> None:
    """Undo while it waits for the switch."""
    await cycles(handle, 2)
    await handle.signal("undo")


async def cancelled(handle: Handle, site: Site) -> None:
    """Cancellation of the workflow while bytes move."""
    await moves(site)
    await handle.cancel()


async def cancelled_late(handle: Handle, site: Site) -> None:
    """Cancellation where the power-on was left to people; then they commit. It once was an undo:
    such a history is kept beside, as `.before`."""
    await until(handle, Phase.AWAITING_DECISION)
    await handle.cancel()
    async with asyncio.timeout(20):
        while not (status := await handle.query("status", result_type=Status)).requests:
            await asyncio.sleep(0.05)
    if not status.requests[-1].accepted:
        await handle.signal("commit", {"by": "ann"})


async def approved(handle: Handle, site: Site) -> None:
    """A commit that a second person approves."""
    await until(handle, Phase.AWAITING_DECISION)
    await handle.execute_update("commit", {"by": "ann", "request_id": "c1"})
    await handle.execute_update("approve", {"by": "bob", "of": "c1"})


async def adjusted(handle: Handle, site: Site) -> None:
    """Other limits and another policy while bytes move; the policy commits."""
    await moves(site)
    await handle.execute_update("adjust", {"limits": {"bandwidth_bytes_per_s": 5000}})
    await handle.execute_update("adjust", {"finalize": {"mode": "auto_commit", "after": "PT1S"}})
    await handle.execute_update("pause")
    await handle.execute_update("resume")


async def by_itself(handle: Handle, site: Site) -> None:
    """Nobody does anything."""


async def alarmed(handle: Handle, site: Site) -> None:
    """A probe fails, so that a person must commit."""
    async with asyncio.timeout(20):
        while not (await handle.query("status", result_type=Status)).alarms:
            await asyncio.sleep(0.05)
    await commit(handle, site)


async def cycles(handle: Handle, count: int) -> None:
    """Wait until so many cycles are complete."""
    async with asyncio.timeout(30):
        while len((await handle.query("status", result_type=Status)).cycles) < count:
            await asyncio.sleep(0.05)


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


def crashing(argument: Any, count: int) -> BaseException | None:
    """As a worker that dies: the attempt fails and another one is made."""
    return ApplicationError("The worker is shutting down.", type="Stopped") if count < 2 else None


def hurried(argument: Any, count: int) -> PreflightResult:
    """A plan by which a history is long very soon."""
    tuning = QUICK.tuning.model_copy(update={"history_events": 200})
    return PreflightResult(plan=QUICK.model_copy(update={"tuning": tuning}))


def carrying(argument: Any, count: int) -> PreflightResult:
    """A plan that carries hardware over."""
    carry = Carry(cpus=4, memory_mb=8, cpus_before=2, memory_mb_before=8)
    return PreflightResult(plan=QUICK.model_copy(update={"carry": carry}))


async def refused_by_a_probe(argument: Any, count: int) -> WatchResult | None:
    """The first watch sees a probe fail."""
    return WatchResult(alarm="tcp: refused.", code="PROBE_FAILED") if count == 0 else None


@dataclass(frozen=True)
class Way:
    """One way through the life of a run."""

    drive: Callable[[Handle, Site], Awaitable[None]]
    script: dict[str, Script] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)


MANUAL = {"switch": {"mode": "manual", "resync_interval": "PT1S"}}
RECOVERED = {"destination": "recovered", "recovered": "production:web01"}
HOOK = {"name": "dns", "when": "after", "step": "power_on_target"}

PATHS: dict[str, Way] = {
    "commit": Way(commit),
    "undo": Way(undo),
    "undo-in-transport": Way(undo_in_transport, {"transport_changes": moving}),
    "pause-and-resume": Way(pause_and_resume, {"transport_changes": moving}),
    "needs-operator-and-retry": Way(trouble, {"protect_target": failing}),
    "declared-off": Way(declared, {"protect_target": failing}),
    "recovered-commit": Way(commit, request=RECOVERED),
    "recovered-undo": Way(undo, request=RECOVERED),
    "new-commit": Way(commit, request={"destination": "new"}),
    "new-undo": Way(undo, request={"destination": "new"}),
    "manual-with-cycles": Way(switch_over, request=MANUAL),
    "scheduled-by-reschedule": Way(reschedule, request=MANUAL),
    "undo-in-the-gate": Way(undo_in_the_gate, request=MANUAL),
    "worker-crash": Way(commit, {"transport_changes": crashing, "power_on": crashing}),
    "cancellation": Way(cancelled, {"transport_changes": moving}),
    "cancellation-after-a-skipped-start": Way(cancelled_late, request={"power_on_target": False}),
    "approval": Way(approved, request={"approvals": 2}),
    "adjusted": Way(adjusted, {"transport_changes": moving}),
    "auto-commit": Way(by_itself, request={"finalize": {"mode": "auto_commit", "after": "PT1S"}}),
    "probe-failed": Way(
        alarmed,
        {"watch_decision": refused_by_a_probe},
        {
            "finalize": {
                "mode": "auto_commit",
                "after": "PT1H",
                "probes": [{"kind": "tools"}],
            }
        },
    ),
    "hook": Way(commit, request={"hooks": [HOOK]}),
    "carried-over-undo": Way(undo, {"preflight": carrying}, {"carry_over": ["cpu"]}),
    "continued-as-new": Way(switch_over, {"preflight": hurried}, MANUAL),
}


def without_machine(value: Any) -> Any:
    """The history without what names the machine it was recorded on."""
    if isinstance(value, dict):
        kept = {key: without_machine(item) for key, item in value.items() if key != "stackTrace"}
        if kept.get("kind") == "TASK_QUEUE_KIND_STICKY":
            kept["name"] = "worker"
        return {key: "worker" if key == "identity" else item for key, item in kept.items()}
    if isinstance(value, list):
        return [without_machine(item) for item in value]
    return value


async def live(client: Client, name: str) -> list[dict[str, Any]]:
    """Live one path; the histories of all its executions, the first one first."""
    way = PATHS[name]
    async with working(client, "", FailbackWorkflow, **way.script) as (site, queue):
        handle = await begin(client, queue, {"replica": "web01", **way.request})
        await way.drive(handle, site)
        await handle.result()
        found = []
        async for one in client.list_workflows(f'WorkflowId="{handle.id}"'):
            execution = client.get_workflow_handle(one.id, run_id=one.run_id)
            found.append((one.start_time, await execution.fetch_history()))
    found.sort(key=lambda each: each[0])
    return [without_machine(json.loads(history.to_json())) for _, history in found]


async def record(client: Client, name: str) -> None:
    """Live one path and store its histories."""
    HISTORIES.mkdir(exist_ok=True)
    for number, history in enumerate(await live(client, name)):
        suffix = f".{number + 1}" if number else ""
        text = json.dumps(history, indent=None, separators=(",", ":"))
        (HISTORIES / f"{name}{suffix}.json").write_text(text + "\n")


async def main(names: list[str]) -> None:
    """Record every path, or those named, on a dev server of our own."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(paths.temporal()),
        dev_server_startup_timeout=timedelta(seconds=60),
        search_attributes=SEARCH_ATTRIBUTES,
        plugins=[failback_plugin()],
    ) as env:
        for name in names or PATHS:
            await record(env.client, name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
