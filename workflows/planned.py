"""The step list of a run that has not begun, with bytes and times: pure, so tables test it."""

from __future__ import annotations

from datetime import timedelta

from failback.contracts.plan import Carry, Finding, RunPlan
from failback.contracts.preview import DiskForecast, PlannedStep
from failback.contracts.start import StartRequest
from failback.contracts.words import (
    Destination,
    OldSource,
    Phase,
    PowerState,
    Severity,
    StepName,
    SwitchMode,
)
from workflows.prediction import BOOT, BYTES_PER_S, HARD_OFF, SAMPLE, SHUTDOWN, SNAPSHOT
from workflows.steps import (
    AWAIT_DECISION,
    CHECK_DRIFT,
    COMMIT,
    LISTS,
    PREFLIGHT,
    READY_TO_SWITCH,
    Step,
)

CHANGE_BYTES_PER_S = 1e6
"""What a replica's guest writes, assumed: nobody has measured it before the run."""
CALL = timedelta(seconds=1)
"""A change at a site or in the catalog that moves no data."""

WHAT: dict[StepName, str] = {
    StepName.PREFLIGHT: "claims both VMs in the catalog; changes nothing else",
    StepName.CREATE_TARGET: "an empty VM like the replica, at its place, not connected",
    StepName.FREEZE_REPLICA: "a snapshot without memory; the replica goes on serving",
    StepName.CALCULATE_DIFFERENCE: "chooses for each disk how its difference is found",
    StepName.UNFREEZE_REPLICA: "the merge is waited for while the replica serves",
    StepName.CHECK_DRIFT: "stops before the replica goes off if either VM was changed",
    StepName.READY_TO_SWITCH: "waits; further cycles keep the last difference small",
    StepName.PROTECT_REPLICA: "the point that undo returns to, a restore point after commit",
    StepName.CALCULATE_DIFFERENCE_2: "what the replica wrote since its disks were read",
    StepName.COPY_CONFIGURATION: "NVRAM as it is now that the replica is off",
    StepName.MARK_FAILBACK: "in the catalog; replication stays on hold",
    StepName.REPLACE_SOURCE: "in the catalog; the replication jobs follow at commit",
    StepName.REGISTER_TARGET: "from here it is the production VM",
    StepName.AWAIT_DECISION: "power states are watched, and the probes asked, if there are any",
    StepName.COMMIT: "cannot be undone; snapshots and marks at the target are then tidied up",
}
"""What a title does not say. Steps that are not here say it by their own function below."""


class Forecast:
    """Bytes and seconds of one run, from its plan and what is assumed."""

    def __init__(
        self, request: StartRequest, plan: RunPlan, disks: tuple[DiskForecast, ...]
    ) -> None:
        self.request = request
        self.plan = plan
        self.capacity = sum(disk.capacity_bytes for disk in disks)
        self.examined = sum(disk.examined_bytes for disk in disks)
        self.expected = sum(disk.expected_bytes for disk in disks)

    @property
    def pass_1_s(self) -> float:
        return self.examined / BYTES_PER_S

    @property
    def tracked(self) -> bool:
        """Whether pass 2 will know what changed: a hard power-off may end change tracking."""
        on = self.request.enable_tracking or self.plan.replica_tracking
        ran = self.plan.replica_power is PowerState.ON
        return on and (self.plan.replica_tools or not ran)

    @property
    def pass_2_bytes(self) -> int:
        """Bytes of pass 2: read where nothing is known of changes, else written."""
        if not self.tracked:
            return self.capacity
        waits = self.request.switch.mode is not SwitchMode.AUTO
        since = self.request.switch.resync_interval.total_seconds() if waits else self.pass_1_s
        return min(self.capacity, round(CHANGE_BYTES_PER_S * since))

    @property
    def verify_bytes(self) -> int:
        if self.request.verify_whole_disk:
            return self.capacity
        written = self.pass_2_bytes if self.tracked else self.expected
        return min(self.capacity, written + round(self.capacity * SAMPLE))

    @property
    def shutdown(self) -> timedelta:
        if self.plan.replica_power is not PowerState.ON:
            return timedelta(0)
        return SHUTDOWN if self.plan.replica_tools else HARD_OFF

    def rests_on(self) -> tuple[str, ...]:
        """What the times are made of, for people."""
        pace, rate = BYTES_PER_S / 1e6, CHANGE_BYTES_PER_S / 1e6
        parts = [f"{pace:.0f} MB/s of both sides together assumed; a run measures its own pace"]
        if self.tracked:
            parts.append(
                f"pass 2: {rate:.0f} MB/s of new writes assumed; change tracking names them"
            )
        else:
            parts.append("pass 2 compares whole disks: change tracking cannot be relied on")
        if self.plan.replica_power is PowerState.ON:
            told = "guest shutdown" if self.plan.replica_tools else "no guest tools, hard power-off"
            parts.append(f"{told} {self.shutdown.total_seconds():.0f} s assumed")
        if self.request.power_on_target:
            parts.append(f"boot {BOOT.total_seconds():.0f} s assumed; services may need longer")
        return tuple(parts)


