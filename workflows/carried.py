"""What a run takes along when it goes on in another execution of the workflow.

A run that waits for months is continued as new, so that its history stays short; a run whose
workflow was terminated is taken up again by `reconcile`. Both go on from this.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import Field, field_serializer

from failback.contracts.base import Contract, Text
from failback.contracts.requests import Answer, Request
from failback.contracts.status import HookStatus, StepStatus
from failback.contracts.words import Phase, RequestKind
from workflows.facts import Facts


class Pending(Contract):
    """A request that waits for a second person."""

    kind: RequestKind
    request: Request
    answer: Answer
    """What its sender was told."""
    until: datetime

    @field_serializer("request")
    def _as_it_was_said(self, request: Request) -> dict[str, Any]:
        """A field that was not said must not come back as a default: it would be a change that
        nobody asked for, or erase what an earlier request chose."""
        return request.model_dump(mode="json", exclude_unset=True)


class Carried(Contract):
    """State of a run between two executions. It goes on at `phase`."""

    facts: Facts
    phase: Phase
    """READY_TO_SWITCH, AWAITING_DECISION, COMMITTING or UNDOING; SWITCHING: what is missing of the
    switch, and then the commit that was asked for."""
    started_at: datetime
    paused: bool = False
    steps: tuple[StepStatus, ...] = Field(default=(), max_length=64)
    answers: tuple[Answer, ...] = Field(default=(), max_length=100)
    alarms: tuple[Text, ...] = Field(default=(), max_length=20)
    pending: tuple[Pending, ...] = Field(default=(), max_length=16)
    hooks: tuple[HookStatus, ...] = Field(default=(), max_length=32)
    switch_asked: bool = False
    ignore_budget: bool = False
    decision_since: datetime | None = None
    soak_left: timedelta | None = None
    """What was left of the time until it decides by itself."""
    finalize_ended: Text = ""
    retries: int = 0
