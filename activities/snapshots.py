"""Snapshots: what protects both sides, and what gives them back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from activities.attest import NOBODY_KNOWS, require_attested, told
from activities.disks import Disks
from activities.edge import Attempt, now, snapshot_name
from activities.guests import settle_guest
from failback.catalog.repository import Catalog
from failback.contracts.operations import (
    Done,
    ProtectTarget,
    ProtectTargetResult,
    RemoveSnapshot,
    RestoreReplica,
    RestoreTarget,
    Settle,
    SnapshotReplica,
    SnapshotReplicaResult,
    StepCall,
)
from failback.contracts.vm import Snapshot, VmIdentity, VmView
from failback.contracts.words import PowerState, ReplicaContent, StepName
from failback.errors import (
    ReplicaUsed,
    SnapshotAmbiguous,
    TargetNotRestorable,
    VmChanged,
    VmNotFound,
)
from failback.hypervisor.ports import Beat, Site, Sites

STATE_ATTRIBUTE = "failback.state"
TARGET_PURPOSE = "target"
PROTECTIVE_PURPOSE = "protective"
REVERTED = f"{StepName.REBASE_TARGET.value}/reverted"
"""In the journal, with a snapshot: the target was reverted to it before it was removed to grow."""
SETTLE_TIMEOUT = timedelta(minutes=20)
"""Of a task: then a person hears that it still runs."""


@dataclass(frozen=True)
class SnapshotActivities:
    """Snapshot operations on both VMs."""

    sites: Sites
    catalog: Catalog
    disks: Disks
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], datetime] = now

    def protect_target(self, argument: ProtectTarget, attempt: Attempt) -> ProtectTargetResult:
        """Make the target ready to be written.

        Idempotent because every part is a state that is read first: tracking off, capacity reached,
        a snapshot of this run's name there that is of the present content, the mark set.
        """
        site = self.sites.site(argument.target.site)
        target = argument.target
        # Before the look: whoever powers it on after that has moved the mark.
        power_mark = site.power_mark(target)
        view = site.read([target])[0]
        require_off(view, "the snapshot that undo goes back to then has what it wrote")
        run_id = argument.run.run_id
        site.set_attribute(target, STATE_ATTRIBUTE, f"incomplete {run_id}", attempt.beat)
        # Our writes would not show up in its tracking, so that the next backup would miss them.
        if view.tracking_enabled:
            site.set_change_tracking(target, False, attempt.beat)
        for pair in argument.pairs:
            if pair.target_capacity_bytes < pair.capacity_bytes:
                site.grow_disk(target, pair.target_key, pair.capacity_bytes, attempt.beat)
        snapshot = None
        if argument.snapshot:
            # Nothing of ours is in it yet, so that one made too early may go; but a workflow that
            # was reset comes here again when it is all that is left of the old content.
            written = any(
                row.step == StepName.TRANSPORT_CHANGES.value for row in self.catalog.steps(run_id)
            )
            fresh = written or unmoved(power_mark, argument.power_mark)
            snapshot = snapshot_of(site, view, TARGET_PURPOSE, argument, attempt, fresh=fresh)
        # Read again: the snapshot moved the disks to new files, and only those may be written.
        view = site.read([target])[0]
        return ProtectTargetResult(
            snapshot=snapshot,
            power_mark=power_mark,
            disks=view.disks,
            evidence=f"snapshot {snapshot} on {target}" if snapshot else "no target snapshot",
        )

    def snapshot_replica(
        self, argument: SnapshotReplica, attempt: Attempt
    ) -> SnapshotReplicaResult:
        """Freeze the replica's disks under this run's name for the purpose.

        Idempotent because a snapshot of exactly this name is this step's own work; the protective
        one is made anew where the replica may have run since: undo would revert to it, and pass 2
        read it, without what was written then. The change ids of the base stay good for both.
        """
        site = self.sites.site(argument.replica.site)
        replica = argument.replica
        # Before the look: whoever powers it on after that has moved the mark.
        power_mark = site.power_mark(replica)
        view = site.read([replica])[0]
        fresh = True
        if argument.purpose == PROTECTIVE_PURPOSE:
            require_off(view, "what it wrote is then brought back, too")
            fresh = unmoved(power_mark, argument.power_mark)
        tracking = view.tracking_enabled
        if argument.enable_tracking and not tracking and view.tracking_supported:
            site.set_change_tracking(replica, True, attempt.beat)
            tracking = True
        moref = snapshot_of(site, view, argument.purpose, argument, attempt, fresh=fresh)
        return SnapshotReplicaResult(
            snapshot=moref,
            tracking=tracking,
            power_mark=power_mark,
            disks=site.snapshot_disks(replica, moref),
            evidence=f"snapshot {moref} ({argument.purpose}) on {replica}",
        )

    def remove_snapshot(self, argument: RemoveSnapshot, attempt: Attempt) -> Done:
        """Remove this run's snapshot of the purpose and wait for the merge.

        Idempotent because gone is the goal.
        """
        site = self.sites.site(argument.vm.site)
        name = snapshot_name(argument.run.run_id, argument.purpose)
        removed = site.remove_snapshot(argument.vm, name, argument.run.run_id, attempt.beat)
        if argument.restore_tracking is not None:
            site.set_change_tracking(argument.vm, argument.restore_tracking, attempt.beat)
        return Done(evidence=f"snapshot {argument.purpose} {'removed' if removed else 'was gone'}")

    def settle(self, argument: Settle, attempt: Attempt) -> Done:
        """Prove that nothing half-done can still happen: writers dead, no task queued or running,
        no guest about to shut down.

        The lease that this activity takes keeps attempts that are still alive from sending more.
        Idempotent because it waits, and off is a state.
        """
        for disk in argument.written_disks:
            self.disks.prove_writers_dead(disk, attempt)
        waited, alarms = [], []
        for vm in argument.vms:
            try:
                site = self.sites.site(vm.site)
                waited.append(site.settle(vm, SETTLE_TIMEOUT, attempt.beat))
                guest = settle_guest(
                    site, self.catalog, vm, argument, attempt, self.sleep, self.clock
                )
                waited.append(guest.evidence)
                alarms.append(guest.alarm)
            except NOBODY_KNOWS as error:
                require_attested(error, vm, argument.attest_off)
                waited.append(f"{vm} cannot be asked; a person declared it to be off")
        return Done(
            evidence="; ".join(filter(None, waited)) or "nothing was under way",
            alarm=" ".join(filter(None, alarms)),
        )

    def restore_replica(self, argument: RestoreReplica, attempt: Attempt) -> Done:
        """Revert the replica to its protective snapshot and remove it, unless somebody used it.

        Idempotent because once the snapshot is gone the work is done; while it is there, reverting
        an unused, powered-off VM again gives the same content.
        """
        site = self.sites.site(argument.replica.site)
        replica, run_id = argument.replica, argument.run.run_id
        name = snapshot_name(run_id, PROTECTIVE_PURPOSE)
        view = site.read([replica])[0]
        found = the_one(view, name)
        if not found:
            return Done(evidence="no protective snapshot: nothing to revert")
        told(view)
        if argument.content != ReplicaContent.KEEP.value:
            used = self._used_since(argument, view, site.power_mark(replica))
            if used and argument.content != ReplicaContent.REVERT.value:
                raise ReplicaUsed(
                    f"{replica} is not reverted: {used}, so it may hold somebody's data.",
                    "Send undo with replica_content keep (its content stays) or revert (what was "
                    "written since is lost).",
                )
            if view.power is not PowerState.OFF:
                site.power_off(replica, attempt.beat)
            site.revert_to_snapshot(replica, found.moref, run_id, attempt.beat)
        site.remove_snapshot(replica, name, run_id, attempt.beat)
        kept = argument.content == ReplicaContent.KEEP.value
        return Done(evidence="content kept" if kept else f"reverted to {found.moref}")

    def _used_since(self, argument: RestoreReplica, view: VmView, mark: str | None) -> str:
        """Why the replica may hold newer data; empty when it certainly does not."""
        if view.power is not PowerState.OFF:
            return f"it is {view.power}"
        if mark is None or argument.power_mark is None:
            return "its power-on events cannot be read"
        return "" if mark == argument.power_mark else "it was powered on after it was switched off"

    def restore_target(self, argument: RestoreTarget, attempt: Attempt) -> Done:
        """Revert the target, remove our snapshot, restore tracking, clear the mark.

        Idempotent because it ends in states: the snapshot gone after a revert that is recorded
        before the removal is sent, tracking as it was, no mark.
        """
        site = self.sites.site(argument.target.site)
        target, run_id = argument.target, argument.run.run_id
        name = snapshot_name(run_id, TARGET_PURPOSE)
        try:
            view = site.read([target])[0]
        except VmNotFound as error:
            if not argument.accept_not_restored:
                raise VmNotFound(
                    error.what,
                    "Look for it; to go on without, send undo with accept_target_not_restored.",
                ) from error
            return Done(evidence=f"{target} is gone: accepted by the operator")
        found = the_one(view, name)
        # A row of its own: the step's says whether it has finished.
        reverted = run_id, f"{argument.step.value}/reverted", target.moref
        evidence = "nothing was written: no target protective snapshot was made"
        alarm = second_copy_found(self.catalog, argument)
        if found or argument.snapshot is not None or not argument.protected:
            # A target that the run never wrote to is somebody's own, and may run as it likes.
            alarm = stop_second_copy(site, self.catalog, argument, view, attempt)
        if found:
            site.revert_to_snapshot(target, found.moref, run_id, attempt.beat)
            self.catalog.step_intent(*reverted, mark=found.moref, at=now())
            site.remove_snapshot(target, name, run_id, attempt.beat)
            evidence = f"reverted to {found.moref}, which is removed"
        elif argument.snapshot is not None:
            done = self.catalog.has_step(*reverted)
            # A growth that was cut off has reverted to it and removed it.
            done = done or self.catalog.has_step(run_id, REVERTED, argument.snapshot)
            if not done and not argument.accept_not_restored:
                raise TargetNotRestorable(
                    f"The target protective snapshot {argument.snapshot} of {target} is gone, so "
                    "its content from before the run cannot be restored.",
                    "Look for it; to go on without, send undo with accept_target_not_restored.",
                )
            evidence = "reverted earlier" if done else "not restored: accepted by the operator"
        elif not argument.protected:
            evidence = "not restored: the run was started without target protective snapshot"
        site.set_change_tracking(target, argument.tracking_was, attempt.beat)
        clear_attribute(site, target, STATE_ATTRIBUTE, run_id, attempt.beat)
        return Done(evidence=evidence, alarm=alarm)


def clear_attribute(site: Site, vm: VmIdentity, name: str, run_id: str, beat: Beat) -> None:
    """Clear an attribute whose value is this run's: it ends with the run's id. Another run may have
    taken the VM since, and its value says what is true now."""
    if site.get_attribute(vm, name).rpartition(" ")[2] == run_id:
        site.set_attribute(vm, name, "", beat)


def stop_second_copy(
    site: Site, catalog: Catalog, argument: StepCall, view: VmView, attempt: Attempt
) -> str:
    """Power a target off that runs before it is reverted or deleted, while the replica serves:
    somebody started it, or what a person declared of it while its site was away (attest_off) was
    wrong. The alarm; empty when it is off.

    Idempotent because the alarm stays in the catalog, and off is a state."""
    if told(view).power is PowerState.OFF:
        return second_copy_found(catalog, argument)
    text = (
        f"SPLIT_BRAIN: {view.identity} was {view.power} although it had to be off, so it may have "
        "run beside the VM replica. It is powered off; what it wrote is lost where its old content "
        "comes back. Look for what it told the world."
    )
    tell_second_copy(catalog, argument, text)
    site.power_off(view.identity, attempt.beat)
    return text


def tell_second_copy(catalog: Catalog, argument: StepCall, text: str) -> None:
    """Raise the alarm; `second_copy_found` has it from then on."""
    catalog.raise_alarm(argument.run.run_id, _code(argument), text)


def second_copy_found(catalog: Catalog, argument: StepCall) -> str:
    """What an attempt that died had found."""
    code = _code(argument)
    found = [one.message for one in catalog.alarms(argument.run.run_id) if one.code == code]
    return found[-1] if found else ""


def _code(argument: StepCall) -> str:
    return f"SPLIT_BRAIN/{argument.step.value}"


def description_of(argument: StepCall) -> str:
    """Description of a snapshot of ours: the run id in it is what later removal insists on."""
    return f"failback of replica {argument.run.replica}, run {argument.run.run_id}"


def the_one(view: VmView, name: str) -> Snapshot | None:
    """The snapshot of exactly this name: vSphere lets names repeat, and then nothing is touched."""
    found = view.snapshot_named(name)
    if len(found) > 1:
        raise SnapshotAmbiguous(
            f"{view.identity} has {len(found)} snapshots named {name!r}.",
            "Remove the ones that are not ours, then send retry.",
        )
    return found[0] if found else None


def snapshot_of(
    site: Site, view: VmView, purpose: str, argument: StepCall, attempt: Attempt, *, fresh: bool
) -> str:
    """Make this run's snapshot of a VM; returns its moref.

    One that an attempt made which then died is taken only if it is `fresh`: of what the VM holds
    now. Otherwise it goes, which keeps the VM's content, and another one is made.
    """
    vm, run_id = view.identity, argument.run.run_id
    name = snapshot_name(run_id, purpose)
    if not fresh and the_one(view, name) is not None:
        site.remove_snapshot(vm, name, run_id, attempt.beat)
    return site.create_snapshot(vm, name, description_of(argument), attempt.beat)


def unmoved(power_mark: str | None, known: str | None) -> bool:
    """Whether a VM has certainly not been powered on since it had the known mark."""
    return power_mark is not None and power_mark == known


def require_off(view: VmView, then: str) -> None:
    """VmChanged unless it is off; VmDisconnected where nobody can say.

    Args:
        then: what becomes of what it wrote when it is shut down and the step is tried again.
    """
    if told(view).power is not PowerState.OFF:
        raise VmChanged(
            f"{view.identity} is {view.power} although it was powered off for this run.",
            f"Shut its guest down and send retry ({then}), or send undo.",
        )
