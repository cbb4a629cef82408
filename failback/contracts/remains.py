"""What a run left behind whose workflow is gone, and what can be done about it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from failback.contracts.base import Contract, Name, ReplicaKey, Text
from failback.contracts.plan import RunPlan
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.words import Finish, Outcome, ReplicaState


class RecordedStep(Contract):
    """One row of the catalog's journal: a step, for one object."""

    step: Name
    object: Text = ""
    mark: Text = ""
    intent_at: datetime
    started_at: datetime
    finished_at: datetime | None = None
    attempts: int = 0
    evidence: Annotated[str, StringConstraints(max_length=100_000)] = ""
    """JSON of the operation's result, once it is finished."""


class Left(Contract):
    """One thing that is not as it was before the run."""

    object: Text
    what: Text


class Remains(Contract):
    """Answer of `reconcile`."""

    replica: ReplicaKey
    run_id: Name = ""
    """The newest run; empty: there was none."""
    outcome: Outcome | None = None
    """None: the run is open in the catalog."""
    phase: Name = ""
    replica_state: ReplicaState | None = None
    started_at: datetime | None = None
    request: StartRequest | None = None
    plan: RunPlan | None = None
    generation: int = 0
    steps: tuple[RecordedStep, ...] = Field(default=(), max_length=512)
    left: tuple[Left, ...] = Field(default=(), max_length=100)
    unread: tuple[Text, ...] = Field(default=(), max_length=20)
    """What could not be read, and why: there may be more."""
    may: tuple[Finish, ...] = Field(default=(), max_length=3)
    no_commit: Text = ""
    """Why an open run cannot be committed; empty: it can."""
    first: tuple[Name, ...] = Field(default=(), max_length=8)
    """Titles of the steps that a commit does first: what is missing of the switch."""
    finishing: Finish | None = None
    """What was begun because it was asked for."""


class ReconcileRequest(Contract):
    """Look at what the newest run of a replica left, and finish it if asked to."""

    replica: ReplicaKey
    finish: Finish | None = None
    request: Request = Request()
    """Who asks and why, and the choices of an undo."""
