"""Who has yet to give a VM its change tracking back.

A run switches it off while it writes, and its undo or its cleanup on again; a cleanup may come when
the next run on the VM has begun.
"""

from __future__ import annotations

from sqlmodel import Session, col, select

from failback.catalog.replicas import claim_of
from failback.catalog.tables import RunRow, StepRow
from failback.contracts.plan import RunPlan
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Outcome, StepName


def owed(session: Session, vm: VmIdentity) -> bool:
    """Whether tracking of this VM is off only because the cleanup of a committed run has not ended.

    The newest run that has protected the VM answers for all before it: its plan took over what they
    owed. One that ended before it did so has changed nothing, and does not count.
    """
    # As JSON has it: most plans are about other VMs, and are not parsed.
    about = col(RunRow.plan).contains(f'"{vm.moref}"', autoescape=True)
    over = col(RunRow.outcome).in_((Outcome.COMMITTED.value, Outcome.UNDONE.value))
    newest_first = select(RunRow).where(over, about).order_by(col(RunRow.started_at).desc())
    for run in session.exec(newest_first):
        plan = RunPlan.model_validate_json(run.plan or "")
        if claim_of(plan.target) != claim_of(vm) or not _rows(session, run, _PROTECT):
            continue
        cleaned = any(row.finished_at is not None for row in _rows(session, run, _CLEAN))
        return run.outcome == Outcome.COMMITTED and plan.target_tracking and not cleaned
    return False


_PROTECT, _CLEAN = StepName.PROTECT_TARGET.value, StepName.CLEAN_TARGET.value


def _rows(session: Session, run: RunRow, step: str) -> list[StepRow]:
    return list(
        session.exec(select(StepRow).where(StepRow.run_id == run.run_id, StepRow.step == step))
    )
