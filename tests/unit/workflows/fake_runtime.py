"""A Runtime without Temporal: answers operations from a script and counts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from failback.contracts import operations as ops
from failback.contracts.plan import RunPlan
from failback.contracts.start import StartRequest
from failback.contracts.vm import Disk, DiskAddress, DiskPair, VmIdentity
from failback.contracts.words import Destination, Method, PowerOffWay, PowerState
from workflows import operations as op
from workflows.engine import Engine, OperationStopped, Run
from workflows.facts import Facts

MIB = 1024 * 1024


def vm(site: str, moref: str, name: str) -> VmIdentity:
    return VmIdentity(
        site=site,
        vcenter_uuid=f"uuid-{site}",
        moref=moref,
        name=name,
        instance_uuid=f"i-{moref}",
        bios_uuid=f"b-{moref}",
        path=f"/DC0/vm/{name}",
    )


REPLICA = vm("dr", "vm-7", "web01-replica")
TARGET = vm("production", "vm-3", "web01")
OLD_SOURCE = vm("production", "vm-2", "web01-old")
PAIRS = tuple(
    DiskPair(
        address=DiskAddress(controller="scsi", bus=0, unit=unit),
        replica_key=2000 + unit,
        target_key=2000 + unit,
        capacity_bytes=MIB,
        target_capacity_bytes=MIB,
    )
    for unit in (0, 1)
)
PLAN = RunPlan(
    replica=REPLICA,
    target=TARGET,
    pairs=PAIRS,
    replica_power=PowerState.ON,
    target_power=PowerState.ON,
    replica_tracking=False,
    target_tracking=True,
)


def disks(site: str, suffix: str) -> tuple[Disk, ...]:
    return tuple(
        Disk(
            key=pair.replica_key,
            address=pair.address,
            file=f"[ds-{site}] web01/{pair.address.unit}{suffix}.vmdk",
            capacity_bytes=MIB,
            change_id=f"52 de/{suffix}",
        )
        for pair in PAIRS
    )


def plan_for(request: StartRequest) -> RunPlan:
    """What preflight finds: everything runs, and a target that is to be made is not there yet."""
    replaced = {"old_source": OLD_SOURCE, "old_source_there": True}
    match request.destination:
        case Destination.ORIGINAL:
            return PLAN
        case Destination.RECOVERED:
            return PLAN.model_copy(update=replaced)
        case Destination.NEW:
            unmade = PLAN.target.model_copy(update={"moref": ""})
            return PLAN.model_copy(update={"target": unmade, "final_name": "web01", **replaced})


def answer(operation: op.Operation[Any, Any], argument: Any) -> Any:
    """What a healthy site answers."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    match operation.name:
        case "preflight":
            return ops.PreflightResult(plan=plan_for(argument.request))
        case "power_off":
            return ops.PowerOffResult(
                was=PowerState.ON, way=PowerOffWay.GUEST_SHUTDOWN, at=now, evidence="off"
            )
        case "power_on":
            return ops.PowerOnResult(at=now, evidence="on")
        case "protect_target":
            return ops.ProtectTargetResult(
                snapshot="snapshot-1", power_mark="p1", disks=disks("production", "-000001")
            )
        case "rebase_target":
            return ops.RebaseTargetResult(
                plan=argument.plan,
                protected=ops.ProtectTargetResult(
                    snapshot="snapshot-2", power_mark="p1", disks=disks("production", "-000002")
                ),
            )
        case "carry_over":
            return ops.CarryOverResult(evidence="carried")
        case "snapshot_replica":
            return ops.SnapshotReplicaResult(
                snapshot=f"snapshot-{argument.purpose}",
                power_mark="r1",
                disks=disks("dr", argument.purpose),
            )
        case "calculate_difference":
            return ops.Differences(
                plans=tuple(
                    ops.DifferencePlan(
                        plan_id=f"{disk.pair.address}/{argument.pass_no}",
                        pass_no=argument.pass_no,
                        address=str(disk.pair.address),
                        method=Method.COMPARE,
                        reason="test",
                        areas_bytes=MIB,
                    )
                    for disk in argument.disks
                ),
                guard=argument.guard,
            )
        case "transport_changes":
            return ops.TransportResult(address=argument.plan.address, examined_bytes=MIB)
        case "verify":
            return ops.VerifyResult(address=argument.plan.address, checked_bytes=MIB, digest="ab")
        case "create_target":
            return ops.CreateTargetResult(
                target=TARGET, pairs=PAIRS, power_mark="p0", disks=disks("production", "")
            )
        case "run_hook":
            return ops.HookResult(ok=True, output="ok")
        case "probe":
            return ops.ProbeResult(reachable=True)
        case "watch_decision":
            return ops.WatchResult(alarm="two copies run")
        case _:
            return ops.Done(evidence="done")


@dataclass
class FakeRuntime:
    """Runs on asyncio; `script` may override the answer of an operation, by name and call."""

    run_state: Run
    script: dict[str, Callable[[Any, int], Any]] = field(default_factory=dict)
    issued: list[tuple[str, Any]] = field(default_factory=list)
    clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    waits: list[timedelta | None] = field(default_factory=list)
    on_wait: Callable[[], object] | None = None
    published: int = 0
    long_history: bool = False
    stubborn: frozenset[str] = frozenset()
    """Operations that come to their end although they were asked to stop."""
    passed_by: frozenset[str] = frozenset()
    """Changes of commands that came after this run had passed their place."""

    async def run(
        self, operation: op.Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if stop():
            raise OperationStopped
        count = sum(1 for name, _ in self.issued if name == operation.name)
        self.issued.append((operation.name, argument))
        await asyncio.sleep(0)
        override = self.script.get(operation.name)
        result = override(argument, count) if override else None
        if isinstance(result, Exception):
            raise result
        if stop() and operation.name not in self.stubborn:
            raise OperationStopped
        return answer(operation, argument) if result is None else result

    async def wait(
        self, condition: Callable[[], bool], timeout: timedelta | None = None, summary: str = ""
    ) -> bool:
        self.waits.append(timeout)
        if self.on_wait is not None:
            self.on_wait()
        for _ in range(100):
            if condition():
                return True
            await asyncio.sleep(0)
        if timeout is None:
            raise AssertionError("the engine waits for ever: nobody answered")
        self.clock += timeout
        return condition()

    def now(self) -> datetime:
        self.clock += timedelta(milliseconds=1)
        return self.clock

    def publish(self) -> None:
        self.published += 1

    def patched(self, name: str) -> bool:
        return name not in self.passed_by

    def history_is_long(self) -> bool:
        return self.long_history

    def names(self) -> list[str]:
        """Operations issued, in order."""
        return [name for name, _ in self.issued]


def make(
    request: StartRequest | None = None, **script: Callable[[Any, int], Any]
) -> tuple[Engine, Run, FakeRuntime]:
    """An engine with a fake runtime, ready to walk."""
    request = request or StartRequest(replica="web01")
    run = Run(Facts(run=ops.RunRef(run_id="run-1", replica=request.replica), request=request))
    runtime = FakeRuntime(run, script)
    return Engine(run, runtime), run, runtime
