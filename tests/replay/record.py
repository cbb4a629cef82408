"""Records the histories that test_replay.py replays: `python -m tests.replay.record PATH...`.

Run it for a new path, and when commands of the workflows change on purpose; such a change carries a
`workflow.patched` marker. Nothing is recorded over: a further history of a path is `PATH+2`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from failback.contracts.operations import (
    CleanTarget,
    PreflightResult,
    ProbeResult,
    RunRef,
    WatchResult,
)
from failback.contracts.plan import Carry
from failback.contracts.preview import DiskForecast, LookAheadResult
from failback.contracts.remains import Remains
from failback.contracts.status import Status
from failback.contracts.words import Finish, Phase, StepName
from failback.preflight.evidence import refuse
from starter.plugin import SEARCH_ATTRIBUTES, failback_plugin
from tests.replay.lives import AUTO_UNDO, LIMITED, NEW, RECOVERED, Life
from tests.unit.workflows.fake_runtime import PLAN, TARGET
from tests.workflow.stand_ins import QUICK, Script, Site, until, wait_for_cancel, working
from tools import paths
from workflows.failback import FailbackWorkflow

ROOT = Path(__file__).parents[2]
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
    """A switch gets another time, which comes."""
    await cycles(handle, 2)
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
    """Cancellation where the power-on was left to people; then they commit. It once was an undo."""
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


async def pause_in_the_gate(handle: Handle, site: Site) -> None:
    """Pause and resume in the gate, then switch, then commit."""
    await cycles(handle, 2)
    await handle.execute_update("pause")
    await handle.execute_update("resume")
    await switch_over(handle, site)


async def pause_in_the_decision(handle: Handle, site: Site) -> None:
    """Pause and resume while a timer runs, then commit."""
    await until(handle, Phase.AWAITING_DECISION)
    await handle.execute_update("pause")
    await handle.execute_update("resume")
    await commit(handle, site)


async def trouble_at_the_last_look(handle: Handle, site: Site) -> None:
    """The look before the switch finds trouble, and is retried."""
    await until(handle, Phase.READY_TO_SWITCH)
    await handle.execute_update("switch_over")
    await trouble(handle, site)


async def pause_at_the_last_look(handle: Handle, site: Site) -> None:
    """Pause during the look before the switch, and resume."""
    await until(handle, Phase.READY_TO_SWITCH)
    await handle.execute_update("switch_over")
    await issued(site, "check_drift")
    await handle.execute_update("pause")
    await stopped(handle)
    await handle.execute_update("resume")
    await commit(handle, site)


async def follow(handle: Handle, site: Site) -> None:
    """The replica's disks have grown, and the target follows."""
    await until(handle, Phase.NEEDS_OPERATOR)
    await handle.execute_update("retry", {"rebase_target": True})
    await commit(handle, site)