def planned_steps(
    request: StartRequest, plan: RunPlan, disks: tuple[DiskForecast, ...]
) -> tuple[PlannedStep, ...]:
    """Every step of the run in its order, the gate where the run waits there, decision, commit."""
    forecast = Forecast(request, plan, disks)
    steps: list[Step] = [PREFLIGHT]
    for step in LISTS[request.destination]:
        if step is CHECK_DRIFT and request.switch.mode is not SwitchMode.AUTO:
            steps.append(READY_TO_SWITCH)
        steps.append(step)
    rows = [(step, planned(step, forecast)) for step in (*steps, AWAIT_DECISION, COMMIT)]
    return tuple(row for step, row in rows if not (step.optional and row.skipped))


def planned(step: Step, forecast: Forecast) -> PlannedStep:
    """One row."""
    what, skipped = _told(step.name, forecast)
    count, span = _measured(step.name, forecast)
    return PlannedStep(
        name=step.name,
        title=step.title,
        what=what,
        on_undo="" if step.undo is None or skipped else _undone(step, forecast.request),
        bytes=None if skipped else count,
        seconds=0.0 if skipped else span,
        downtime=step.phase is Phase.SWITCHING and not skipped,
        skipped=skipped,
    )


def downtime(steps: tuple[PlannedStep, ...]) -> timedelta:
    """From the replica's shutdown to the target's boot."""
    return timedelta(seconds=round(sum(s.seconds or 0 for s in steps if s.downtime), 1))


def duration(steps: tuple[PlannedStep, ...]) -> timedelta:
    """Of all steps before the decision."""
    return timedelta(seconds=round(sum(step.seconds or 0 for step in steps), 1))


def remarks(request: StartRequest, plan: RunPlan) -> tuple[str, ...]:
    """What people should know before they start, whatever the checks say."""
    found = ["Addresses in the guest and in DNS stay as they are: changing them is for hooks."]
    found.append("A test failback into an isolated network is not in this version.")
    if request.power_on_target:
        found.append("Undo after production was powered on loses what production wrote since then.")
    made = request.destination is Destination.NEW
    if not request.protect_target and not made:
        found.append(
            "Without target protective snapshot undo cannot give the target VM its old content "
            "back: it is left powered off and half written."
        )
    if plan.target_power is not PowerState.OFF and not made:
        found.append(
            "The target VM is powered off and its content overwritten; undo leaves it powered off."
        )
    if any(pair.target_capacity_bytes < pair.capacity_bytes for pair in plan.pairs):
        found.append("Target disks are grown; undo cannot shrink them.")
    return tuple(found)


def over_budget(request: StartRequest, expected: timedelta) -> tuple[Finding, ...]:
    """A warning when the downtime is expected to be longer than it may be."""
    budget = request.switch.downtime_budget
    if budget is None or expected <= budget:
        return ()
    return (
        Finding(
            code="DOWNTIME_OVER_BUDGET",
            severity=Severity.WARN,
            object=request.replica,
            message=f"The downtime is expected to be {expected.total_seconds():.0f} s and may be "
            f"{budget.total_seconds():.0f} s: the run would stay ready to switch and serve from "
            "DR until its own measurements say otherwise.",
            remedy="Allow more, or let `failback switch-over --ignore-budget` decide.",
        ),
    )


