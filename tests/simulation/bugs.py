"""Deliberate bugs, each of them a shipped class with one thing wrong, put in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from activities.catalog import CatalogActivities
from activities.edge import Attempt, bind
from activities.power import PowerActivities
from activities.registry import Rooms
from activities.snapshots import SnapshotActivities, the_one
from failback.contracts.operations import (
    CloseRun,
    Done,
    PowerOn,
    RemoveSnapshot,
    RestoreReplica,
    Settle,
)
from failback.contracts.vm import VmView
from failback.contracts.words import Phase, StepName
from failback.disks import copier
from tests.simulation.run import Bugs
from workflows import operations as op

Swap = Callable[[Rooms], Any]


class HastyCopy(copier._Copy):
    """Segments are in the journal before their bytes are flushed."""

    def _flush(self) -> None:
        self._ledger.commit([segment.record() for segment in self._settled])
        super()._flush()


class Careless(SnapshotActivities):
    """Takes the replica's word for nothing having happened."""

    def _used_since(self, argument: RestoreReplica, view: VmView, mark: str | None) -> str:
        return ""


class Impatient(SnapshotActivities):
    """Waits for no site."""

    def settle(self, argument: Settle, attempt: Attempt) -> Done:
        for disk in argument.written_disks:
            self.disks.prove_writers_dead(disk, attempt)
        return Done(evidence="nobody was asked")


class Reverting(SnapshotActivities):
    """Takes the replica back to where it was read."""

    def remove_snapshot(self, argument: RemoveSnapshot, attempt: Attempt) -> Done:
        if argument.phase is Phase.UNDOING:
            site, vm = self.sites.site(argument.vm.site), argument.vm
            found = the_one(
                site.read([vm])[0], f"failback/{argument.run.run_id}/{argument.purpose}"
            )
            if found is not None:
                site.revert_to_snapshot(vm, found.moref, argument.run.run_id, attempt.beat)
        return super().remove_snapshot(argument, attempt)


class Blind(PowerActivities):
    """Powers on without looking at the others."""

    def _prove_off(self, argument: PowerOn, attempt: Attempt) -> None:
        """Everything will be off."""

    def _used(self, argument: PowerOn) -> str:
        """And was: the record of power-ons would tell of another copy too."""
        return ""


class Forgetting(CatalogActivities):
    """Leaves no restore point."""

    def close_run(self, argument: CloseRun, attempt: Attempt) -> Done:
        return super().close_run(argument.model_copy(update={"protective_snapshot": None}), attempt)


def snapshots(kind: type[SnapshotActivities], *operations: str) -> Swap:
    """Snapshot operations of another class."""

    def swap(rooms: Rooms) -> list[Any]:
        made = kind(rooms.sites, rooms.catalog, rooms.disks)
        known: dict[str, op.Operation[Any, Any]] = {
            "settle": op.SETTLE,
            "restore_replica": op.RESTORE_REPLICA,
            "remove_snapshot": op.REMOVE_SNAPSHOT,
        }
        return [bind(known[name], getattr(made, name), rooms.catalog) for name in operations]

    return swap


def blind(rooms: Rooms) -> list[Any]:
    """Power-on without the split-brain check."""
    made = Blind(rooms.sites, rooms.catalog, rooms.disks, rooms.sleep, rooms.wall)
    return [bind(op.POWER_ON, made.power_on, rooms.catalog)]


def forgetting(rooms: Rooms) -> list[Any]:
    """A commit without restore point."""
    made = Forgetting(rooms.sites, rooms.catalog, rooms.ledger_retention)
    return [bind(op.CLOSE_RUN, made.close_run, rooms.catalog, recorded=False)]


@dataclass(frozen=True)
class Case:
    """A bug, and the seeds among which one must notice it."""

    name: str
    bugs: Bugs
    known: tuple[int, ...] = ()
    """Seeds that have noticed it; a change of the schedule moves them."""
    most: int = 200

    @property
    def seeds(self) -> tuple[int, ...]:
        """The known ones first, so that the test is quick."""
        return (*self.known, *range(1, self.most + 1))


CASES = (
    Case("journal-before-flush", Bugs(), (4, 8)),
    Case("exporters-not-killed", Bugs(no_fence=True), (5, 57)),
    Case("beat-without-lease", Bugs(no_leases=True), (2, 3)),
    Case("target-not-restored", Bugs(skipped=StepName.UNDO_PROTECT_TARGET), (2, 3)),
    Case("read-snapshot-left", Bugs(skipped=StepName.UNDO_FREEZE_REPLICA), (2, 3)),
    Case("replica-left-off", Bugs(skipped=StepName.UNDO_POWER_OFF_REPLICA), (2, 3)),
    Case("replica-not-reverted", Bugs(skipped=StepName.UNDO_PROTECT_REPLICA), (2, 3)),
    Case("made-vm-left", Bugs(skipped=StepName.UNDO_CREATE_TARGET), (8, 12)),
    Case("target-left-on", Bugs(skipped=StepName.UNDO_POWER_ON_TARGET), (2, 6)),
    Case("swap-not-reversed", Bugs(skipped=StepName.UNDO_REPLACE_SOURCE), (35, 48)),
    Case("marks-not-looked-for", Bugs(no_marks=True), (2, 3)),
    Case(
        "replica-back-to-read-snapshot",
        Bugs(swapped=snapshots(Reverting, "remove_snapshot")),
        (12, 14),
    ),
    Case("no-restore-point", Bugs(swapped=forgetting), (1, 4)),
    Case("power-on-unseen", Bugs(swapped=blind), (12, 48)),
    Case("settle-asks-nobody", Bugs(swapped=snapshots(Impatient, "settle")), (13, 88)),
    Case("used-replica-reverted", Bugs(swapped=snapshots(Careless, "restore_replica")), (18, 114)),
    Case("no-pass-2", Bugs(skipped=StepName.TRANSPORT_CHANGES_2), (1, 2)),
    Case("no-verify", Bugs(skipped=StepName.VERIFY), (15, 39)),
)
