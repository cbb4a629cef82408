"""Making the target fit a replica whose disks have grown since the run began."""

from __future__ import annotations

from dataclasses import dataclass

from activities.disks import Disks
from activities.edge import Attempt, now, snapshot_name
from activities.snapshots import (
    REVERTED,
    TARGET_PURPOSE,
    require_off,
    snapshot_of,
    the_one,
    unmoved,
)
from failback.catalog.repository import Catalog
from failback.contracts.operations import ProtectTargetResult, RebaseTarget, RebaseTargetResult
from failback.contracts.plan import RunPlan
from failback.contracts.vm import DiskPair, VmView
from failback.errors import TargetNotRestorable, VmChanged
from failback.hypervisor.ports import Site, Sites
from failback.preflight.drift import drifts, grown


@dataclass(frozen=True)
class RebaseActivities:
    """Growth of the target under a protective snapshot of its own."""

    sites: Sites
    catalog: Catalog
    disks: Disks

    def rebase_target(self, argument: RebaseTarget, attempt: Attempt) -> RebaseTargetResult:
        """Revert the target to its protective snapshot, remove that, grow the disks, protect anew.

        No disk grows under a snapshot, and removing ours without a revert would merge what we wrote
        into the only copy of what was there before.

        Idempotent because the sizes tell how far it came: where a disk is still small our snapshot
        is the old one, and its revert is recorded before its removal is sent; where none is, a
        snapshot of our name is the new one.
        """
        plan = self._plan(argument)
        site, target, run_id = self.sites.site(plan.target.site), plan.target, argument.run.run_id
        for disk in argument.written_disks:
            self.disks.prove_writers_dead(disk, attempt)
        # Before the look: whoever powers it on after that has moved the mark.
        power_mark = site.power_mark(target)
        view = site.read([target])[0]
        require_off(view, "what it wrote is then lost")
        small = _small(view, plan.pairs)
        if small:
            self._revert(site, view, argument, attempt)
        for pair in small:
            site.grow_disk(target, pair.target_key, pair.capacity_bytes, attempt.beat)
        snapshot = None
        if argument.snapshot:
            # Where nothing was small the old one stays, with what we wrote on top of it.
            old = argument.was in {one.moref for one in view.snapshots}
            fresh = old or unmoved(power_mark, argument.power_mark)
            snapshot = snapshot_of(site, view, TARGET_PURPOSE, argument, attempt, fresh=fresh)
        # What finishes the run when its workflow is lost begins with this plan.
        self.catalog.set_run_plan(run_id, plan.model_dump_json())
        # Read again: the snapshot moved the disks to new files, and only those may be written.
        view = site.read([target])[0]
        protected = ProtectTargetResult(snapshot=snapshot, power_mark=power_mark, disks=view.disks)
        told = ", ".join(f"{pair.address} to {pair.capacity_bytes} bytes" for pair in small)
        return RebaseTargetResult(
            plan=plan,
            protected=protected,
            evidence=f"{target}: grown {told or 'before'}; snapshot {snapshot}",
        )

    def _plan(self, argument: RebaseTarget) -> RunPlan:
        plan = argument.plan
        replica = self.sites.site(plan.replica.site).read([plan.replica])[0]
        wrong = [d for d in drifts(plan, replica, argument.leave_behind) if not d.grown]
        if wrong:
            raise VmChanged(
                f"REPLICA_DRIFTED: {plan.replica}: {'; '.join(d.what for d in wrong)}.",
                "Send undo and start again.",
            )
        return grown(plan, replica)

    def _revert(self, site: Site, view: VmView, argument: RebaseTarget, attempt: Attempt) -> None:
        """Give the target its old content and no snapshot of ours."""
        target, run_id = view.identity, argument.run.run_id
        name = snapshot_name(run_id, TARGET_PURPOSE)
        if others := [one.name for one in view.snapshots if one.name != name]:
            raise VmChanged(
                f"{target} cannot grow: it has snapshots that are not ours: {', '.join(others)}.",
                "Remove them and send retry with rebase_target, or send undo.",
            )
        found = the_one(view, name)
        if found is not None:
            site.revert_to_snapshot(target, found.moref, run_id, attempt.beat)
            self.catalog.step_intent(run_id, REVERTED, found.moref, mark=name, at=now())
            site.remove_snapshot(target, name, run_id, attempt.beat)
        elif argument.was is not None and not self.catalog.has_step(run_id, REVERTED, argument.was):
            raise TargetNotRestorable(
                f"The target protective snapshot {argument.was} of {target} is gone, so its "
                "content from before the run cannot be restored.",
                "Look for it; to go on without, send undo with accept_target_not_restored.",
            )


def _small(view: VmView, pairs: tuple[DiskPair, ...]) -> list[DiskPair]:
    sizes = {disk.key: disk.capacity_bytes for disk in view.disks}
    return [pair for pair in pairs if sizes.get(pair.target_key, 0) < pair.capacity_bytes]
