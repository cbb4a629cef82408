"""Answer of query `status`: everything a person needs to understand a run."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from failback.contracts.base import Contract, Name, Text
from failback.contracts.operations import DifferencePlan, TransportResult, VerifyResult
from failback.contracts.plan import Finding
from failback.contracts.requests import Answer
from failback.contracts.words import (
    Destination,
    Outcome,
    Phase,
    ReplicaState,
    RequestKind,
    StepName,
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
    differences: tuple[DifferencePlan, ...] = Field(default=(), max_length=128)
    transfers: tuple[TransportResult, ...] = Field(default=(), max_length=128)
    verified: tuple[VerifyResult, ...] = Field(default=(), max_length=64)
    operator: OperatorCall | None = None
    requests: tuple[Answer, ...] = Field(default=(), max_length=100)
    """The newest requests, accepted and rejected."""
    started_at: datetime | None = None
    decision_since: datetime | None = None
    downtime_started_at: datetime | None = None
    downtime_ended_at: datetime | None = None
    alarms: tuple[Text, ...] = Field(default=(), max_length=20)
    """The newest alarms: split brain, verify mismatches."""
    warning: Text = ""
    """What undo would lose now, said before anyone asks for it."""
