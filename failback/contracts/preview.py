"""What a failback would do: the answer of workflow `FailbackPreview`, which changes nothing."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from failback.contracts.base import Contract, Name, ReplicaKey, Text
from failback.contracts.operations import PreflightResult, StepCall
from failback.contracts.plan import Finding, RunPlan
from failback.contracts.start import StartRequest
from failback.contracts.words import Destination, StepName


class LookAhead(StepCall):
    """Run the checks of preflight, claim nothing, change nothing."""

    request: StartRequest


class DiskForecast(Contract):
    """What is expected of one disk. Bytes."""

    address: Name
    capacity_bytes: int
    examined_bytes: int
    """Read on both sides in pass 1, to find what differs."""
    expected_bytes: int
    """Written in pass 1, as far as anybody can say before."""


class LookAheadResult(PreflightResult):
    """The plan that a run would follow, and what it would move."""

    disks: tuple[DiskForecast, ...] = Field(default=(), max_length=64)


class PlannedStep(Contract):
    """One row of the plan."""

    name: StepName
    title: Text
    what: Text = ""
    """What happens here, in this run."""
    on_undo: Text = ""
    """What undo does about it; empty: nothing is to be undone."""
    bytes: int | None = None
    """Bytes expected to be written, or to be read where nothing is written."""
    seconds: float | None = None
    """Expected duration; None: nobody can say."""
    downtime: bool = False
    """Neither side serves while it lasts."""
    skipped: bool = False
    """There will be nothing to do."""


class Preview(Contract):
    """Answer of `failback plan`. With a finding that refuses there are no steps and no hash."""

    replica: ReplicaKey | None = None
    destination: Destination = Destination.ORIGINAL
    accepted: bool
    """Whether `start` would go on from here."""
    findings: tuple[Finding, ...] = Field(default=(), max_length=200)
    steps: tuple[PlannedStep, ...] = Field(default=(), max_length=64)
    disks: tuple[DiskForecast, ...] = Field(default=(), max_length=64)
    plan_hash: Name = ""
    """Give it to `start`: a run then refuses if the world is another one."""
    duration: timedelta = timedelta(0)
    """From start to the decision, without what is waited at the gate."""
    downtime: timedelta = timedelta(0)
    rests_on: tuple[Text, ...] = Field(default=(), max_length=16)
    """What these times are made of, and what of it is assumed."""
    remarks: tuple[Text, ...] = Field(default=(), max_length=32)
    """What people should know before they start."""
    plan: RunPlan | None = None
