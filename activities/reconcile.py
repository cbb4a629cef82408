"""Looking at a run whose workflow is gone: the catalog, the claims and both sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from activities.attest import power_of
from activities.creation import UNREAD, shell_of
from activities.edge import Attempt, snapshot_name
from activities.snapshots import PROTECTIVE_PURPOSE, STATE_ATTRIBUTE
from failback.catalog.records import ReplicaRecord, RunRecord, StepRecord
from failback.catalog.repository import Catalog
from failback.contracts.operations import CreateTargetResult, InspectRun
from failback.contracts.plan import RunPlan
from failback.contracts.remains import Left, RecordedStep, Remains
from failback.contracts.vm import VmIdentity, VmView
from failback.contracts.words import (
    Destination,
    Finish,
    Outcome,
    PowerState,
    ReplicaState,
    StepName,
)
from failback.errors import FailbackError, ReplicaUnknown, VmNotFound
from failback.hypervisor.ports import Sites

KEPT_TEXT = 2000
"""Of a sentence about what could not be read."""


@dataclass(frozen=True)
class ReconcileActivities:
    """Reads, and changes nothing."""

    sites: Sites
    catalog: Catalog

    def inspect_run(self, argument: InspectRun, attempt: Attempt) -> Remains:
        """What the newest run of the replica left. Idempotent because it only reads."""
        key = argument.run.replica
        try:
            record = self.catalog.get_replica(key)
        except ReplicaUnknown as error:
            return Remains(replica=key, unread=(str(error),))
        newest = _looked_at(self.catalog.list_runs(key))
        if newest is None:
            return Remains(replica=key, replica_state=record.state)
        steps = self.catalog.steps(newest.run_id)
        plan = self._plan(newest, steps)
        left: list[Left] = list(self._claims(newest))
        unread: list[str] = []
        if newest.outcome is None and record.state is not ReplicaState.FAILOVER:
            left.append(Left(object=f"replica {key}", what=f"its state is {record.state}"))
        for look in self._looks(newest, plan, steps, attempt):
            attempt.beat()
            try:
                left += look()
            except FailbackError as error:
                unread.append(str(error)[:KEPT_TEXT])
        recorded = tuple(_step(one) for one in steps)
        no_commit = _no_commit(newest, record, recorded)
        return Remains(
            replica=key,
            run_id=newest.run_id,
            outcome=newest.outcome,
            phase=newest.phase,
            replica_state=record.state,
            started_at=newest.started_at,
            request=newest.request,
            plan=plan,
            generation=self.catalog.generation_of(newest.run_id),
            steps=recorded,
            left=tuple(left),
            unread=tuple(unread),
            may=_may(newest, no_commit, left),
            no_commit=no_commit,
        )

    def _plan(self, run: RunRecord, steps: Sequence[StepRecord]) -> RunPlan | None:
        """The plan as the run follows it now: a VM that it made has its identity since then."""
        if run.plan is None:
            return None
        plan = RunPlan.model_validate_json(run.plan)
        made = _row(steps, StepName.CREATE_TARGET)
        if made is None or not made.evidence:
            return plan
        result = CreateTargetResult.model_validate_json(made.evidence)
        return plan.model_copy(update={"target": result.target, "pairs": result.pairs})

    def _claims(self, run: RunRecord) -> Iterator[Left]:
        for claim in self.catalog.claims():
            if claim.run_id == run.run_id:
                yield Left(object=claim.object, what="it is claimed: no other run may take it")

    def _looks(
        self,
        run: RunRecord,
        plan: RunPlan | None,
        steps: Sequence[StepRecord],
        attempt: Attempt,
    ) -> Iterator[Callable[[], list[Left]]]:
        """Everything that may tell of the run; each by itself, for each may fail by itself."""
        if plan is None:
            return
        yield lambda: self._on_vm(run, plan, plan.replica)
        if plan.target_exists:
            yield lambda: self._on_vm(run, plan, plan.target)
        elif run.destination is Destination.NEW:
            yield lambda: self._made(run, plan, attempt)
        if run.outcome is None and plan.old_source is not None and plan.old_source_there:
            source = plan.old_source
            yield lambda: self._on_source(source, plan.old_source_power)
        cleanup = _row(steps, StepName.CLEAN_TARGET)
        if run.outcome is Outcome.COMMITTED and (cleanup is None or cleanup.finished_at is None):
            yield lambda: [_unclean(plan.target, cleanup)]

    def _on_vm(self, run: RunRecord, plan: RunPlan, vm: VmIdentity) -> list[Left]:
        """On the replica or the target."""
        target = vm == plan.target
        made = target and run.destination is Destination.NEW
        site = self.sites.site(vm.site)
        try:
            view = site.read([vm])[0]
        except VmNotFound:
            deleted = made and run.outcome is Outcome.UNDONE
            return [] if deleted else [Left(object=str(vm), what="it is gone from its site")]
        told: list[str] = []
        if made and run.outcome is not Outcome.COMMITTED:
            told.append("the run has made it")
        told += _snapshots(run, view)
        state = site.get_attribute(vm, STATE_ATTRIBUTE)
        if run.run_id in state:
            told.append(f"its attribute {STATE_ATTRIBUTE} is {state!r}")
        if run.outcome is None:
            was = plan.target_power if target else plan.replica_power
            if view.power is not was and view.power is not PowerState.UNKNOWN:
                told.append(f"it is {view.power} and was {was}")
            tracked = plan.target_tracking if target else plan.replica_tracking
            if view.tracking_enabled is not tracked:
                now, then = ("on" if one else "off" for one in (view.tracking_enabled, tracked))
                told.append(f"its change tracking is {now} and was {then}")
        return [Left(object=str(view.identity), what=what) for what in told]

    def _made(self, run: RunRecord, plan: RunPlan, attempt: Attempt) -> list[Left]:
        """On a VM whose creation may have been applied although nobody heard of it."""
        shell = shell_of(run.request, plan, UNREAD)
        made = self.sites.site(plan.target.site).find_made(shell, run.run_id, attempt.beat)
        if made is None:
            return []
        return self._on_vm(run, plan.model_copy(update={"target": made}), made)

    def _on_source(self, source: VmIdentity, was: PowerState) -> list[Left]:
        """On the old source VM, which a run powers off and touches in no other way."""
        try:
            power = power_of(self.sites, source)
        except VmNotFound:
            return [Left(object=str(source), what="it is gone from its site")]
        if power is was or was is PowerState.UNKNOWN:
            return []
        return [Left(object=str(source), what=f"it is {power} and was {was}")]


def _row(steps: Sequence[StepRecord], name: StepName) -> StepRecord | None:
    return next((row for row in steps if row.step == name.value), None)


def _snapshots(run: RunRecord, view: VmView) -> Iterator[str]:
    prefix, kept = (snapshot_name(run.run_id, purpose) for purpose in ("", PROTECTIVE_PURPOSE))
    for snapshot in view.snapshots:
        # After a commit the protective snapshot is the replica's newest restore point.
        if snapshot.name.startswith(prefix) and (
            run.outcome is not Outcome.COMMITTED or snapshot.name != kept
        ):
            yield f"our snapshot {snapshot.name} ({snapshot.moref})"


def _unclean(target: VmIdentity, row: StepRecord | None) -> Left:
    met = f": {row.last_error}" if row is not None and row.last_error else ""
    what = f"the cleanup after the commit has not come to an end{met}"
    return Left(object=str(target), what=what[:KEPT_TEXT])


def _looked_at(runs: Sequence[RunRecord]) -> RunRecord | None:
    """Of the runs, newest first, the one that is open; else the newest that changed something: what
    is refused because another run holds the claims leaves nothing, and is newer than that run."""
    started = [run for run in runs if run.outcome is not Outcome.REFUSED]
    unfinished = [run for run in started if run.outcome is None]
    return next(iter((*unfinished, *started, *runs)), None)


def _may(run: RunRecord, no_commit: str, left: list[Left]) -> tuple[Finish, ...]:
    if run.outcome is Outcome.COMMITTED:
        return (Finish.CLEANUP,) if left else ()
    if run.outcome is not None:
        return ()
    return (Finish.UNDO,) if no_commit else (Finish.UNDO, Finish.COMMIT)


def _no_commit(run: RunRecord, replica: ReplicaRecord, steps: Sequence[RecordedStep]) -> str:
    """Why an open run cannot be committed; empty: it can, or it is not open."""
    if run.outcome is not None:
        return ""
    if any(row.step == StepName.SETTLE or row.step.startswith("undo_") for row in steps):
        # Production may be off, nameless or half reverted already: forward is no way any more.
        return "An undo of the run has begun: it can only be brought to its end."
    if replica.state is not ReplicaState.FAILBACK or replica.held_by != run.run_id:
        # Production has all of the replica's content, verified, exactly when the run set it.
        return (
            "The run had not set the state FAILBACK yet: production lacks content of the VM "
            "replica, or it is not verified."
        )
    return ""


def _step(row: StepRecord) -> RecordedStep:
    return RecordedStep(
        step=row.step,
        object=row.object,
        mark=row.mark,
        intent_at=row.intent_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        evidence=row.evidence if row.finished_at else "",
    )
