"""Looking at a run whose workflow is gone: the catalog, the claims and both sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from activities.edge import Attempt, snapshot_name
from activities.snapshots import STATE_ATTRIBUTE
from failback.catalog.records import RunRecord, StepRecord
from failback.catalog.repository import Catalog
from failback.contracts.operations import CreateTargetResult, InspectRun
from failback.contracts.plan import RunPlan
from failback.contracts.remains import Left, RecordedStep, Remains
from failback.contracts.vm import VmIdentity, VmView
from failback.contracts.words import Finish, Outcome, PowerState, ReplicaState
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
        plan = self._plan(newest)
        left: list[Left] = list(self._claims(newest))
        unread: list[str] = []
        if newest.outcome is None and record.state is not ReplicaState.FAILOVER:
            left.append(Left(object=f"replica {key}", what=f"its state is {record.state}"))
        for vm, purposes in self._vms(plan):
            attempt.beat()
            try:
                view = self.sites.site(vm.site).read([vm])[0]
                left += self._on_vm(newest, view, purposes)
            except VmNotFound:
                left.append(Left(object=str(vm), what="it is gone from its site"))
            except FailbackError as error:
                unread.append(str(error)[:KEPT_TEXT])
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
            steps=tuple(_step(one) for one in self.catalog.steps(newest.run_id)),
            left=tuple(left),
            unread=tuple(unread),
            may=_may(newest, record.state, record.held_by, left),
        )

    def _plan(self, run: RunRecord) -> RunPlan | None:
        """The plan as the run follows it now: a VM that it made has its identity since then."""
        if run.plan is None:
            return None
        plan = RunPlan.model_validate_json(run.plan)
        made = next(
            (s for s in self.catalog.steps(run.run_id) if s.step == "create_target" and s.evidence),
            None,
        )
        if made is None:
            return plan
        result = CreateTargetResult.model_validate_json(made.evidence)
        return plan.model_copy(update={"target": result.target, "pairs": result.pairs})

    def _claims(self, run: RunRecord) -> Iterator[Left]:
        for claim in self.catalog.claims():
            if claim.run_id == run.run_id:
                yield Left(object=claim.object, what="it is claimed: no other run may take it")

    def _vms(self, plan: RunPlan | None) -> Iterator[tuple[VmIdentity, bool]]:
        """Each VM of the run, and whether it is the target."""
        if plan is None:
            return
        yield plan.replica, False
        if plan.target_exists:
            yield plan.target, True

    def _on_vm(self, run: RunRecord, view: VmView, target: bool) -> Iterator[Left]:
        vm, prefix = str(view.identity), snapshot_name(run.run_id, "")
        kept = snapshot_name(run.run_id, "protective")
        for snapshot in view.snapshots:
            # After a commit the protective snapshot is the replica's newest restore point.
            if snapshot.name.startswith(prefix) and (
                run.outcome is not Outcome.COMMITTED or snapshot.name != kept
            ):
                yield Left(object=vm, what=f"our snapshot {snapshot.name} ({snapshot.moref})")
        state = self.sites.site(view.identity.site).get_attribute(view.identity, STATE_ATTRIBUTE)
        if run.run_id in state:
            yield Left(object=vm, what=f"its attribute {STATE_ATTRIBUTE} is {state!r}")
        if run.outcome is None and run.plan is not None:
            plan = RunPlan.model_validate_json(run.plan)
            was = plan.target_power if target else plan.replica_power
            if view.power is not was and view.power is not PowerState.UNKNOWN:
                yield Left(object=vm, what=f"it is {view.power} and was {was}")
            tracked = plan.target_tracking if target else plan.replica_tracking
            if view.tracking_enabled is not tracked:
                now, then = ("on" if one else "off" for one in (view.tracking_enabled, tracked))
                yield Left(object=vm, what=f"its change tracking is {now} and was {then}")


def _looked_at(runs: Sequence[RunRecord]) -> RunRecord | None:
    """Of the runs, newest first, the one that is open; else the newest that changed something: what
    is refused because another run holds the claims leaves nothing, and is newer than that run."""
    started = [run for run in runs if run.outcome is not Outcome.REFUSED]
    unfinished = [run for run in started if run.outcome is None]
    return next(iter((*unfinished, *started, *runs)), None)


def _may(
    run: RunRecord, state: ReplicaState, held_by: str | None, left: list[Left]
) -> tuple[Finish, ...]:
    if run.outcome is Outcome.COMMITTED:
        return (Finish.CLEANUP,) if left else ()
    if run.outcome is not None:
        return ()
    # Production has all of the replica's content, verified, exactly when the run set this state.
    whole = state is ReplicaState.FAILBACK and held_by == run.run_id
    return (Finish.UNDO, Finish.COMMIT) if whole else (Finish.UNDO,)


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
