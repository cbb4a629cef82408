"""Replicas, their VMs, restore points and replication jobs. Functions of one transaction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from failback.catalog.records import ReplicaRecord, RestorePoint
from failback.catalog.tables import (
    ClaimRow,
    ReplicaRow,
    RestorePointRow,
    RunRow,
    SiteRow,
    VmRow,
)
from failback.contracts.vm import VmIdentity
from failback.contracts.words import ReplicaState
from failback.errors import ReplicaUnknown, StateConflict

KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

HELD_STATES = (ReplicaState.READY_TO_SWITCH, ReplicaState.FAILBACK)
"""States that belong to the run that set them."""


def claim_of(vm: VmIdentity) -> str:
    """Name of the claim on a VM: the identity, never the name or the moref alone."""
    return f"vm:{vm.site}:{vm.vcenter_uuid}:{vm.moref}"


def vm_row(session: Session, vm: VmIdentity) -> VmRow:
    """The row of this VM, made or brought up to date; StateConflict where it is another VM now."""
    site = session.get(SiteRow, vm.site)
    if site is None:
        session.add(SiteRow(name=vm.site, vcenter_uuid=vm.vcenter_uuid))
        session.flush()
    elif site.vcenter_uuid != vm.vcenter_uuid:
        raise StateConflict(
            f"Site {vm.site} is vCenter {vm.vcenter_uuid} now and was {site.vcenter_uuid} when its "
            "VMs were recorded.",
            "Give the new vCenter a site name of its own in the settings.",
        )
    row = session.exec(
        select(VmRow).where(
            VmRow.site == vm.site,
            VmRow.vcenter_uuid == vm.vcenter_uuid,
            VmRow.moref == vm.moref,
        )
    ).one_or_none()
    if row is None:
        row = VmRow(**vm.model_dump())
    elif row.instance_uuid != vm.instance_uuid:
        raise StateConflict(
            f"{vm} has instance UUID {vm.instance_uuid}, and {row.instance_uuid} is recorded.",
            "Find out which VM is meant: the moref was given to another one.",
        )
    else:
        row.name, row.path, row.bios_uuid = vm.name, vm.path, vm.bios_uuid
    session.add(row)
    session.flush()
    return row


def identity(row: VmRow) -> VmIdentity:
    """The VM of a row."""
    return VmIdentity(
        site=row.site,
        vcenter_uuid=row.vcenter_uuid,
        moref=row.moref,
        name=row.name,
        instance_uuid=row.instance_uuid,
        bios_uuid=row.bios_uuid,
        path=row.path,
    )


def _vm(session: Session, vm_id: int) -> VmIdentity:
    return identity(session.get_one(VmRow, vm_id))


def record(session: Session, row: ReplicaRow) -> ReplicaRecord:
    """The record of a row."""
    return ReplicaRecord(
        key=row.key,
        state=ReplicaState(row.state),
        replica=_vm(session, row.replica_vm_id),
        source=_vm(session, row.source_vm_id),
        held_by=row.held_by,
        updated_at=row.updated_at,
        revision=row.revision,
    )


def find(session: Session, key: str, *, lock: bool = False) -> ReplicaRow:
    """The row of this key, locked for a change where asked; ReplicaUnknown."""
    query = select(ReplicaRow).where(ReplicaRow.key == key)
    row = session.exec(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ReplicaUnknown(
            f"The catalog has no replica {key}.",
            "List them with `failback replica list`, or add it with `failback replica add`.",
        )
    return row


def add(
    session: Session,
    key: str,
    replica: VmIdentity,
    source: VmIdentity,
    state: ReplicaState,
    now: datetime,
) -> ReplicaRecord:
    """Add a replica; the same one again is success and changes no state."""
    if not KEY.fullmatch(key):
        raise StateConflict(
            f"{key!r} cannot be the key of a replica.",
            "Use at most 63 of a-z, 0-9, dot, underscore and dash, beginning with a letter or "
            "a digit.",
        )
    if state in HELD_STATES:
        raise StateConflict(
            f"Replica {key} cannot be added in state {state}, which belongs to a run.",
            "Add it as READY or FAILOVER.",
        )
    replica_row, source_row = vm_row(session, replica), vm_row(session, source)
    if replica_row.id == source_row.id:
        raise StateConflict(
            f"Replica and source of {key} are the same VM, {replica}.", "Name two different VMs."
        )
    assert replica_row.id is not None
    assert source_row.id is not None
    row = session.get(ReplicaRow, key)
    other = session.exec(
        select(ReplicaRow).where(ReplicaRow.replica_vm_id == replica_row.id)
    ).one_or_none()
    if other is not None and other.key != key:
        raise StateConflict(
            f"{replica} is in the catalog already, as replica {other.key}.",
            "Use that key.",
        )
    if row is None:
        row = ReplicaRow(
            key=key,
            state=state.value,
            replica_vm_id=replica_row.id,
            source_vm_id=source_row.id,
            updated_at=now,
        )
        session.add(row)
        session.flush()
    elif (row.replica_vm_id, row.source_vm_id) != (replica_row.id, source_row.id):
        found = record(session, row)
        raise StateConflict(
            f"Replica {key} is {found.replica} of source {found.source} already.",
            "Choose another key.",
        )
    return record(session, row)


def move_vm(session: Session, old: VmIdentity, new: VmIdentity) -> None:
    """The VM `old` is `new` now: the same VM under another reference.

    Idempotent because a VM that is recorded as the new one already is left alone.
    """
    place = VmRow.site == old.site, VmRow.vcenter_uuid == old.vcenter_uuid
    row = session.exec(select(VmRow).where(*place, VmRow.moref == old.moref)).one_or_none()
    if row is None or old.moref == new.moref:
        vm_row(session, new)
        return
    claim = session.get(ClaimRow, claim_of(old))
    if claim is not None:
        raise StateConflict(
            f"Run {claim.run_id} holds {old}, so it keeps its reference until that run has ended.",
            "Commit or undo that run first.",
        )
    bearer = session.exec(select(VmRow).where(*place, VmRow.moref == new.moref)).one_or_none()
    if bearer is not None:
        raise StateConflict(
            f"{new} is in the catalog already, as another VM ({bearer.name}).",
            "Find out which VM is which: `failback replica list`.",
        )
    for field, value in new.model_dump().items():
        setattr(row, field, value)
    session.add(row)
    session.flush()


def change(row: ReplicaRow, state: ReplicaState, held_by: str | None, now: datetime) -> None:
    """Set state and holder of a locked row."""
    row.state, row.held_by, row.updated_at = state.value, held_by, now
    row.revision += 1


def replace_source(
    session: Session, key: str, old: VmIdentity, new: VmIdentity, now: datetime
) -> None:
    """Compare-and-set of the source VM: from `old` to `new`; `new` already is success."""
    row = find(session, key, lock=True)
    before, after = vm_row(session, old), vm_row(session, new)
    assert after.id is not None
    if row.source_vm_id == after.id:
        return
    if row.source_vm_id != before.id:
        raise StateConflict(
            f"The source VM of replica {key} is {_vm(session, row.source_vm_id)}, not {old}.",
            "Find out who changed it: `failback replica show`.",
        )
    row.source_vm_id, row.updated_at = after.id, now
    row.revision += 1


def mark_failover(session: Session, key: str, now: datetime) -> ReplicaRecord:
    """READY to FAILOVER; FAILOVER already is success."""
    row = find(session, key, lock=True)
    if row.state == ReplicaState.READY:
        change(row, ReplicaState.FAILOVER, None, now)
    elif row.state != ReplicaState.FAILOVER:
        raise StateConflict(
            f"Replica {key} is in state {row.state} (run {row.held_by}), so a failover cannot be "
            "recorded.",
            "Commit or undo that run first.",
        )
    return record(session, row)


def all_records(session: Session) -> tuple[ReplicaRecord, ...]:
    """All replicas by key."""
    rows = session.exec(select(ReplicaRow).order_by(col(ReplicaRow.key))).all()
    return tuple(record(session, row) for row in rows)


def restore_points(session: Session, key: str) -> tuple[RestorePoint, ...]:
    """Restore points of a replica, newest first."""
    rows = session.exec(
        select(RestorePointRow)
        .where(RestorePointRow.replica_key == key)
        .order_by(col(RestorePointRow.created_at).desc(), col(RestorePointRow.id).desc())
    ).all()
    return tuple(
        RestorePoint(row.snapshot, row.name, row.created_at, row.kind, row.run_id) for row in rows
    )


def set_state(
    session: Session,
    run_id: str,
    key: str,
    to: ReplicaState,
    allowed_from: Sequence[ReplicaState],
    now: datetime,
) -> ReplicaRecord:
    """Compare-and-set on behalf of an open run; the same run setting the same again is success."""
    run = session.exec(
        select(RunRow).where(RunRow.run_id == run_id).with_for_update()
    ).one_or_none()
    if run is None or run.replica_key != key or run.ended_at is not None:
        known = f"ended with {run.outcome}" if run and run.ended_at else f"does not concern {key}"
        raise StateConflict(
            f"Run {run_id} {known}, so it cannot set replica {key} to {to}.",
            "Look at the runs of that replica with `failback replica show`.",
        )
    row = find(session, key, lock=True)
    held = row.held_by is not None and row.held_by != run_id
    allowed = row.state in allowed_from and to is not ReplicaState.READY
    if held or (row.state != to and not allowed):
        holder = f", held by run {row.held_by}" if row.held_by else ""
        raise StateConflict(
            f"Run {run_id} cannot set replica {key} to {to}: it is in state {row.state}{holder}.",
            "Commit or undo the run that holds it; only a commit sets READY.",
            found=row.state,
            held_by=row.held_by,
        )
    if row.state != to:
        change(row, to, run_id if to in HELD_STATES else None, now)
    return record(session, row)
