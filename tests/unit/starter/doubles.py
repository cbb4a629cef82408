"""A client that answers by script, a shell over strings, and runs to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from failback.contracts.operations import (
    DifferencePlan,
    TransferProgress,
    TransportResult,
)
from failback.contracts.plan import BeginAnswer
from failback.contracts.requests import Answer, Request
from failback.contracts.start import StartRequest
from failback.contracts.status import OperatorCall, Status, StepStatus
from failback.contracts.words import (
    Method,
    Outcome,
    Phase,
    ReplicaState,
    RequestKind,
    StepName,
)
from failback.errors import FailbackError
from starter.client import FailbackClient
from starter.shell import Shell
from starter.views import LiveActivity, RunSummary, RunView

T = TypeVar("T")
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
GIB = 2**30
LOSS = "Undo loses what production wrote since 2026-03-01 11:58:00 UTC."


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


class Terminal(io.StringIO):
    """A stream on which somebody sits."""

    def isatty(self) -> bool:
        return True


class FakeClient(FailbackClient):
    """Answers from lists; the last view is repeated. An error in a list is raised."""

    def __init__(
        self,
        views: Sequence[RunView | FailbackError] = (),
        answer: Answer | FailbackError | None = None,
        begin: BeginAnswer | FailbackError | None = None,
        runs: Sequence[RunSummary] = (),
    ) -> None:
        self.views, self.answer, self.begin, self.runs = list(views), answer, begin, tuple(runs)
        self.started: list[tuple[StartRequest, bool]] = []
        self.asked: list[tuple[RequestKind, str, Request | None]] = []

    async def start(self, request: StartRequest, *, wait: bool = True) -> BeginAnswer:
        self.started.append((request, wait))
        return _raised(self.begin or BeginAnswer(accepted=True, run_id="r1", replica="web01"))

    async def status(self, key: str) -> RunView:
        return _raised(self.views.pop(0) if len(self.views) > 1 else self.views[0])

    async def list(self) -> tuple[RunSummary, ...]:
        return self.runs

    async def _ask(self, kind: RequestKind, key: str, request: Request | None) -> Answer:
        self.asked.append((kind, key, request))
        return _raised(self.answer or Answer(kind=kind, accepted=True, phase=Phase.SYNCING))


def _raised(value: T | FailbackError) -> T:
    if isinstance(value, FailbackError):
        raise value
    return value


def shell(client: FailbackClient | None = None, typed: str = "", terminal: bool = False) -> Shell:
    """A shell over strings; on a terminal somebody types."""
    stream = Terminal if terminal else io.StringIO

    async def opened(_shell: Shell, _settings: str | None) -> FailbackClient:
        assert client is not None
        return client

    async def no_pause(_seconds: float) -> None:
        return None

    return Shell(
        stdin=stream(typed),
        stdout=io.StringIO(),
        stderr=stream(),
        environ={},
        user="ann",
        now=lambda: NOW,
        pause=no_pause,
        open_client=opened if client else None,
    )


def out(of: Shell) -> str:
    assert isinstance(of.stdout, io.StringIO)
    return of.stdout.getvalue()


def err(of: Shell) -> str:
    assert isinstance(of.stderr, io.StringIO)
    return of.stderr.getvalue()


PLAN = DifferencePlan(
    plan_id="p1",
    pass_no=1,
    address="scsi0:0",
    method=Method.COMPARE,
    reason="change tracking was off",
    areas_bytes=20 * GIB,
)
DONE = TransportResult(
    address="scsi0:0",
    examined_bytes=20 * GIB,
    different_bytes=GIB,
    written_bytes=GIB,
    seconds=95,
)


def progress(examined: float, **more: object) -> TransferProgress:
    values: dict[str, object] = {
        "address": "scsi0:0",
        "pass_no": 1,
        "total_bytes": 20 * GIB,
        "examined_bytes": int(examined * 20 * GIB),
        "different_bytes": GIB,
        "written_bytes": GIB // 2,
        **more,
    }
    return TransferProgress.model_validate(values)


def live(examined: float, **more: object) -> LiveActivity:
    return LiveActivity(activity="transport_changes", progress=progress(examined, **more))


STEPS = (
    StepStatus(
        name=StepName.PREFLIGHT,
        title="Check everything, claim the VMs",
        started_at=ago(120),
        finished_at=ago(118),
        attempts=1,
    ),
    StepStatus(
        name=StepName.TRANSPORT_CHANGES,
        title="Transport the changes, pass 1",
        started_at=ago(118),
        attempts=2,
    ),
)


def view(phase: Phase = Phase.SYNCING, **more: object) -> RunView:
    """A run in this phase; `execution`, `live` and any field of the status may be given."""
    outer = {name: more.pop(name) for name in ("execution", "live") if name in more}
    if more.get("outcome"):
        outer.setdefault("execution", "COMPLETED")
    values: dict[str, object] = {
        "workflow_id": "failback/web01",
        "run_id": "run-1",
        "replica": "web01",
        "phase": phase,
        "replica_state": ReplicaState.FAILOVER,
        "started_at": ago(120),
        "steps": STEPS,
        **more,
    }
    return RunView.model_validate({"status": Status.model_validate(values), **outer})


def closed(outcome: Outcome) -> RunView:
    return view(Phase.CLOSED, outcome=outcome)


def awaiting() -> RunView:
    return view(Phase.AWAITING_DECISION, warning=LOSS, decision_since=ago(60))


def standing(probing: bool = False) -> RunView:
    return view(
        Phase.NEEDS_OPERATOR,
        operator=OperatorCall(
            from_phase=Phase.SWITCHING,
            step=StepName.POWER_OFF_REPLICA,
            code="GuestShutdownTimeout",
            message="web01 (dr:vm-1) did not shut down in 15 min",
            tried="guest shutdown at 11:40",
            may=(RequestKind.RETRY, RequestKind.UNDO),
            probing=probing,
        ),
    )
