"""The catalog: one object for the workers and commands, one transaction for each call.

Thread-safe. Every method may raise CatalogUnavailable, in which case nothing was changed.
Times are aware; where a method takes none, the clock given to the catalog is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlmodel import Session

from failback.catalog import alarms, jobs, locks, replicas, run_limits, runs, steps, tracking
from failback.catalog.engine import BUSY_TIMEOUT_S, Database
from failback.catalog.purge import Purged, purge
from failback.catalog.records import (
    Alarm,
    Beginning,
    Claim,
    JobRecord,
    ReplicaDetail,
    ReplicaRecord,
    RunRecord,
    StepRecord,
    Turn,
)
from failback.catalog.schema import migrate
from failback.contracts.policies import Limits
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Phase, ReplicaState


def utc_now() -> datetime:
    """Wall clock, aware."""
    return datetime.now(UTC)


class Catalog:
    """Replicas, runs, steps, claims, leases and alarms. The schema is made by `migrate`."""

    def __init__(
        self,
        url: str,
        *,
        now: Callable[[], datetime] = utc_now,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        self._url, self._busy_timeout_s = url, busy_timeout_s
        self.database = Database(url, busy_timeout_s)
        self._read, self._write, self._now = self.database.read, self.database.write, now

    def migrate(self) -> None:
        """Create the schema or bring it to this version; the errors of `schema.migrate`."""
        migrate(self._url, busy_timeout_s=self._busy_timeout_s)

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self.database.close()

    # Replicas and jobs.

    def add_replica(
        self,
        key: str,
        replica: VmIdentity,
        source: VmIdentity,
        state: ReplicaState = ReplicaState.READY,
    ) -> ReplicaRecord:
        """Add a replica; the same again is success and leaves its state; else StateConflict."""
        return self._write(replicas.add, key, replica, source, state, self._now())

    def move_vm(self, old: VmIdentity, new: VmIdentity) -> None:
        """The same VM has another reference now; StateConflict while a run holds it."""
        self._write(replicas.move_vm, old, new)

    def mark_failover(self, key: str) -> ReplicaRecord:
        """READY to FAILOVER; FAILOVER already is success; ReplicaUnknown, StateConflict."""
        return self._write(replicas.mark_failover, key, self._now())

    def get_replica(self, key: str) -> ReplicaRecord:
        """One replica; ReplicaUnknown."""
        return self._read(lambda session: replicas.record(session, replicas.find(session, key)))

    def list_replicas(self) -> tuple[ReplicaRecord, ...]:
        """All replicas, by key."""
        return self._read(replicas.all_records)

    def replica_detail(self, key: str) -> ReplicaDetail:
        """A replica with restore points, runs (newest first) and jobs of its source."""
        return self._read(
            lambda session: ReplicaDetail(
                replica=replicas.record(session, row := replicas.find(session, key)),
                restore_points=replicas.restore_points(session, key),
                runs=runs.all_records(session, key),
                jobs=tuple(
                    jobs.record(session, job) for job in jobs.of_vm_id(session, row.source_vm_id)
                ),
            )
        )

    def set_state(
        self, run_id: str, key: str, to: ReplicaState, allowed_from: Sequence[ReplicaState]
    ) -> ReplicaRecord:
        """Compare-and-set by an open run. READY_TO_SWITCH and FAILBACK then belong to that run.
        The same run setting the same again is success; else StateConflict with what was found."""
        return self._write(replicas.set_state, run_id, key, to, allowed_from, self._now())

    def add_job(self, name: str, sources: Sequence[VmIdentity]) -> JobRecord:
        """Add a replication job, or make these the VMs it includes."""
        return self._write(jobs.add, name, sources)

    def get_job(self, name: str) -> JobRecord:
        """One job; StateConflict where there is none."""
        return self._read(lambda session: jobs.record(session, jobs.find(session, name)))

    def set_job_running(self, name: str, running: bool) -> None:
        """What the replication tool says about its job."""
        self._write(jobs.set_running, name, running)

    def running_jobs(self, source: VmIdentity) -> tuple[str, ...]:
        """Names of the jobs that include this VM and run now."""
        return self._read(jobs.running, source)

    # Runs

    def open_run(
        self,
        run_id: str,
        workflow_id: str,
        replica: str,
        request: StartRequest,
        lease: tuple[str, int] | None = None,
    ) -> RunRecord:
        """Record a run; the same again is success. ReplicaUnknown, StateConflict.

        Args:
            lease: name and epoch that must hold in this transaction (LeaseLost): preflight opens a
                run again that it has refused, and one that was frozen must not.
        """

        def open_under(session: Session) -> RunRecord:
            if lease is not None:
                locks.check_lease(session, *lease, hold=True)
            return runs.open_run(session, run_id, workflow_id, replica, request, self._now())

        return self._write(open_under)

    def get_run(self, run_id: str) -> RunRecord:
        """One run; StateConflict where there is none."""
        return self._read(runs.get, run_id)

    def list_runs(self, replica: str | None = None) -> tuple[RunRecord, ...]:
        """Runs of one replica or of all, newest first."""
        return self._read(runs.all_records, replica)

    def set_run_phase(self, run_id: str, phase: Phase | str) -> None:
        """Phase of an open run, for example `NEEDS_OPERATOR(SYNCING)`; an ended one: CLOSED."""
        self._write(runs.set_phase, run_id, str(phase))

    def set_run_report(self, run_id: str, report: str) -> None:
        """JSON of the run report; a later one replaces it."""
        self._write(runs.set_report, run_id, report)

    def set_run_plan(self, run_id: str, plan: str) -> None:
        """JSON of the plan the run follows; a later one replaces it."""
        self._write(runs.set_plan, run_id, plan)

    def set_run_limits(self, run_id: str, limits: Limits) -> None:
        """What the movers of this run look at; later limits replace it."""
        self._write(run_limits.put, run_id, limits, self._now())

    def run_limits(self, run_id: str) -> Limits | None:
        """The limits of a run; None where nobody has set any."""
        return self._read(run_limits.get, run_id)

    def is_committed(self, run_id: str) -> bool:
        """Whether a commit of this run is durable; False also where there is no such run."""
        return self._read(runs.is_committed, run_id)

    def close_commit(
        self,
        run_id: str,
        key: str,
        protective_snapshot: str | None,
        at: datetime,
        request: Request | None = None,
        *,
        snapshot_name: str = "",
        took_place: tuple[VmIdentity, VmIdentity] | None = None,
    ) -> RunRecord:
        """The one transaction of a commit; a repeat is success, after an undo StateConflict."""
        return self._write(
            runs.close_commit,
            run_id,
            key,
            protective_snapshot,
            at,
            request or Request(),
            snapshot_name,
            took_place,
        )

    def replace_source(self, run_id: str, key: str, old: VmIdentity, new: VmIdentity) -> None:
        """Compare-and-set of the replica's source VM for an open run; StateConflict."""
        self._write(runs.replace_source, run_id, key, old, new, self._now())

    def close_undo(
        self, run_id: str, key: str, at: datetime, request: Request | None = None
    ) -> RunRecord:
        """The closing transaction of an undo; a repeat is success, after a commit StateConflict."""
        return self._write(runs.close_undo, run_id, key, at, request or Request())

    def close_refused(self, run_id: str, at: datetime | None = None) -> RunRecord:
        """The closing transaction of a refusal; a repeat is success."""
        return self._write(runs.close_refused, run_id, at or self._now())

    # Steps

    def step_intent(self, run_id: str, step: str, object: str, mark: str, at: datetime) -> datetime:
        """Before an operation is issued. Returns the time of its first intent."""
        return self._write(steps.intent, run_id, step, object, mark, at)

    def step_finished(
        self, run_id: str, step: str, object: str, evidence: str, at: datetime
    ) -> None:
        """After an operation succeeded."""
        self._write(steps.finished, run_id, step, object, evidence, at)

    def step_failed(
        self, run_id: str, step: str, object: str, error: str, now: datetime
    ) -> timedelta:
        """After an attempt failed. Returns for how long attempts failed without progress."""
        return self._write(steps.failed, run_id, step, object, error, now)

    def step_progress(self, run_id: str, step: str, object: str) -> None:
        """Durable progress: the next failure counts from zero."""
        self._write(steps.progress, run_id, step, object)

    def has_step(self, run_id: str, step: str, object: str) -> bool:
        """Whether an intent was recorded."""
        return self._read(steps.has, run_id, step, object)

    def steps(self, run_id: str) -> tuple[StepRecord, ...]:
        """Steps of a run in the order of their first intent."""
        return self._read(steps.of_run, run_id)

    # Claims, leases, hosts, alarms

    def claim(self, run_id: str, objects: Sequence[str]) -> None:
        """Take all of these for an open run, or none: ClaimHeld. Again by the same: success."""
        self._write(locks.claim, run_id, objects, self._now())

    def release_claims(self, run_id: str) -> None:
        """Give up everything the run holds; for `reconcile`, closing does it by itself."""
        self._write(locks.release_claims, run_id)

    def claims(self) -> tuple[Claim, ...]:
        """All claims, by object."""
        return self._read(locks.claims)

    def tracking_owed(self, vm: VmIdentity) -> bool:
        """Whether the VM's tracking is off only until the cleanup of a committed run has ended."""
        return self._read(tracking.owed, vm)

    def generation_of(self, run_id: str) -> int:
        """The newest generation of a run that has taken a lease; 0 where none has."""
        return self._read(locks.generation_of, run_id)

    def take_lease(
        self, name: str, owner: str, turn: Turn | None = None, open_run: str | None = None
    ) -> int:
        """Take a lease over and return its new epoch.

        Args:
            turn: place in the order of scheduling; an attempt scheduled before the holder is
                refused with LeaseLost. None: always succeeds.
            open_run: a run that must not have ended; LeaseLost.
        """
        turn = turn or Turn("", 0, 0)
        return self._write(locks.take_lease, name, owner, turn, open_run, self._now())

    def begin_attempt(
        self,
        beginning: Beginning,
        lease: str | None,
        owner: str,
        turn: Turn,
        open_run: str | None = None,
    ) -> int:
        """Take the lease, if there is one, and record the intent, in one transaction: every commit
        of a file waits for the disk, and a switch makes dozens. Returns the epoch (0: no lease)."""
        now = self._now()

        def begin(session: Session) -> int:
            epoch = 0
            if lease is not None:
                epoch = locks.take_lease(session, lease, owner, turn, open_run, now)
            steps.begin(session, beginning, now)
            return epoch

        return self._write(begin)

    def end_preflight(
        self, run_id: str, lease: str, owner: str, turn: Turn, plan: str | None
    ) -> None:
        """Record the plan that preflight accepted, or (None) that it refused, for the newest of its
        attempts only: LeaseLost. One that was frozen may come when the run is far ahead."""
        now = self._now()

        def end(session: Session) -> None:
            locks.take_lease(session, lease, owner, turn, run_id, now)
            if plan is not None:
                runs.set_plan(session, run_id, plan)
            else:
                runs.close_refused(session, run_id, now)

        self._write(end)

    def check_lease(self, name: str, epoch: int) -> None:
        """LeaseLost when a newer epoch exists."""
        self._read(locks.check_lease, name, epoch)

    def register_mover_host(self, host_id: str) -> None:
        """Record this machine (`<machine id>/<boot id>`) as a mover host. An SQLite catalog refuses
        a second machine with StateConflict."""
        self._write(locks.register_mover_host, host_id, self.database.single_host, self._now())

    def forget_mover_host(self, host_id: str) -> None:
        """A person says that this machine runs movers no more."""
        self._write(locks.forget_mover_host, host_id)

    def raise_alarm(self, run_id: str, code: str, message: str, *, lasting: bool = False) -> None:
        """Record an alarm; the same message again counts up. `lasting`: so does any other of this
        code, which takes its place: trouble that is met at every try is one alarm."""
        self._write(alarms.add, run_id, code, message, self._now(), lasting)

    def alarms(self, run_id: str) -> tuple[Alarm, ...]:
        """Alarms of a run, oldest first."""
        return self._read(alarms.of_run, run_id)

    def purge_ledger(self, retention: timedelta, max_segments: int | None = None) -> Purged:
        """Remove what the ledger knows of runs that ended longer ago than this."""
        return purge(self.database, self._now() - retention, max_segments)
