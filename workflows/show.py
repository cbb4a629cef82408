"""What people see of a run: the status, the markdown in the Temporal UI, the search attributes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from failback.contracts.plan import Finding
from failback.contracts.status import FinalizeStatus, GateStatus, Status, StepStatus
from failback.contracts.words import FinalizeMode, Outcome, Phase, ReplicaState, StepName
from workflows.engine import Run

PHASE = SearchAttributeKey.for_keyword("FailbackPhase")
REPLICA = SearchAttributeKey.for_keyword("FailbackReplica")
DESTINATION = SearchAttributeKey.for_keyword("FailbackDestination")
PLAN = SearchAttributeKey.for_keyword("FailbackPlan")


def search_attributes(status: Status, plan_hash: str) -> list[SearchAttributeUpdate[str]]:
    """Keywords by which runs are found; written on phase changes only, each write is an event."""
    return [
        PHASE.value_set(status.phase.value),
        REPLICA.value_set(status.replica),
        DESTINATION.value_set(status.destination.value),
        *([PLAN.value_set(plan_hash)] if plan_hash else []),
    ]


def status(
    run: Run,
    *,
    workflow_id: str,
    outcome: Outcome | None,
    findings: Sequence[Finding],
    started_at: datetime,
) -> Status:
    """The answer of query `status`."""
    facts = run.facts
    rows = {row.name: row for row in run.steps}
    down = rows.get(StepName.POWER_OFF_REPLICA)
    up = rows.get(StepName.POWER_ON_TARGET)
    undone_up = rows.get(StepName.UNDO_POWER_OFF_REPLICA)
    ends = [row.finished_at for row in (up, undone_up) if row and row.finished_at]
    return Status(
        workflow_id=workflow_id,
        run_id=facts.run.run_id,
        replica=facts.request.replica,
        destination=facts.request.destination,
        phase=run.phase,
        paused=run.paused,
        replica_state=_replica_state(rows, outcome),
        outcome=outcome,
        steps=tuple(run.steps),
        findings=tuple(findings),
        differences=facts.differences,
        transfers=facts.transfers,
        verified=facts.verified,
        operator=run.operator,
        requests=tuple(run.answers),
        started_at=started_at,
        started_by=facts.request.by,
        start_reason=facts.request.reason,
        decision_since=_decision_since(run),
        downtime_started_at=down.started_at if down else None,
        downtime_ended_at=min(ends) if ends else None,
        alarms=tuple(run.alarms),
        cycles=facts.cycles,
        gate=run.gate,
        pending=tuple(waiting.answer for waiting in run.pending),
        finalize=_finalize(run),
        hooks=tuple(run.hooks),
        warning=_warning(run),
    )


def _replica_state(
    rows: dict[StepName, StepStatus], outcome: Outcome | None
) -> ReplicaState | None:
    if outcome is Outcome.COMMITTED:
        return ReplicaState.READY
    if outcome is Outcome.REFUSED or StepName.PREFLIGHT not in rows:
        return None
    marked, unmarked = rows.get(StepName.MARK_FAILBACK), rows.get(StepName.UNDO_MARK_FAILBACK)
    in_failback = marked is not None and marked.finished_at is not None
    if in_failback and not (unmarked is not None and unmarked.finished_at is not None):
        return ReplicaState.FAILBACK
    ready, unready = rows.get(StepName.READY_TO_SWITCH), rows.get(StepName.UNDO_READY_TO_SWITCH)
    is_ready = ready is not None and ready.finished_at is not None
    if is_ready and not any(row and row.finished_at for row in (unmarked, unready)):
        return ReplicaState.READY_TO_SWITCH
    return ReplicaState.FAILOVER


def _decision_since(run: Run) -> datetime | None:
    return run.decision_since if run.phase is Phase.AWAITING_DECISION else None


def _finalize(run: Run) -> FinalizeStatus | None:
    policy = run.facts.finalizing
    if policy.mode is FinalizeMode.MANUAL or run.phase is Phase.CLOSED:
        return None
    return FinalizeStatus(mode=policy.mode, at=run.finalize_at, ended=run.finalize_ended)


def _warning(run: Run) -> str:
    """What undo would lose now."""
    if run.phase in (Phase.CLOSED, Phase.COMMITTING):
        return ""
    lines = []
    if run.facts.target_on_at is not None:
        lines.append(
            "Undo loses what production wrote since "
            f"{run.facts.target_on_at:%Y-%m-%d %H:%M:%S} UTC."
        )
    if not run.facts.request.protect_target:
        lines.append(
            "There is no target protective snapshot: undo cannot give the target its old content."
        )
    return " ".join(lines)


def markdown(status: Status) -> str:
    """Current details of the workflow, for the Temporal UI and `temporal workflow metadata`."""
    paused = " (paused)" if status.paused else ""
    lines = [f"### Failback of `{status.replica}`: {status.phase.value}{paused}", ""]
    # The summary and details that it was started with stay with its first execution.
    if status.started_by or status.start_reason:
        by, why = status.started_by or "unknown", status.start_reason or "no reason given"
        lines += [f"To {status.destination.value}, started by {by}: {why}", ""]
    if status.outcome is not None:
        lines += [f"Outcome: **{status.outcome.value}**", ""]
    if status.operator is not None:
        call = status.operator
        may = ", ".join(f"`{kind.value}`" for kind in call.may)
        lines += [f"**{call.code}** in *{call.step.value}*: {call.message}", "", f"Send {may}.", ""]
    if status.gate is not None and status.phase is Phase.READY_TO_SWITCH:
        lines += [*_gate(status.gate), ""]
    for waiting in status.pending:
        lines += [f"**{waiting.kind}** of {waiting.by}: {waiting.message}", ""]
    if status.finalize is not None and status.finalize.at is not None:
        lines += [f"{status.finalize.mode} at {status.finalize.at:%Y-%m-%d %H:%M:%S} UTC", ""]
    if status.phase is Phase.AWAITING_DECISION:
        lines += ["Decide: `commit` keeps production, `undo` goes back to DR.", ""]
    lines += [f"> {alarm}" for alarm in status.alarms[-3:]]
    lines += [f"*{status.warning}*", ""] if status.warning else []
    lines += [f"- {finding.code}: {finding.message}" for finding in status.findings[:20]]
    lines += [f"- hook {h.name}: {'done' if h.ok else 'failed'}" for h in status.hooks[-5:]]
    for row in status.steps:
        mark = "skipped" if row.skipped else "done" if row.finished_at else "running"
        lines.append(f"- {mark}: {row.title}{f' - {row.evidence[:200]}' if row.evidence else ''}")
    return "\n".join(lines)


def _gate(gate: GateStatus) -> list[str]:
    lines = [f"Waiting: {gate.holds}." if gate.holds else "The switch begins."]
    if gate.prediction is not None:
        told = gate.prediction
        lines.append(
            f"Predicted downtime {told.downtime.total_seconds():.0f} s "
            f"({'; '.join(told.rests_on)}); lag {told.lag_bytes} bytes"
        )
    if gate.next_cycle_at is not None:
        lines.append(f"Next cycle {gate.next_cycle_at:%Y-%m-%d %H:%M:%S} UTC")
    return lines
