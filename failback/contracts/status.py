"""Answer of query `status`: everything a person needs to understand a run."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import Field

from failback.contracts.base import Contract, Name, Text
from failback.contracts.operations import DifferencePlan, TransportResult, VerifyResult
from failback.contracts.plan import Finding
from failback.contracts.requests import Answer
from failback.contracts.words import (
    Destination,
    FinalizeMode,
    Outcome,
    Phase,
    ReplicaState,
    RequestKind,
    StepName,
    SwitchMode,
)


class StepStatus(Contract):
    """One row of the step list."""

    name: StepName
    title: Name
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    """How often the engine issued it; a `retry` adds one, Temporal's own retries do not."""
    skipped: bool = False
    evidence: Text = ""


class OperatorCall(Contract):
    """Why a run waits for a person, and what may be done."""

    from_phase: Phase
    step: StepName
    code: Name
    message: Text
    tried: Text = ""
    may: tuple[RequestKind, ...] = Field(default=(), max_length=5)
    since: datetime | None = None
    probing: bool = False
    """True while we ask the site ourselves and will go on without a person."""


class Cycle(Contract):
    """One complete synchronisation while the replica served."""

    number: int
    """Pass 1 is cycle 1."""
    began_at: datetime
    frozen_at: datetime
    """When its read snapshot was taken: the target equals the replica of this moment."""
    ended_at: datetime
    different_bytes: int = 0
    written_bytes: int = 0
    examined_bytes: int = 0
    transport_s: float = 0.0
    """From the first disk's begin to the last one's end."""


class Prediction(Contract):
    """The downtime of a switch that began now, and what that rests on."""

    downtime: timedelta
    rests_on: tuple[Text, ...] = Field(default=(), max_length=16)
    lag_bytes: int = 0
    """Bytes that differed in the newest cycle."""
    change_rate_bytes_per_s: float | None = None
    """None: there was only one cycle yet."""


class GateStatus(Contract):
    """The wait between the passes."""

    mode: SwitchMode
    switch_at: datetime | None = None
    prediction: Prediction | None = None
    downtime_budget: timedelta | None = None
    holds: Text = ""
    """Why it does not switch now."""
    next_cycle_at: datetime | None = None


class FinalizeStatus(Contract):
    """Who decides at the end, and when."""

    mode: FinalizeMode
    at: datetime | None = None
    """When it decides by itself; None: it does not (any more)."""
    ended: Text = ""
    """Why it does not decide by itself any more."""


class HookStatus(Contract):
    """How a hook ended."""

    name: Name
    step: StepName
    when: Name
    ok: bool
    at: datetime
    output: Text = ""


class Status(Contract):
    """State of one run, as the workflow knows it; live disk numbers come from the heartbeats."""

    workflow_id: Name = ""
    run_id: Name = ""
    replica: Name = ""
    destination: Destination = Destination.ORIGINAL
    phase: Phase = Phase.PREFLIGHT
    paused: bool = False
    replica_state: ReplicaState | None = None
    outcome: Outcome | None = None
    steps: tuple[StepStatus, ...] = Field(default=(), max_length=64)
    findings: tuple[Finding, ...] = Field(default=(), max_length=200)
    differences: tuple[DifferencePlan, ...] = Field(default=(), max_length=256)
    """Of pass 1, of the newest cycle and of the final pass."""
    transfers: tuple[TransportResult, ...] = Field(default=(), max_length=256)
    verified: tuple[VerifyResult, ...] = Field(default=(), max_length=64)
    operator: OperatorCall | None = None
    requests: tuple[Answer, ...] = Field(default=(), max_length=100)
    """The newest requests, accepted and rejected."""
    started_at: datetime | None = None
    started_by: Name = ""
    start_reason: Text = ""
    decision_since: datetime | None = None
    downtime_started_at: datetime | None = None
    downtime_ended_at: datetime | None = None
    alarms: tuple[Text, ...] = Field(default=(), max_length=20)
    """The newest alarms: split brain, verify mismatches."""
    cycles: tuple[Cycle, ...] = Field(default=(), max_length=32)
    """The newest complete cycles."""
    gate: GateStatus | None = None
    """While it waits between the passes."""
    pending: tuple[Answer, ...] = Field(default=(), max_length=16)
    """Requests that wait for the approval of a second person."""
    finalize: FinalizeStatus | None = None
    hooks: tuple[HookStatus, ...] = Field(default=(), max_length=32)
    """The newest hooks that were called."""
    warning: Text = ""
    """What undo would lose now, said before anyone asks for it."""
