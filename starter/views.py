"""What a client gets to see of runs: the workflow's status joined with the live heartbeats."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from failback.contracts.base import Contract, Name, Text
from failback.contracts.operations import TransferProgress, WatchProgress
from failback.contracts.status import Status


class LiveActivity(Contract):
    """One activity that the run is waiting for, as the server knows it."""

    activity: Name
    state: Name = "running"
    """`running`, `waiting for a worker`, `waiting for the next try`, `stopping`, `paused`."""
    attempt: int = 1
    task_queue: Name = ""
    last_failure: Text = ""
    next_try_at: datetime | None = None
    heartbeat_at: datetime | None = None
    progress: TransferProgress | None = None
    """None where the activity moves no bytes, or sent something that is not understood."""
    watched: WatchProgress | None = None
    """What the snapshots of the run cost while its decision is awaited."""


class RunView(Contract):
    """Everything about one run at one moment."""

    status: Status
    execution: Name = "RUNNING"
    """What Temporal says: RUNNING, COMPLETED, TERMINATED, FAILED, CANCELED, TIMED_OUT."""
    live: tuple[LiveActivity, ...] = Field(default=(), max_length=200)

    @property
    def open(self) -> bool:
        """Whether the run still lives."""
        return self.execution == "RUNNING"

    @property
    def progress(self) -> dict[str, TransferProgress]:
        """Live numbers by disk address."""
        return {item.progress.address: item.progress for item in self.live if item.progress}


class RunSummary(Contract):
    """One line of the list of runs."""

    replica: Name
    workflow_id: Name
    run_id: Name
    execution: Name
    phase: Name = ""
    destination: Name = ""
    started_at: datetime | None = None
    closed_at: datetime | None = None
