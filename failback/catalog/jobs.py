"""Replication jobs: which VMs they include, and what a commit asks of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from failback.catalog.records import FULL_COMPARE, JobRecord
from failback.catalog.replicas import identity, vm_row
from failback.catalog.tables import JobMemberRow, JobRow, VmRow
from failback.contracts.vm import VmIdentity
from failback.errors import StateConflict


def add(session: Session, name: str, sources: Sequence[VmIdentity]) -> JobRecord:
    """Add a job, or make these VMs the ones it includes; what it excludes stays."""
    job = session.get(JobRow, name)
    if job is None:
        job = JobRow(name=name)
        session.add(job)
        session.flush()
    wanted = {vm_row(session, source).id for source in sources}
    members = session.exec(select(JobMemberRow).where(JobMemberRow.job_name == name)).all()
    for member in members:
        if not member.excluded and member.vm_id not in wanted:
            session.delete(member)
    for vm_id in wanted - {member.vm_id for member in members}:
        assert vm_id is not None
        session.add(JobMemberRow(job_name=name, vm_id=vm_id))
    session.flush()
    return record(session, job)


def record(session: Session, job: JobRow) -> JobRecord:
    """The record of a row."""
    rows = session.exec(
        select(VmRow, JobMemberRow)
        .where(JobMemberRow.job_name == job.name, VmRow.id == JobMemberRow.vm_id)
        .order_by(col(VmRow.name), col(VmRow.id))
    ).all()
    return JobRecord(
        name=job.name,
        includes=tuple(identity(vm) for vm, member in rows if not member.excluded),
        excludes=tuple(identity(vm) for vm, member in rows if member.excluded),
        next_run=job.next_run,
        running=job.running,
    )


def find(session: Session, name: str) -> JobRow:
    """The job of this name."""
    job = session.get(JobRow, name)
    if job is None:
        raise StateConflict(
            f"The catalog has no replication job {name}.",
            "Check the name; `failback replica show` lists the jobs of a replica.",
        )
    return job


def set_running(session: Session, name: str, running: bool) -> None:
    """What a foreign tool says about its job."""
    find(session, name).running = running


def of_vm_id(session: Session, vm_id: int) -> Sequence[JobRow]:
    """Jobs that include the VM."""
    return session.exec(
        select(JobRow)
        .join(JobMemberRow, col(JobMemberRow.job_name) == col(JobRow.name))
        .where(JobMemberRow.vm_id == vm_id, col(JobMemberRow.excluded).is_(False))
        .order_by(col(JobRow.name))
    ).all()


def running(session: Session, source: VmIdentity) -> tuple[str, ...]:
    """Names of the jobs that include the VM and run now."""
    vm = session.exec(
        select(VmRow).where(
            VmRow.site == source.site,
            VmRow.vcenter_uuid == source.vcenter_uuid,
            VmRow.moref == source.moref,
        )
    ).one_or_none()
    if vm is None or vm.id is None:
        return ()
    return tuple(job.name for job in of_vm_id(session, vm.id) if job.running)


def replace_member(session: Session, old_vm_id: int, new_vm_id: int) -> None:
    """Every job that includes the old VM excludes it and includes the new one in its place."""
    for job in of_vm_id(session, old_vm_id):
        for vm_id, excluded in ((old_vm_id, True), (new_vm_id, False)):
            member = session.get(JobMemberRow, (job.name, vm_id))
            if member is None:
                member = JobMemberRow(job_name=job.name, vm_id=vm_id)
            member.excluded = excluded
            session.add(member)
    session.flush()


def ask_full_compare(session: Session, source_vm_id: int) -> None:
    """After a commit the jobs' own change marks are void: their next run compares everything."""
    for job in of_vm_id(session, source_vm_id):
        job.next_run = FULL_COMPARE
