"""What the catalog answers: frozen, without any tie to the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Destination, Outcome, ReplicaState

FULL_COMPARE = "full_compare"
"""`next_run` of a job after a commit: its tool must compare everything once."""

PROTECTIVE = "protective"
"""Kind of a restore point: a failback protective snapshot that a commit left."""


@dataclass(frozen=True)
class ReplicaRecord:
    """A replica."""

    key: str
    state: ReplicaState
    replica: VmIdentity
    source: VmIdentity
    held_by: str | None
    """Run that set READY_TO_SWITCH or FAILBACK; nobody in the other states."""
    updated_at: datetime
    revision: int
    """Grows by one with every change."""

    @property
    def replication_on_hold(self) -> bool:
        """Follows from the state and is stored nowhere else."""
        return self.state is not ReplicaState.READY


@dataclass(frozen=True)
class RestorePoint:
    """A snapshot to which a replica can be reverted."""

    snapshot: str
    """moref."""
    name: str
    created_at: datetime
    kind: str
    run_id: str | None


@dataclass(frozen=True)
class JobRecord:
    """A replication job."""

    name: str
    includes: tuple[VmIdentity, ...]
    excludes: tuple[VmIdentity, ...]
    next_run: str | None
    running: bool


@dataclass(frozen=True)
class RunRecord:
    """A run."""

    run_id: str
    workflow_id: str
    replica: str
    destination: Destination
    phase: str
    outcome: Outcome | None
    started_at: datetime
    committed_at: datetime | None
    ended_at: datetime | None
    request: StartRequest
    report: str | None
    """JSON of the run report."""
    by: str
    reason: str
    plan: str | None = None
    """JSON of the plan that preflight made; None before, and for runs of earlier versions."""

    @property
    def is_open(self) -> bool:
        return self.ended_at is None


@dataclass(frozen=True)
class ReplicaDetail:
    """A replica with everything that hangs on it; newest first."""

    replica: ReplicaRecord
    restore_points: tuple[RestorePoint, ...]
    runs: tuple[RunRecord, ...]
    jobs: tuple[JobRecord, ...]


@dataclass(frozen=True)
class StepRecord:
    """A step of a run, for one object."""

    run_id: str
    step: str
    object: str
    mark: str
    intent_at: datetime
    """When it was first about to be issued."""
    started_at: datetime
    """When its newest attempt began."""
    finished_at: datetime | None
    attempts: int
    evidence: str
    failing_since: datetime | None
    last_error: str


@dataclass(frozen=True)
class Beginning:
    """What an attempt records of itself before it acts."""

    run_id: str
    step: str
    object: str
    mark: str
    phase: str | None = None
    """Of the run; None leaves it."""
    first: bool = False
    """It is the first of its scheduling: what failed before belongs to another one."""


@dataclass(frozen=True, order=True)
class Turn:
    """Place of an attempt in the life of its run: only turns of one generation of a run, or of one
    workflow execution, have an order."""

    execution: str
    number: int
    """Number of the activity in the execution."""
    attempt: int
    run_id: str = ""
    generation: int = 0
    """Which execution of the run's workflow this is: a run that was continued as new, or taken up
    by `reconcile`, has had others before."""


@dataclass(frozen=True)
class Claim:
    """An object that one run holds."""

    object: str
    run_id: str
    taken_at: datetime


@dataclass(frozen=True)
class Alarm:
    """Something people must see; the same message again only counts up."""

    run_id: str
    at: datetime
    last_at: datetime
    times: int
    code: str
    message: str