def _told(name: StepName, forecast: Forecast) -> tuple[str, bool]:
    """What happens at this step, and whether nothing will."""
    request, plan = forecast.request, forecast.plan
    told, skipped = WHAT.get(name, ""), False
    match name:
        case StepName.POWER_OFF_TARGET:
            told, skipped = _power_off(plan.target_power, str(plan.target)), False
        case StepName.POWER_OFF_SOURCE:
            skipped = not plan.old_source_there
            there = f"{plan.old_source}, if it runs ({OldSource(request.old_source).value})"
            told = "the old source VM is gone" if skipped else there
        case StepName.PROTECT_TARGET:
            snapshot = "snapshot" if request.protect_target else "no snapshot, as asked"
            told = f"{snapshot}; mark 'incomplete' until the content is verified"
        case StepName.CARRY_OVER:
            carry, skipped = plan.carry, plan.carry is None
            told = "nothing was asked for, or nothing was added" if carry is None else _added(carry)
        case StepName.TRANSPORT_CHANGES:
            new = request.destination is Destination.NEW
            told = "everything that is stored" if new else "what differs; both sides are read"
        case StepName.POWER_OFF_REPLICA:
            told = _power_off(plan.replica_power, str(plan.replica))
        case StepName.TRANSPORT_CHANGES_2:
            told = "what changed since" if forecast.tracked else "compares whole disks"
        case StepName.VERIFY:
            told = "whole disks" if request.verify_whole_disk else "what was written, and a sample"
        case StepName.READY_TO_SWITCH if request.switch.at is not None:
            told = f"{told}; switches at {request.switch.at:%Y-%m-%d %H:%M %Z}"
        case StepName.READY_TO_SWITCH:
            told = f"{told}; switches at `failback switch-over {request.replica}`"
        case StepName.POWER_ON_TARGET:
            skipped = not request.power_on_target
            told = "not asked for" if skipped else "after proving that no other copy runs"
    return told, skipped


def _power_off(power: PowerState, vm: str) -> str:
    return f"{vm} is off already" if power is PowerState.OFF else f"{vm} is {power.value}"


def _added(carry: Carry) -> str:
    nics = f", {len(carry.nics)} more network cards" if carry.nics else ""
    disks = f", {len(carry.disks)} more disks" if carry.disks else ""
    return f"{carry.cpus} CPUs, {carry.memory_mb} MB of memory{nics}{disks}"


def _undone(step: Step, request: StartRequest) -> str:
    assert step.undo is not None
    if step.name is StepName.PROTECT_TARGET and not request.protect_target:
        return "The target VM keeps what was written: there is no snapshot to revert to"
    return step.undo.title


def _measured(name: StepName, forecast: Forecast) -> tuple[int | None, float | None]:
    """Bytes and seconds of a step; None where nobody can say."""
    off = timedelta(0) if forecast.plan.target_power is PowerState.OFF else SHUTDOWN
    match name:
        case StepName.TRANSPORT_CHANGES:
            return forecast.expected, forecast.pass_1_s
        case StepName.TRANSPORT_CHANGES_2:
            return forecast.pass_2_bytes, forecast.pass_2_bytes / BYTES_PER_S
        case StepName.VERIFY:
            return forecast.verify_bytes, forecast.verify_bytes / BYTES_PER_S
        case StepName.POWER_OFF_TARGET:
            return None, off.total_seconds()
        case StepName.POWER_OFF_REPLICA:
            return None, forecast.shutdown.total_seconds()
        case StepName.PROTECT_TARGET | StepName.FREEZE_REPLICA | StepName.UNFREEZE_REPLICA:
            return None, SNAPSHOT.total_seconds()
        case StepName.PROTECT_REPLICA:
            return None, SNAPSHOT.total_seconds()
        case StepName.POWER_ON_TARGET:
            return None, BOOT.total_seconds()
        case StepName.READY_TO_SWITCH | StepName.AWAIT_DECISION | StepName.COMMIT:
            return None, None
        case _:
            return None, CALL.total_seconds()
