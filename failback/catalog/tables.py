"""The tables. Rows never leave this package: callers get the records of records.py.

Only types that every database has: times are stored as UTC, words as text, extents as bytes.
A change here needs a migration; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, LargeBinary, MetaData, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, UniqueConstraint


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC. SQLite forgets time zones, so what comes back naive was UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without time zone was given to the catalog")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        known: datetime = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return known.astimezone(UTC)


# Named constraints: a later migration can only change what it can name.
NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMES))):
    """Base of all tables, with metadata of its own: other libraries' models stay out of ours."""


class SiteRow(Table, table=True):
    """Which vCenter a site name stood for when it was first used."""

    __tablename__ = "site"
    name: str = Field(primary_key=True)
    vcenter_uuid: str


class VmRow(Table, table=True):
    """A VM; morefs repeat between vCenters, so identity is three columns."""

    __tablename__ = "vm"
    __table_args__ = (UniqueConstraint("site", "vcenter_uuid", "moref"),)
    id: int | None = Field(default=None, primary_key=True)
    site: str = Field(foreign_key="site.name")
    vcenter_uuid: str
    moref: str
    name: str
    instance_uuid: str
    bios_uuid: str
    path: str = Field(sa_type=Text)


class ReplicaRow(Table, table=True):
    """A replica. `held_by` is the run that set READY_TO_SWITCH or FAILBACK, else nobody."""

    __tablename__ = "replica"
    key: str = Field(primary_key=True)
    state: str
    replica_vm_id: int = Field(foreign_key="vm.id", unique=True)
    source_vm_id: int = Field(foreign_key="vm.id", index=True)
    held_by: str | None = None
    updated_at: datetime = Field(sa_type=UtcTime)
    revision: int = 1


class RestorePointRow(Table, table=True):
    """A snapshot to which the replica can be reverted."""

    __tablename__ = "restore_point"
    id: int | None = Field(default=None, primary_key=True)
    replica_key: str = Field(foreign_key="replica.key", index=True)
    snapshot: str
    name: str = ""
    created_at: datetime = Field(sa_type=UtcTime)
    kind: str
    run_id: str | None = Field(default=None, foreign_key="run.run_id")


class JobRow(Table, table=True):
    """A replication job. Foreign tools set `running` while they work and read `next_run`."""

    __tablename__ = "job"
    name: str = Field(primary_key=True)
    next_run: str | None = None
    running: bool = False


class JobMemberRow(Table, table=True):
    """A VM that a job includes, or excludes."""

    __tablename__ = "job_member"
    job_name: str = Field(primary_key=True, foreign_key="job.name")
    vm_id: int = Field(primary_key=True, foreign_key="vm.id", index=True)
    excluded: bool = False


class RunRow(Table, table=True):
    """One run. It is open until `ended_at`; `by` and `reason` are those of the closing request."""

    __tablename__ = "run"
    run_id: str = Field(primary_key=True)
    workflow_id: str
    replica_key: str = Field(foreign_key="replica.key", index=True)
    destination: str
    phase: str
    outcome: str | None = None
    started_at: datetime = Field(sa_type=UtcTime)
    committed_at: datetime | None = Field(default=None, sa_type=UtcTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcTime)
    request: str = Field(sa_type=Text)
    report: str | None = Field(default=None, sa_type=Text)
    by: str = ""
    reason: str = Field(default="", sa_type=Text)
    plan: str | None = Field(default=None, sa_type=Text)


class RunLimitsRow(Table, table=True):
    """What movers look at every two seconds: the limits of one run, as JSON."""

    __tablename__ = "run_limits"
    run_id: str = Field(primary_key=True, foreign_key="run.run_id")
    limits: str = Field(sa_type=Text)
    written_at: datetime = Field(sa_type=UtcTime)


class StepRow(Table, table=True):
    """A step of a run, for one object (a disk, a VM)."""

    __tablename__ = "step"
    run_id: str = Field(primary_key=True, foreign_key="run.run_id")
    step: str = Field(primary_key=True)
    object: str = Field(primary_key=True)
    mark: str = ""
    intent_at: datetime = Field(sa_type=UtcTime)
    started_at: datetime = Field(sa_type=UtcTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcTime)
    attempts: int = 0
    evidence: str = Field(default="", sa_type=Text)
    failing_since: datetime | None = Field(default=None, sa_type=UtcTime)
    last_error: str = Field(default="", sa_type=Text)


class ClaimRow(Table, table=True):
    """An object that one run holds."""

    __tablename__ = "claim"
    object: str = Field(primary_key=True)
    run_id: str = Field(foreign_key="run.run_id", index=True)
    taken_at: datetime = Field(sa_type=UtcTime)


class LeaseRow(Table, table=True):
    """Who may change something now: the holder of the newest epoch."""

    __tablename__ = "lease"
    name: str = Field(primary_key=True)
    epoch: int = Field(sa_type=BigInteger)
    owner: str
    execution: str
    number: int
    attempt: int
    run_id: str = ""
    generation: int = 0
    taken_at: datetime = Field(sa_type=UtcTime)


class LedgerPlanRow(Table, table=True):
    """One disk's pass. `areas` is extents.py's coding; none: the whole disk."""

    __tablename__ = "ledger_plan"
    plan_id: str = Field(primary_key=True)
    disk_id: str = Field(index=True)
    source: str = Field(sa_type=Text)
    target: str = Field(sa_type=Text)
    base: str = Field(sa_type=Text)
    capacity_bytes: int = Field(sa_type=BigInteger)
    segment_bytes: int = Field(sa_type=BigInteger)
    areas: bytes | None = Field(default=None, sa_type=LargeBinary)
    epoch: int = Field(default=0, sa_type=BigInteger)
    owner: str = ""
    saved_at: datetime = Field(sa_type=UtcTime)
    completed_at: datetime | None = Field(default=None, sa_type=UtcTime)


class LedgerSegmentRow(Table, table=True):
    """One finished segment of a pass; `written` is extents.py's coding."""

    __tablename__ = "ledger_segment"
    plan_id: str = Field(primary_key=True, foreign_key="ledger_plan.plan_id")
    segment_no: int = Field(primary_key=True, sa_type=BigInteger)
    examined_bytes: int = Field(sa_type=BigInteger)
    different_bytes: int = Field(sa_type=BigInteger)
    written_bytes: int = Field(sa_type=BigInteger)
    zeroed_bytes: int = Field(sa_type=BigInteger)
    written: bytes = Field(sa_type=LargeBinary)


class MoverHostRow(Table, table=True):
    """A machine that runs movers, and its boot."""

    __tablename__ = "mover_host"
    machine_id: str = Field(primary_key=True)
    host_id: str
    registered_at: datetime = Field(sa_type=UtcTime)


class AlarmRow(Table, table=True):
    """Something people must see. Without foreign key: an alarm is never refused."""

    __tablename__ = "alarm"
    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(index=True)
    at: datetime = Field(sa_type=UtcTime)
    last_at: datetime = Field(sa_type=UtcTime)
    times: int = 1
    code: str
    message: str = Field(sa_type=Text)
