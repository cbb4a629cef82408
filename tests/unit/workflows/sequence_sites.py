"""Two sites and a catalog of a few words, which say what no order of operations may do.

They know nothing of steps and phases: only what was powered on, snapshot, written and closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from failback.contracts import operations as ops
from failback.contracts.start import StartRequest
from failback.contracts.words import Destination, Outcome, ReplicaState
from tests.unit.workflows.fake_runtime import OLD_SOURCE, PLAN, plan_for

AFTER_CLOSE = ("close_run", "set_limits", "run_hook")


class Wrong(AssertionError):
    """Something that must never happen."""


@dataclass
class Sites:
    """What is the case, changed by every operation that is applied."""

    request: StartRequest
    run_id: str
    on: dict[str, bool] = field(init=False)
    """Power of the replica, the target and the old source VM, by moref."""
    shut: bool = False
    """The replica's power-off was asked for by this run, and answered."""
    target: bool = field(init=False)
    """Whether the target VM exists."""
    snapshots: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)
    """Every name of a snapshot that this run has asked for."""
    protected: bool = False
    verified: set[str] = field(default_factory=set)
    state: ReplicaState = ReplicaState.FAILOVER
    source: str = OLD_SOURCE.moref
    registered: bool = False
    closed: Outcome | None = None

    def __post_init__(self) -> None:
        known = plan_for(self.request)
        self.replica, self.place = known.replica.moref, PLAN.target.moref
        self.target = known.target_exists
        self.on = {self.replica: True, self.place: self.target}
        if known.old_source is not None:
            self.on[known.old_source.moref] = True

    # --- what may be asked ---

    def asked(self, name: str, argument: Any) -> None:
        """An operation is issued: nobody knows whether it will be applied. Wrong if it may not."""
        if getattr(argument, "run", None) is not None and argument.run.run_id != self.run_id:
            raise Wrong(f"{name} is issued for another run: {argument.run}")
        if self.closed is not None and name not in AFTER_CLOSE:
            raise Wrong(f"{name} is issued after the run was closed as {self.closed}")
        match argument:
            case ops.PowerOn():
                self._power_on(argument)
            case ops.PowerOff() if argument.vm.moref not in self.on:
                raise Wrong(f"a VM that is not ours to power off: {argument.vm}")
            case ops.SnapshotReplica():
                self.ours.add(f"snapshot-{argument.purpose}")
            case ops.RemoveSnapshot() if not self._may_be_ours(argument.purpose):
                raise Wrong(f"a snapshot is removed that this run never made: {argument.purpose}")
            case ops.RestoreReplica() if argument.snapshot not in {None, *self.ours}:
                raise Wrong(f"the replica is reverted to a foreign snapshot: {argument.snapshot}")
            case ops.RestoreReplica() if self.on[self.place]:
                raise Wrong("the replica is reverted while the target runs")
            case ops.RestoreTarget() if argument.snapshot not in {None, *self.ours}:
                raise Wrong(f"the target is reverted to a foreign snapshot: {argument.snapshot}")
            case ops.DeleteTarget() if self.request.destination is not Destination.NEW:
                raise Wrong("a target VM is deleted that this run did not make")
            case ops.TransportChanges() | ops.CalculateDifference():
                self._write(name)
            case ops.SetReplicaState() if argument.to is ReplicaState.FAILBACK and not self.shut:
                raise Wrong("FAILBACK is marked before the replica was powered off")
            case ops.CloseRun() if self.closed not in (None, argument.outcome):
                raise Wrong(f"the run is closed as {argument.outcome} after {self.closed}")
            case _:
                pass

    def _may_be_ours(self, purpose: str) -> bool:
        """A read snapshot of this run, or of the cycle that was to begin next."""
        reads = sum(name.startswith("snapshot-read-") for name in self.ours)
        return purpose in {f"read-{number + 1}" for number in range(reads + 1)}

    def _power_on(self, argument: ops.PowerOn) -> None:
        others = {one.moref for one in argument.must_be_off}
        must = {moref for moref in self.on if moref != argument.vm.moref}
        if not self.target:
            must.discard(self.place)
        if others != must:
            raise Wrong(f"power-on of {argument.vm.name} looks at {others}, not at {must}")
        running = [moref for moref in must if self.on[moref]]
        if running:
            raise Wrong(f"power-on of {argument.vm.name} is issued while {running} runs")
        if argument.vm.moref == self.place:
            if not self.shut:
                raise Wrong("the target is powered on before the replica was powered off")
            if len(self.verified) != len(PLAN.pairs) or self.state is not ReplicaState.FAILBACK:
                raise Wrong("the target is powered on before it was verified and marked")

    def _write(self, name: str) -> None:
        if self.on[self.place] or not self.protected:
            raise Wrong(f"{name} while the target runs, or before it is ours")

    # --- what happens ---

    def applied(self, name: str, argument: Any) -> None:
        """The operation has its effect."""
        match argument:
            case ops.PowerOff():
                self.on[argument.vm.moref] = False
            case ops.PowerOn():
                self.on[argument.vm.moref] = True
                if sum(self.on.values()) > 1:
                    raise Wrong(f"split brain: {self.on}")
            case ops.SnapshotReplica():
                self.snapshots.add(f"snapshot-{argument.purpose}")
            case ops.RemoveSnapshot():
                self.snapshots.discard(f"snapshot-{argument.purpose}")
            case ops.RestoreReplica():
                self.snapshots.discard("snapshot-protective")
            case ops.ProtectTarget():
                self._protect("snapshot-1", argument.snapshot)
            case ops.RebaseTarget():
                self.snapshots.discard("snapshot-1")
                self._protect("snapshot-2", argument.snapshot)
            case ops.RestoreTarget():
                self.snapshots -= {"snapshot-1", "snapshot-2"}
                self.protected = False
            case ops.CreateTarget():
                self.target = self.protected = True
            case ops.DeleteTarget():
                self.target = self.protected = self.on[self.place] = False
            case ops.Verify():
                self.verified.add(argument.plan.address)
            case ops.SetReplicaState():
                self.state = argument.to
            case ops.ReplaceSource():
                self.source = argument.new.moref
            case ops.RegisterTarget():
                self.registered = not argument.back
            case ops.CloseRun():
                self.closed = argument.outcome
            case _:
                pass

    def _protect(self, name: str, snapshot: bool) -> None:
        self.protected = True
        if snapshot:
            self.snapshots.add(name)
            self.ours.add(name)

    def answered(self, argument: Any) -> None:
        """The run was told that the operation succeeded."""
        if isinstance(argument, ops.PowerOff) and argument.vm.moref == self.replica:
            self.shut = True

    # --- what must be in the end ---

    def ended(self, outcome: Outcome, replica_on: bool) -> None:
        """Nothing is left over and nothing is missing. Wrong.

        Args:
            replica_on: whether undo was to power the replica on, had it been powered off.
        """
        found = (self.on[self.replica], self.on[self.place], self.snapshots, self.state)
        match outcome:
            case Outcome.COMMITTED:
                # The target's own snapshot is the cleanup's.
                left = self.snapshots - {"snapshot-1", "snapshot-2"}
                good = not found[0] and left == {"snapshot-protective"}
                good = good and found[1] == self.request.power_on_target
                good = good and self.closed is outcome
            case Outcome.UNDONE:
                good = found[2:] == (set(), ReplicaState.FAILOVER) and not self.registered
                good = good and self.source == OLD_SOURCE.moref and not self.protected
                good = good and (found[0] == replica_on or not self.shut)
                if self.request.destination is Destination.NEW:
                    good = good and not self.target
                good = good and self.closed in (outcome, None)
            case Outcome.REFUSED:
                good = self.closed is None and not self.ours and found[0]
        if not good:
            raise Wrong(f"{outcome} left {self}")