async def crash(handle: Handle, site: Site) -> None:
    """The worker that moves is killed; another one takes over what timed out, and commit."""
    command = [sys.executable, "-m", "tests.replay.doomed"]
    doomed = await asyncio.create_subprocess_exec(
        *command,
        site.client.service_client.config.target_host,
        site.queue,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert doomed.stdout is not None
        async with asyncio.timeout(30):
            for _ in PLAN.pairs:
                await doomed.stdout.readline()
    finally:
        doomed.kill()
        await doomed.wait()
    async with site.movers():
        await commit(handle, site)
        await handle.result()


def taken_up(replica: str) -> Callable[[Handle, Site], Awaitable[str]]:
    """What reconcile has started, to its end."""

    async def drive(handle: Handle, site: Site) -> str:
        await handle.result()
        run = site.client.get_workflow_handle(f"failback/{replica}")
        await run.result()
        return run.id

    return drive


async def alarmed(handle: Handle, site: Site) -> None:
    """A probe fails, so that a person must commit."""
    async with asyncio.timeout(20):
        while not (await handle.query("status", result_type=Status)).alarms:
            await asyncio.sleep(0.05)
    await commit(handle, site)


async def continued_in_the_gate(handle: Handle, site: Site) -> None:
    """Wait in the gate for longer than one execution, then switch, then commit."""
    await cycles(handle, 4)
    await switch_over(handle, site)


async def stopped(handle: Handle) -> None:
    """Wait until nothing is under way any more, and the run knows it."""
    async with asyncio.timeout(20):
        while (await handle.describe()).raw_description.pending_activities:
            await asyncio.sleep(0.02)
    await until(handle, *Phase)


async def cycles(handle: Handle, count: int) -> None:
    """Wait until so many cycles are complete."""
    async with asyncio.timeout(30):
        while len((await handle.query("status", result_type=Status)).cycles) < count:
            await asyncio.sleep(0.05)


async def moves(site: Site) -> None:
    """Wait until both disks move."""
    await issued(site, "transport_changes", 2)


async def issued(site: Site, name: str, times: int = 1) -> None:
    """Wait until an operation was issued so often."""
    async with asyncio.timeout(20):
        while site.issued.count(name) < times:
            await asyncio.sleep(0.02)


async def moving(argument: Any, count: int) -> None:
    """A transport that moves until it is stopped; the next tries are quick."""
    if count < 2:
        await wait_for_cancel()


async def looking(argument: Any, count: int) -> None:
    """A look that lasts until it is stopped; the next one is quick."""
    if count == 0:
        await wait_for_cancel()


def once(code: str, *, unreachable: bool = False) -> Script:
    """An operation that fails once, for good."""
    details = {"tried": "1", "unreachable": unreachable}

    def fails(argument: Any, count: int) -> BaseException | None:
        error = ApplicationError("It fails.", details, type=code, non_retryable=True)
        return error if count == 0 else None

    return fails


def back_soon(argument: Any, count: int) -> ProbeResult:
    """Sites that answer from the second probe on."""
    return ProbeResult(reachable=count > 0, evidence="dr is away")


AWAY = once("SiteUnreachable", unreachable=True)


def ahead(argument: Any, count: int) -> LookAheadResult:
    """What a look ahead finds."""
    disk = DiskForecast(address="scsi0:0", capacity_bytes=9, examined_bytes=9, expected_bytes=3)
    return LookAheadResult(plan=PLAN.model_copy(update={"plan_hash": "p1-abc"}), disks=(disk,))


def refusing(argument: Any, count: int) -> PreflightResult:
    """A preflight that refuses."""
    finding = refuse("REPLICA_STATE", "web01", "It is READY.", "Fail over first.")
    return PreflightResult(findings=(finding,))


def left(replica: str, finish: Finish, at: int) -> Script:
    """What a run left that was terminated at that operation (tests/replay/lives.py)."""

    async def inspect(argument: Any, count: int) -> Remains:
        found = await Life(RECOVERED, ended_at=at).remains()
        named = {"replica": replica, "run_id": f"run-of-{replica}", "may": (finish,)}
        return found.model_copy(update=named)

    return inspect


def hurried(argument: Any, count: int) -> PreflightResult:
    """A plan by which a history is long very soon."""
    return _limited_to(200)


def hasty(argument: Any, count: int) -> PreflightResult:
    """A plan by which a history is long as soon as the gate is reached."""
    return _limited_to(60)


def _limited_to(events: int) -> PreflightResult:
    tuning = QUICK.tuning.model_copy(update={"history_events": events})
    return PreflightResult(plan=QUICK.model_copy(update={"tuning": tuning}))


def carrying(argument: Any, count: int) -> PreflightResult:
    """A plan that carries hardware over."""
    carry = Carry(cpus=4, memory_mb=8, cpus_before=2, memory_mb_before=8)
    return PreflightResult(plan=QUICK.model_copy(update={"carry": carry}))


async def refused_by_a_probe(argument: Any, count: int) -> WatchResult | None:
    """The first watch sees a probe fail."""
    return WatchResult(alarm="tcp: refused.", code="PROBE_FAILED") if count == 0 else None


Request = dict[str, Any] | CleanTarget


@dataclass(frozen=True)
class Way:
    """One way through the life of a run."""

    drive: Callable[[Handle, Site], Awaitable[str | None]]
    """What people do; the id of another workflow if that is the one to be stored."""
    script: dict[str, Script] = field(default_factory=dict)
    request: Request | Callable[[], Request] = field(default_factory=dict)
    workflow: str = "Failback"
    moving: bool = True
    """Whether a worker of ours moves from the beginning on."""


def scheduled(**ahead: float) -> Callable[[], Request]:
    """A switch at a time so far ahead."""

    def request() -> Request:
        at = datetime.now(UTC) + timedelta(**ahead)
        return {
            "replica": "web01",
            "switch": {"mode": "scheduled", "at": at.isoformat(), "resync_interval": "PT1S"},
        }

    return request


def reconcile(replica: str, finish: Finish, at: int, *, then: bool = False) -> Way:
    """Finish a run that was terminated at that operation; store the reconcile, or what goes on."""
    return Way(
        taken_up(replica) if then else by_itself,
        {"inspect_run": left(replica, finish, at)},
        {"replica": replica, "finish": finish.value, "request": {"by": "ann"}},
        "FailbackReconcile",
    )


MANUAL = {"switch": {"mode": "manual", "resync_interval": "PT1S"}}
WITHOUT_CYCLES = {"switch": "manual"}
HOOK = {"name": "dns", "when": "after", "step": "power_on_target"}
SOON = {"after": "PT1S"}
LOST_IN_THE_SWITCH, LOST_IN_THE_DECISION = 19, 20
"""Operations of a recovered run: the power-on of the target, and the watch."""

PATHS: dict[str, Way] = {
    "commit": Way(commit),
    "undo": Way(undo),
    "undo-in-transport": Way(undo_in_transport, {"transport_changes": moving}),
    "pause-and-resume": Way(pause_and_resume, {"transport_changes": moving}),
    "needs-operator-and-retry": Way(trouble, {"protect_target": once("DiskFull")}),
    "declared-off": Way(declared, {"protect_target": once("DiskFull")}),
    "recovered-commit": Way(commit, request=RECOVERED),
    "recovered-undo": Way(undo, request=RECOVERED),
    "new-commit": Way(commit, request=NEW),
    "new-undo": Way(undo, request=NEW),
    "manual-with-cycles": Way(switch_over, request=MANUAL),
    "scheduled": Way(commit, request=scheduled(seconds=8)),
    "rescheduled": Way(reschedule, request=scheduled(hours=1)),
    "scheduled-by-reschedule": Way(reschedule, request=MANUAL),
    "undo-in-the-gate": Way(undo_in_the_gate, request=MANUAL),
    "pause-in-the-gate": Way(pause_in_the_gate, request=MANUAL),
    "trouble-at-the-last-look": Way(
        trouble_at_the_last_look, {"check_drift": once("VmChanged")}, WITHOUT_CYCLES
    ),
    "pause-at-the-last-look": Way(pause_at_the_last_look, {"check_drift": looking}, WITHOUT_CYCLES),
    "rebase": Way(follow, {"check_drift": once("ReplicaGrown")}),
    "budget-kept": Way(commit, request={"switch": {"downtime_budget": "PT1H"}}),
    "worker-crash": Way(crash, moving=False),
    "site-unreachable": Way(commit, {"calculate_difference": AWAY, "probe": back_soon}),
    "site-unreachable-in-the-undo": Way(undo, {"restore_replica": AWAY, "probe": back_soon}),
    "cancellation": Way(cancelled, {"transport_changes": moving}),
    "cancellation-after-a-skipped-start": Way(cancelled_late, request={"power_on_target": False}),
    "approval": Way(approved, request={"approvals": 2}),
    "adjusted": Way(adjusted, {"transport_changes": moving}),
    "limits-at-start": Way(commit, request=LIMITED),
    "auto-commit": Way(by_itself, request={"finalize": {"mode": "auto_commit", **SOON}}),
    "auto-undo": Way(by_itself, request={"finalize": {**AUTO_UNDO["finalize"], **SOON}}),
    "pause-in-the-decision": Way(pause_in_the_decision, request=AUTO_UNDO),
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
    "watch-failed": Way(alarmed, {"watch_decision": once("SiteUnreachable")}, AUTO_UNDO),
    "hook": Way(commit, request={"hooks": [HOOK]}),
    "carried-over-undo": Way(undo, {"preflight": carrying}, {"carry_over": ["cpu"]}),
    "continued-as-new": Way(switch_over, {"preflight": hurried}, MANUAL),
    "continued-in-the-gate": Way(continued_in_the_gate, {"preflight": hasty}, MANUAL),
    "refused": Way(by_itself, {"preflight": refusing}),
    "reconcile": Way(
        by_itself,
        {"inspect_run": left("web01", Finish.UNDO, LOST_IN_THE_SWITCH)},
        workflow="FailbackReconcile",
    ),
    "reconcile-undo": reconcile("web02", Finish.UNDO, LOST_IN_THE_SWITCH),
    "reconcile-commit": reconcile("web03", Finish.COMMIT, LOST_IN_THE_DECISION),
    "reconcile-cleanup": reconcile("web04", Finish.CLEANUP, LOST_IN_THE_DECISION),
    "taken-up-undo": reconcile("web05", Finish.UNDO, LOST_IN_THE_SWITCH, then=True),
    "taken-up-commit": reconcile("web06", Finish.COMMIT, LOST_IN_THE_DECISION, then=True),
    "cleanup": Way(
        by_itself,
        request=CleanTarget(
            run=RunRef(run_id="run-1", replica="web01"),
            step=StepName.CLEAN_TARGET,
            patience=timedelta(days=365),
            target=TARGET,
            tracking_was=True,
        ),
        workflow="FailbackCleanup",
    ),
    "preview": Way(by_itself, {"look_ahead": ahead}, workflow="FailbackPreview"),
}


EARLIER = frozenset(
    {
        "trouble-at-the-last-look-before",
        "budget-kept-before",
        "watch-failed-before",
        "cancellation-after-a-skipped-start-before",
    }
)
"""Paths that were recorded with code from before a patch, and cannot be recorded any more: runs
that had passed its place when it came."""


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
    request = way.request() if callable(way.request) else way.request
    if isinstance(request, dict):
        request = {"replica": "web01", **request}
    async with working(client, "", FailbackWorkflow, moving=way.moving, **way.script) as (
        site,
        queue,
    ):
        handle: Handle = await client.start_workflow(
            way.workflow, request, id=f"{name}/{uuid.uuid4().hex[:8]}", task_queue=queue
        )
        another = await way.drive(handle, site)
        await handle.result()
        found = []
        async for one in client.list_workflows(f'WorkflowId="{another or handle.id}"'):
            execution = client.get_workflow_handle(one.id, run_id=one.run_id)
            found.append((one.start_time, await execution.fetch_history()))
    found.sort(key=lambda each: each[0])
    return [without_machine(json.loads(history.to_json())) for _, history in found]


async def record(client: Client, name: str) -> None:
    """Live one path and store its histories under the next name that is free."""
    HISTORIES.mkdir(exist_ok=True)
    versions = (name, *(f"{name}+{number}" for number in range(2, 1000)))
    stem = next(one for one in versions if not (HISTORIES / f"{one}.json").exists())
    histories = await live(client, name)
    assert histories, f"{name} left no history"
    for number, history in enumerate(histories):
        suffix = f".{number + 1}" if number else ""
        text = json.dumps(history, indent=None, separators=(",", ":"))
        (HISTORIES / f"{stem}{suffix}.json").write_text(text + "\n")


async def main(names: list[str]) -> None:
    """Record the paths named, or all that have no history, on a dev server of our own."""
    missing = [name for name in PATHS if not (HISTORIES / f"{name}.json").exists()]
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(paths.temporal()),
        dev_server_startup_timeout=timedelta(seconds=60),
        search_attributes=SEARCH_ATTRIBUTES,
        plugins=[failback_plugin()],
    ) as env:
        for name in names or missing:
            print(name, flush=True)
            await record(env.client, name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
