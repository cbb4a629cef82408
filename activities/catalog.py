"""The replica's state and the closing transaction of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from activities.attest import NOBODY_KNOWS, attested, power_of, require_attested, told
from activities.edge import Attempt, now, snapshot_name
from activities.power import RUNNING
from activities.snapshots import (
    PROTECTIVE_PURPOSE,
    STATE_ATTRIBUTE,
    second_copy_found,
    tell_second_copy,
)
from failback.catalog.repository import Catalog
from failback.contracts.operations import CloseRun, Done, ReplaceSource, SetReplicaState
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Outcome, PowerState
from failback.errors import (
    CatalogUnavailable,
    ReplicaUnknown,
    SplitBrain,
)
from failback.hypervisor.ports import Sites

LOG = logging.getLogger(__name__)
PURGE_SEGMENTS = 100_000
"""A second's work: the step of closing waits for it."""


@dataclass(frozen=True)
class CatalogActivities:
    """Compare-and-sets bound to the run."""

    sites: Sites
    catalog: Catalog
    ledger_retention: timedelta = timedelta(days=30)

    def set_replica_state(self, argument: SetReplicaState, attempt: Attempt) -> Done:
        """Set the state. Idempotent because the same run setting the same state again succeeds."""
        run = argument.run
        if argument.verified_target is not None:
            target = argument.verified_target
            self.sites.site(target.site).set_attribute(
                target, STATE_ATTRIBUTE, f"failed back {run.run_id}", attempt.beat
            )
        attempt.beat()
        self.catalog.set_state(run.run_id, run.replica, argument.to, argument.allowed_from)
        return Done(evidence=f"replica {run.replica} is in state {argument.to}")

    def replace_source(self, argument: ReplaceSource, attempt: Attempt) -> Done:
        """Another VM becomes the replica's source. Idempotent because it is a compare-and-set."""
        attempt.beat()
        run = argument.run
        self.catalog.replace_source(run.run_id, run.replica, argument.old, argument.new)
        return Done(evidence=f"the source VM of {run.replica} is {argument.new}")

    def close_run(self, argument: CloseRun, attempt: Attempt) -> Done:
        """Close the run in one transaction, and remove a part of what old runs left.

        Idempotent because the transaction records the outcome, and a repeat finds it.
        """
        done = self._close(argument, attempt)
        try:
            self.catalog.purge_ledger(self.ledger_retention, PURGE_SEGMENTS)
        except CatalogUnavailable as error:
            # The run is closed; the next one that closes removes it.
            LOG.warning("the ledger of old runs was not purged: %s", error)
        return done

    def _close(self, argument: CloseRun, attempt: Attempt) -> Done:
        run = argument.run
        if argument.outcome is Outcome.UNDONE and not argument.began:
            return self._forget(argument)
        if argument.outcome is Outcome.UNDONE:
            alarm = self._wrongly_declared(argument, attempt)
            self.catalog.close_undo(run.run_id, run.replica, now(), argument.request)
            return Done(evidence="claims released, replica in state FAILOVER", alarm=alarm)
        took_place = None
        if not self.catalog.is_committed(run.run_id):
            self._demand_order(argument, attempt)
            took_place = self._took_place(argument)
        attempt.beat()
        self.catalog.close_commit(
            run.run_id,
            run.replica,
            argument.protective_snapshot,
            now(),
            argument.request,
            snapshot_name=snapshot_name(run.run_id, PROTECTIVE_PURPOSE),
            took_place=took_place,
        )
        return Done(evidence="replica READY, protective snapshot is its newest restore point")

    def _took_place(self, argument: CloseRun) -> tuple[VmIdentity, VmIdentity] | None:
        """The old source VM and the one in its place, by the name that it has got meanwhile: jobs
        are for people too. Nothing but its name is asked for, so one that a person answers for
        need not tell it."""
        old, target = argument.old_source, argument.target
        if old is None or target is None:
            return None
        try:
            view = told(self.sites.site(target.site).read([target])[0])
        except NOBODY_KNOWS as error:
            require_attested(error, target, argument.attest_off)
            return old, target.model_copy(update={"name": argument.final_name or target.name})
        return old, view.identity

    def _demand_order(self, argument: CloseRun, attempt: Attempt) -> None:
        """A commit hands the replica to replication, which overwrites it: it must not serve, and
        nobody may have to guess what runs."""
        replica = () if argument.replica is None else (argument.replica,)
        off = dict.fromkeys((*replica, *argument.must_be_off))
        for vm in (*off, *argument.power_known):
            attempt.beat()
            try:
                power = power_of(self.sites, vm)
            except NOBODY_KNOWS as error:
                # There is no undo any more: without an answer the run would stand here for ever.
                require_attested(error, vm, argument.attest_off)
                continue
            if vm in off and power is not PowerState.OFF:
                raise SplitBrain(
                    f"Commit is refused while {vm} is {power}.",
                    "Power it off and send retry.",
                    runs=vm.ref,
                )

    def _wrongly_declared(self, argument: CloseRun, attempt: Attempt) -> str:
        """The alarm about an old source VM that runs although a person declared it to be off, on
        the strength of which the replica serves again; empty when none is seen to."""
        for vm in argument.must_be_off:
            if not attested(vm, argument.attest_off):
                continue
            attempt.beat()
            try:
                power = power_of(self.sites, vm)
            except NOBODY_KNOWS:
                # As unknown as it was when somebody answered for it.
                continue
            if power in RUNNING and not second_copy_found(self.catalog, argument):
                text = (
                    f"SPLIT_BRAIN: {vm} is {power} although a person declared it to be off: it may "
                    "run beside the VM replica. Power one of them off."
                )
                tell_second_copy(self.catalog, argument, text)
        return second_copy_found(self.catalog, argument)

    def _forget(self, argument: CloseRun) -> Done:
        """Close a run whose preflight had not ended, also one that it had not recorded yet."""
        run = argument.run
        try:
            self.catalog.open_run(
                run.run_id,
                f"failback/{run.replica}",
                run.replica,
                StartRequest(replica=run.replica),
            )
        except ReplicaUnknown:
            return Done(evidence="there is no such replica; nothing was begun")
        self.catalog.close_refused(run.run_id)
        return Done(evidence="nothing was begun; claims released")
