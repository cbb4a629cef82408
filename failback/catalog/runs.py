"""Runs: opened by preflight, closed in one transaction, never both committed and undone."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, delete, select

from failback.catalog import jobs, replicas
from failback.catalog.records import PROTECTIVE, RunRecord
from failback.catalog.tables import ClaimRow, RestorePointRow, RunRow
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Destination, Outcome, Phase, ReplicaState
from failback.errors import StateConflict


def open_run(
    session: Session,
    run_id: str,
    workflow_id: str,
    key: str,
    request: StartRequest,
    now: datetime,
) -> RunRecord:
    """Record a run. The same one again is success; a REFUSED one is opened again, because its
    workflow has not heard of the refusal when it runs preflight once more."""
    replicas.find(session, key)
    row = _find(session, run_id)
    if row is None:
        row = RunRow(
            run_id=run_id,
            workflow_id=workflow_id,
            replica_key=key,
            destination=request.destination.value,
            phase=Phase.PREFLIGHT.value,
            started_at=now,
            request=request.model_dump_json(),
        )
        session.add(row)
        session.flush()
    elif (row.workflow_id, row.replica_key) != (workflow_id, key):
        raise StateConflict(
            f"Run {run_id} is recorded for replica {row.replica_key}, workflow {row.workflow_id}.",
            "Start a new run.",
        )
    elif row.outcome == Outcome.REFUSED:
        row.outcome, row.ended_at, row.phase = None, None, Phase.PREFLIGHT.value
    elif row.outcome is not None:
        raise _ended(row, "cannot begin again")
    return record(row)


def _find(session: Session, run_id: str) -> RunRow | None:
    # Locked: whoever changes a replica for a run locks the run first, then the replica.
    return session.exec(
        select(RunRow).where(RunRow.run_id == run_id).with_for_update()
    ).one_or_none()


def find(session: Session, run_id: str) -> RunRow:
    """The locked row of a run."""
    row = _find(session, run_id)
    if row is None:
        raise StateConflict(
            f"The catalog has no run {run_id}.",
            "List the runs of the replica with `failback replica show`.",
        )
    return row


def find_open(session: Session, run_id: str, doing: str) -> RunRow:
    """The locked row of a run that has not ended."""
    row = find(session, run_id)
    if row.ended_at is not None:
        raise _ended(row, doing)
    return row


def _ended(row: RunRow, doing: str) -> StateConflict:
    return StateConflict(
        f"Run {row.run_id} of replica {row.replica_key} has ended with {row.outcome} and {doing}.",
        "Start a new run.",
        found=row.outcome,
    )


def get(session: Session, run_id: str) -> RunRecord:
    """One run; StateConflict where there is none."""
    row = session.get(RunRow, run_id)
    return record(row if row is not None else find(session, run_id))


def record(row: RunRow) -> RunRecord:
    """The record of a row."""
    return RunRecord(
        run_id=row.run_id,
        workflow_id=row.workflow_id,
        replica=row.replica_key,
        destination=Destination(row.destination),
        phase=row.phase,
        outcome=None if row.outcome is None else Outcome(row.outcome),
        started_at=row.started_at,
        committed_at=row.committed_at,
        ended_at=row.ended_at,
        request=StartRequest.model_validate_json(row.request),
        report=row.report,
        by=row.by,
        reason=row.reason,
        plan=row.plan,
    )


def all_records(session: Session, key: str | None) -> tuple[RunRecord, ...]:
    """Runs of one replica or of all, newest first."""
    query = select(RunRow).order_by(col(RunRow.started_at).desc(), col(RunRow.run_id))
    if key is not None:
        query = query.where(RunRow.replica_key == key)
    return tuple(record(row) for row in session.exec(query).all())


def set_phase(session: Session, run_id: str, phase: str) -> None:
    """Phase of an open run; an ended one stays CLOSED."""
    row = find(session, run_id)
    if row.ended_at is None:
        row.phase = phase


def replace_source(
    session: Session, run_id: str, key: str, old: VmIdentity, new: VmIdentity, now: datetime
) -> None:
    """On behalf of an open run; the same again is success."""
    _same_replica(find_open(session, run_id, "cannot replace its source VM"), key)
    replicas.replace_source(session, key, old, new, now)


def set_report(session: Session, run_id: str, report: str) -> None:
    """JSON of the run report; later ones replace it."""
    find(session, run_id).report = report


def set_plan(session: Session, run_id: str, plan: str) -> None:
    """JSON of the plan the run follows; a later one replaces it."""
    find(session, run_id).plan = plan


def is_committed(session: Session, run_id: str) -> bool:
    """Whether the closing transaction of a commit is durable."""
    row = session.get(RunRow, run_id)
    return row is not None and row.committed_at is not None


def close_commit(
    session: Session,
    run_id: str,
    key: str,
    protective_snapshot: str | None,
    at: datetime,
    request: Request,
    snapshot_name: str,
    took_place: tuple[VmIdentity, VmIdentity] | None = None,
) -> RunRecord:
    """Commit: replica READY, its protective snapshot the newest restore point, a full compare
    asked of its jobs, claims released, run closed. A repeat finds `committed_at` and is success.

    Args:
        took_place: the old source VM and the one that is the source from now on, also in the jobs.
    """
    run = find(session, run_id)
    _same_replica(run, key)
    if run.committed_at is not None:
        return record(run)
    if run.ended_at is not None:
        raise _ended(run, "cannot be committed")
    replica = replicas.find(session, key, lock=True)
    if replica.state != ReplicaState.FAILBACK or replica.held_by != run_id:
        raise _not_mine(run, replica.state, replica.held_by, "committed")
    replicas.change(replica, ReplicaState.READY, None, at)
    if protective_snapshot is not None:
        session.add(
            RestorePointRow(
                replica_key=key,
                snapshot=protective_snapshot,
                name=snapshot_name,
                created_at=at,
                kind=PROTECTIVE,
                run_id=run_id,
            )
        )
    if took_place is not None:
        old, new = took_place
        replicas.replace_source(session, key, old, new, at)
        old_id, new_id = (replicas.vm_row(session, vm).id for vm in (old, new))
        assert old_id is not None
        assert new_id is not None
        jobs.replace_member(session, old_id, new_id)
    jobs.ask_full_compare(session, replica.source_vm_id)
    run.committed_at = at
    _close(session, run, Outcome.COMMITTED, at, request)
    return record(run)


def close_undo(
    session: Session, run_id: str, key: str, at: datetime, request: Request
) -> RunRecord:
    """Undo: replica FAILOVER, claims released, run closed. A repeat is success."""
    run = find(session, run_id)
    _same_replica(run, key)
    if run.outcome == Outcome.UNDONE:
        return record(run)
    if run.ended_at is not None:
        raise _ended(run, "cannot be undone")
    replica = replicas.find(session, key, lock=True)
    held = replica.state in replicas.HELD_STATES and replica.held_by == run_id
    if held:
        replicas.change(replica, ReplicaState.FAILOVER, None, at)
    elif replica.state != ReplicaState.FAILOVER:
        raise _not_mine(run, replica.state, replica.held_by, "undone")
    _close(session, run, Outcome.UNDONE, at, request)
    return record(run)


def close_refused(session: Session, run_id: str, at: datetime) -> RunRecord:
    """Refused by preflight: claims released, run closed. A repeat is success."""
    run = find(session, run_id)
    if run.outcome == Outcome.REFUSED:
        return record(run)
    if run.ended_at is not None:
        raise _ended(run, "cannot be refused")
    replica = replicas.find(session, run.replica_key, lock=True)
    if replica.held_by == run_id:
        raise _not_mine(run, replica.state, replica.held_by, "refused any more")
    _close(session, run, Outcome.REFUSED, at, Request())
    return record(run)


def _close(session: Session, run: RunRow, outcome: Outcome, at: datetime, request: Request) -> None:
    run.outcome, run.ended_at, run.phase = outcome.value, at, Phase.CLOSED.value
    run.by, run.reason = request.by, request.reason
    session.exec(delete(ClaimRow).where(col(ClaimRow.run_id) == run.run_id))


def _same_replica(run: RunRow, key: str) -> None:
    if run.replica_key != key:
        raise StateConflict(
            f"Run {run.run_id} concerns replica {run.replica_key}, not {key}.",
            "Name the run of that replica.",
        )


def _not_mine(run: RunRow, state: str, held_by: str | None, done: str) -> StateConflict:
    holder = f", held by run {held_by}" if held_by else ""
    return StateConflict(
        f"Run {run.run_id} cannot be {done}: replica {run.replica_key} is {state}{holder}.",
        "Look at it with `failback replica show`; only the run that set a state leaves it.",
        found=state,
        held_by=held_by,
    )
