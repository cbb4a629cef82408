"""Who may touch what: claims of runs, leases of attempts, the one mover host of a file catalog."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, delete, select

from failback.catalog import runs
from failback.catalog.records import Claim, Turn
from failback.catalog.tables import ClaimRow, LeaseRow, MoverHostRow, RunRow
from failback.errors import ClaimHeld, LeaseLost, StateConflict


def claim(session: Session, run_id: str, objects: Sequence[str], now: datetime) -> None:
    """Take all objects for an open run, or none; ClaimHeld names the run that has one."""
    runs.find_open(session, run_id, "cannot claim anything")
    # Sorted: two runs that want the same objects meet at the first, and cannot deadlock.
    wanted = sorted(set(objects))
    held = {
        row.object: row.run_id
        for row in session.exec(select(ClaimRow).where(col(ClaimRow.object).in_(wanted))).all()
    }
    for name in wanted:
        holder = held.get(name)
        if holder is None:
            session.add(ClaimRow(object=name, run_id=run_id, taken_at=now))
            session.flush()
        elif holder != run_id:
            raise ClaimHeld(
                f"Run {holder} holds {name}.",
                "Commit or undo that run; if its workflow is terminated, run `failback reconcile`.",
                run=holder,
                object=name,
            )


def release_claims(session: Session, run_id: str) -> None:
    """Give up everything the run holds."""
    session.exec(delete(ClaimRow).where(col(ClaimRow.run_id) == run_id))


def claims(session: Session) -> tuple[Claim, ...]:
    """All claims, by object."""
    rows = session.exec(select(ClaimRow).order_by(col(ClaimRow.object))).all()
    return tuple(Claim(row.object, row.run_id, row.taken_at) for row in rows)


def take_lease(
    session: Session, name: str, owner: str, turn: Turn, open_run: str | None, now: datetime
) -> int:
    """Take the lease over; returns the new epoch. The newest attempt wins, and newest is who was
    scheduled last, not who arrives last: a frozen worker may begin an old attempt after its thaw.
    """
    if open_run is not None:
        run = session.get(RunRow, open_run)
        if run is not None and run.ended_at is not None:
            raise LeaseLost(
                f"Run {open_run} has ended ({run.outcome}); {owner} comes too late.",
                "Nothing is to be done.",
            )
    row = session.exec(
        select(LeaseRow).where(LeaseRow.name == name).with_for_update()
    ).one_or_none()
    if row is None:
        row = LeaseRow(
            name=name, epoch=0, owner=owner, execution="", number=0, attempt=0, taken_at=now
        )
        session.add(row)
    held = Turn(row.execution, row.number, row.attempt, row.run_id, row.generation)
    if _earlier(turn, held):
        raise LeaseLost(
            f"The lease on {name} is held by {row.owner}, which was scheduled after {owner}.",
            "Nothing is to be done: that attempt goes on.",
        )
    row.epoch, row.owner, row.taken_at = row.epoch + 1, owner, now
    row.execution, row.number, row.attempt = turn.execution, turn.number, turn.attempt
    row.run_id, row.generation = turn.run_id, turn.generation
    session.flush()
    return row.epoch


def _earlier(turn: Turn, held: Turn) -> bool:
    if turn.run_id == held.run_id and turn.generation != held.generation:
        return turn.generation < held.generation
    # Of two executions of one generation (a workflow that was reset) the newcomer is the newer one.
    return held.execution == turn.execution and (turn.number, turn.attempt) < (
        held.number,
        held.attempt,
    )


def generation_of(session: Session, run_id: str) -> int:
    """The newest generation of a run that has taken a lease."""
    rows = session.exec(select(LeaseRow).where(LeaseRow.run_id == run_id)).all()
    return max((row.generation for row in rows), default=0)


def check_lease(session: Session, name: str, epoch: int, *, hold: bool = False) -> None:
    """LeaseLost unless this epoch is the newest; `hold`: until this transaction ends, too."""
    row = session.get(LeaseRow, name, with_for_update=hold)
    if row is None or row.epoch != epoch:
        owner = row.owner if row else "nobody"
        raise LeaseLost(
            f"The lease on {name} went over to {owner}.",
            "Nothing is to be done: that attempt goes on.",
        )


def register_mover_host(session: Session, host_id: str, single_host: bool, now: datetime) -> None:
    """Record a machine that runs movers; a catalog in a file accepts one machine only.

    `host_id` is `<machine id>/<boot id>`: the same machine after a reboot is not a second one.
    """
    machine = host_id.partition("/")[0]
    rows = session.exec(select(MoverHostRow)).all()
    others = [row.machine_id for row in rows if row.machine_id != machine]
    if others and single_host:
        raise StateConflict(
            f"Machine {others[0]} runs movers with this catalog already, and a catalog in an "
            "SQLite file serves one machine only.",
            "Use PostgreSQL; or, if that machine has stopped for good, forget it with "
            "`failback catalog forget-host`.",
            machine=others[0],
        )
    row = session.get(MoverHostRow, machine)
    if row is None:
        row = MoverHostRow(machine_id=machine, host_id=host_id, registered_at=now)
        session.add(row)
    row.host_id, row.registered_at = host_id, now
    session.flush()


def forget_mover_host(session: Session, host_id: str) -> None:
    """A person says that this machine runs movers no more."""
    machine = host_id.partition("/")[0]
    session.exec(delete(MoverHostRow).where(col(MoverHostRow.machine_id) == machine))
