"""The step lists, as data: read this file from top to bottom to know what a failback does.

A step issues one operation, for the whole VM or once per disk side by side, and adds what it learnt
to the facts. Beside it stands its compensation. Undo walks the compensations of all steps that were
*reached*, in reverse order: an operation that was issued may have been applied even though nobody
heard of it, so every compensation finds the work by its mark and tolerates that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypedDict

from failback.contracts import operations as ops
from failback.contracts.words import (
    Destination,
    GuestTimeoutPolicy,
    OldSource,
    Outcome,
    Phase,
    ReplicaState,
    StepName,
)
from workflows import operations as op
from workflows.facts import ChangeBase, Facts

PROTECTIVE_SNAPSHOT = "protective"


@dataclass(frozen=True)
class Step:
    """One row of a step list."""

    name: StepName
    title: str
    phase: Phase
    operation: op.Operation[Any, Any]
    arguments: Callable[[Facts, Step], tuple[Any, ...]]
    """One argument per call; several run side by side; none: the step is skipped."""
    learn: Callable[[Facts, tuple[Any, ...]], Facts] = lambda facts, results: facts
    undo: Step | None = None
    optional: bool = False
    """Only some runs have it: where it is skipped nothing is shown of it."""
    undo_on: Callable[[Facts, str], bool] = lambda facts, code: False
    """Whether an error of this code starts an undo instead of asking a person."""


class Head(TypedDict):
    """Fields every argument begins with."""

    run: ops.RunRef
    step: StepName
    phase: Phase
    patience: timedelta
    generation: int


def head(facts: Facts, step: Step) -> Head:
    """The common head; patience is shorter while the service is down (steps 6 to 13)."""
    if facts.plan is None:
        patience = timedelta(minutes=30)
        return Head(
            run=facts.run,
            step=step.name,
            phase=step.phase,
            patience=patience,
            generation=facts.generation,
        )
    tuning = facts.plan.tuning
    switching = step.phase in (Phase.SWITCHING, Phase.UNDOING)
    return Head(
        run=facts.run,
        step=step.name,
        phase=step.phase,
        patience=tuning.switch_patience if switching else tuning.step_patience,
        generation=facts.generation,
    )


def _difference(facts: Facts, step: Step, pass_no: int) -> tuple[ops.CalculateDifference, ...]:
    return (
        ops.CalculateDifference(
            **head(facts, step),
            pass_no=pass_no,
            replica=facts.known.replica,
            guard=facts.guard(),
            disks=facts.pass_disks(pass_no),
            blank_target=facts.request.destination is Destination.NEW,
        ),
    )


def _learn_difference(facts: Facts, results: tuple[ops.Differences, ...]) -> Facts:
    found = results[0]
    plans = facts.differences + found.plans
    return facts.model_copy(update={"differences": plans, "planned_on": found.guard})


def _transport(facts: Facts, step: Step, pass_no: int) -> tuple[ops.TransportChanges, ...]:
    """One argument per disk."""
    return tuple(
        ops.TransportChanges(
            **head(facts, step),
            plan=plan,
            source=disk.source,
            target=disk.target,
            guard=facts.guard(),
        )
        for plan, disk in facts.planned_disks(pass_no)
    )


def _verify(facts: Facts, step: Step) -> tuple[ops.Verify, ...]:
    """One argument per disk: what the final pass left must equal the protective snapshot."""
    return tuple(
        ops.Verify(
            **head(facts, step),
            plan=plan,
            source=disk.source,
            target=disk.target,
            guard=facts.guard(),
            whole_disk=facts.request.verify_whole_disk,
        )
        for plan, disk in facts.planned_disks(facts.final_pass)
    )


def _learn_cycle(facts: Facts, results: tuple[ops.TransportResult, ...]) -> Facts:
    """Every disk is complete and flushed, so the base moves to the change ids of this cycle."""
    assert facts.frozen is not None
    frozen = {disk.key: disk for disk in facts.frozen.disks}
    base = tuple(
        ChangeBase(address=str(pair.address), change_id=frozen[pair.replica_key].change_id)
        for pair in facts.known.pairs
    )
    return facts.model_copy(
        update={"transfers": facts.transfers + results, "base": base, "rebased": False}
    )


def _carry_over(
    facts: Facts, step: Step, *, back: bool = False
) -> tuple[ops.CarryOverHardware, ...]:
    """Skipped unless somebody asked for it and there is something to carry."""
    if facts.plan is None or facts.plan.carry is None:
        return ()
    return (
        ops.CarryOverHardware(
            **head(facts, step),
            target=facts.plan.target,
            carry=facts.plan.carry,
            back=back,
            reverted_next=facts.request.protect_target,
        ),
    )


def _learn_carried(facts: Facts, results: tuple[ops.CarryOverResult, ...]) -> Facts:
    """Disks that were added are pairs from here on, and written like the others."""
    added = results[0]
    if not added.pairs or facts.protected is None:
        return facts
    plan = facts.known.model_copy(update={"pairs": facts.known.pairs + added.pairs})
    protected = facts.protected.model_copy(update={"disks": added.disks})
    return facts.model_copy(update={"plan": plan, "protected": protected})


# --- compensations -------------------------------------------------------------------------------

SETTLE = Step(
    StepName.SETTLE,
    "Wait for half-done operations and prove writers dead",
    Phase.UNDOING,
    op.SETTLE,
    lambda f, s: (
        (
            ops.Settle(
                **head(f, s),
                vms=(*f.targets, f.known.replica),
                written_disks=f.target_openings(),
                attest_off=f.attested_off,
                guest_timeout=f.request.guest_timeout,
                may_force=(f.known.replica,) if f.may_restart_replica else (),
            ),
        )
        if f.plan
        else ()
    ),
)

UNDO_CLOSE = Step(
    StepName.UNDO_CLOSE,
    "Record the undo and release the claims",
    Phase.UNDOING,
    op.CLOSE_RUN,
    lambda f, s: (
        ops.CloseRun(
            **head(f, s),
            outcome=Outcome.UNDONE,
            began=f.plan is not None,
            request=f.undo,
            must_be_off=f.others if f.plan is not None else (),
            attest_off=f.attested_off,
        ),
    ),
)

UNDO_PROTECT_TARGET = Step(
    StepName.UNDO_PROTECT_TARGET,
    "Revert the target VM to its protective snapshot",
    Phase.UNDOING,
    op.RESTORE_TARGET,
    lambda f, s: (
        ops.RestoreTarget(
            **head(f, s),
            target=f.known.target,
            snapshot=f.protected.snapshot if f.protected else None,
            protected=f.request.protect_target,
            tracking_was=f.known.target_tracking,
            accept_not_restored=f.undo.accept_target_not_restored,
        ),
    ),
)

UNDO_CARRY_OVER = Step(
    StepName.UNDO_CARRY_OVER,
    "Take from the target VM what was carried over",
    Phase.UNDOING,
    op.CARRY_OVER,
    lambda f, s: _carry_over(f, s, back=True),
)

UNDO_FREEZE_REPLICA = Step(
    StepName.UNDO_FREEZE_REPLICA,
    "Remove the read snapshot of the VM replica",
    Phase.UNDOING,
    op.REMOVE_SNAPSHOT,
    lambda f, s: (
        ops.RemoveSnapshot(
            **head(f, s),
            vm=f.known.replica,
            purpose=f.read_purpose,
            restore_tracking=f.known.replica_tracking,
        ),
    ),
)

UNDO_POWER_OFF_REPLICA = Step(
    StepName.UNDO_POWER_OFF_REPLICA,
    "Power on the VM replica: service is back on DR",
    Phase.UNDOING,
    op.POWER_ON,
    lambda f, s: (
        (
            ops.PowerOn(
                **head(f, s),
                vm=f.known.replica,
                must_be_off=(*f.targets, *f.others),
                attest_off=f.attested_off,
            ),
        )
        if f.power_on_replica
        else ()
    ),
)

UNDO_PROTECT_REPLICA = Step(
    StepName.UNDO_PROTECT_REPLICA,
    "Revert the VM replica to its failback protective snapshot",
    Phase.UNDOING,
    op.RESTORE_REPLICA,
    lambda f, s: (
        ops.RestoreReplica(
            **head(f, s),
            replica=f.known.replica,
            snapshot=f.protective.snapshot if f.protective else None,
            power_mark=f.replica_power_mark,
            content=f.undo.replica_content or "",
        ),
    ),
)

UNDO_MARK_FAILBACK = Step(
    StepName.UNDO_MARK_FAILBACK,
    "Set the replica state back to FAILOVER",
    Phase.UNDOING,
    op.SET_REPLICA_STATE,
    lambda f, s: (
        ops.SetReplicaState(
            **head(f, s),
            to=ReplicaState.FAILOVER,
            allowed_from=(
                ReplicaState.FAILBACK,
                ReplicaState.READY_TO_SWITCH,
                ReplicaState.FAILOVER,
            ),
        ),
    ),
)

UNDO_READY_TO_SWITCH = replace(
    UNDO_MARK_FAILBACK,
    name=StepName.UNDO_READY_TO_SWITCH,
    title="Set the replica state back to FAILOVER: no switch",
)

UNDO_POWER_ON_TARGET = Step(
    StepName.UNDO_POWER_ON_TARGET,
    "Power off the target VM",
    Phase.UNDOING,
    op.POWER_OFF,
    lambda f, s: (
        ops.PowerOff(
            **head(f, s),
            vm=f.known.target,
            guest_timeout=f.request.guest_timeout,
            # Its content is reverted next, so a shutdown would only prolong the downtime.
            hard=f.request.protect_target or f.request.destination is Destination.NEW,
            accept_suspended=True,
            attest_off=f.attested_off,
        ),
    ),
)

# --- original: the source VM where it was --------------------------------------------------------

PREFLIGHT = Step(
    StepName.PREFLIGHT,
    "Check everything, claim the VMs",
    Phase.PREFLIGHT,
    op.PREFLIGHT,
    lambda f, s: (ops.Preflight(**head(f, s), request=f.request),),
    lambda f, r: f.model_copy(update={"findings": r[0].findings, "plan": r[0].plan}),
    undo=UNDO_CLOSE,
)

FREEZE_REPLICA = Step(
    StepName.FREEZE_REPLICA,
    "Freeze the VM replica's disks in a read snapshot",
    Phase.SYNCING,
    op.SNAPSHOT_REPLICA,
    lambda f, s: (
        ops.SnapshotReplica(
            **head(f, s),
            replica=f.known.replica,
            purpose=f.read_purpose,
            enable_tracking=f.request.enable_tracking,
        ),
    ),
    lambda f, r: f.model_copy(update={"frozen": r[0]}),
    undo=UNDO_FREEZE_REPLICA,
)

CALCULATE_DIFFERENCE = Step(
    StepName.CALCULATE_DIFFERENCE,
    "Calculate the difference, pass 1",
    Phase.SYNCING,
    op.CALCULATE_DIFFERENCE,
    lambda f, s: _difference(f, s, 1),
    _learn_difference,
)

TRANSPORT_CHANGES = Step(
    StepName.TRANSPORT_CHANGES,
    "Transport the changes, pass 1 (the replica serves)",
    Phase.SYNCING,
    op.TRANSPORT_CHANGES,
    lambda f, s: _transport(f, s, 1),
    _learn_cycle,
)

UNFREEZE_REPLICA = Step(
    StepName.UNFREEZE_REPLICA,
    "Remove the read snapshot while the replica serves",
    Phase.SYNCING,
    op.REMOVE_SNAPSHOT,
    lambda f, s: (ops.RemoveSnapshot(**head(f, s), vm=f.known.replica, purpose=f.read_purpose),),
)

CHECK_DRIFT = Step(
    StepName.CHECK_DRIFT,
    "Check that both VMs are still what was planned",
    Phase.SYNCING,
    op.CHECK_DRIFT,
    lambda f, s: (
        ops.CheckDrift(
            **head(f, s),
            plan=f.known,
            guard=f.guard(),
            leave_behind=f.request.leave_behind,
            made=f.known.target if f.request.destination is Destination.NEW else None,
        ),
    ),
)

# --- the gate: while the switch is not due, further cycles keep the difference small --------------

READY_TO_SWITCH = Step(
    StepName.READY_TO_SWITCH,
    "Ready to switch: the replica serves, cycles keep the difference small",
    Phase.READY_TO_SWITCH,
    op.SET_REPLICA_STATE,
    lambda f, s: (
        ops.SetReplicaState(
            **head(f, s),
            to=ReplicaState.READY_TO_SWITCH,
            allowed_from=(ReplicaState.FAILOVER,),
        ),
    ),
    undo=UNDO_READY_TO_SWITCH,
)

RESYNC: tuple[Step, ...] = (
    replace(CHECK_DRIFT, phase=Phase.READY_TO_SWITCH),
    replace(
        FREEZE_REPLICA,
        name=StepName.RESYNC_FREEZE,
        title="Re-sync: freeze the VM replica's disks in a read snapshot",
        phase=Phase.READY_TO_SWITCH,
        undo=None,
    ),
    replace(
        CALCULATE_DIFFERENCE,
        name=StepName.RESYNC_CALCULATE,
        title="Re-sync: calculate the difference",
        phase=Phase.READY_TO_SWITCH,
        arguments=lambda f, s: _difference(f, s, f.cycle),
    ),
    replace(
        TRANSPORT_CHANGES,
        name=StepName.RESYNC_TRANSPORT,
        title="Re-sync: transport the changes (the replica serves)",
        phase=Phase.READY_TO_SWITCH,
        arguments=lambda f, s: _transport(f, s, f.cycle),
    ),
    replace(
        UNFREEZE_REPLICA,
        name=StepName.RESYNC_UNFREEZE,
        title="Re-sync: remove the read snapshot while the replica serves",
        phase=Phase.READY_TO_SWITCH,
    ),
)
"""One cycle. The compensation of `freeze_replica` removes the read snapshot of the newest one."""

POWER_OFF_TARGET = Step(
    StepName.POWER_OFF_TARGET,
    "Power off the target VM",
    Phase.SYNCING,
    op.POWER_OFF,
    lambda f, s: (
        ops.PowerOff(
            **head(f, s),
            vm=f.known.target,
            guest_timeout=f.request.guest_timeout,
            on_guest_timeout=f.request.on_guest_timeout,
            accept_suspended=f.request.accept_suspended,
        ),
    ),
    lambda f, r: f.model_copy(update={"target_off": r[0]}),
    undo_on=lambda f, code: (
        code == "GuestShutdownTimeout" and f.request.on_guest_timeout is GuestTimeoutPolicy.UNDO
    ),
)

PROTECT_TARGET = Step(
    StepName.PROTECT_TARGET,
    "Protect the target VM: tracking off, snapshot, mark",
    Phase.SYNCING,
    op.PROTECT_TARGET,
    lambda f, s: (
        ops.ProtectTarget(
            **head(f, s),
            target=f.known.target,
            pairs=f.known.pairs,
            snapshot=f.request.protect_target,
            power_mark=f.target_off.power_mark if f.target_off else None,
        ),
    ),
    lambda f, r: f.model_copy(update={"protected": r[0]}),
    undo=UNDO_PROTECT_TARGET,
)

CARRY_OVER = Step(
    StepName.CARRY_OVER,
    "Carry over what was added to the VM replica",
    Phase.SYNCING,
    op.CARRY_OVER,
    _carry_over,
    _learn_carried,
    undo=UNDO_CARRY_OVER,
    optional=True,
)

# --- the replica's disks have grown, and a person wants the target to follow ----------------------

REBASE_TARGET = Step(
    StepName.REBASE_TARGET,
    "Revert the target VM, grow its disks and protect it anew",
    Phase.SYNCING,
    op.REBASE_TARGET,
    lambda f, s: (
        ops.RebaseTarget(
            **head(f, s),
            plan=f.known,
            was=f.protected.snapshot if f.protected else None,
            written_disks=f.target_openings(),
            snapshot=f.snapshots_target,
            leave_behind=f.request.leave_behind,
            power_mark=f.guard().power_mark,
        ),
    ),
    lambda f, r: f.model_copy(
        update={
            "plan": r[0].plan,
            "protected": r[0].protected,
            "planned_on": None,
            "base": (),
            "rebased": True,
        }
    ),
)

REBASE: tuple[Step, ...] = (
    replace(
        UNDO_CARRY_OVER,
        name=StepName.REBASE_CARRY_BACK,
        title="Take from the target VM what was carried over, before it is reverted",
        phase=Phase.SYNCING,
        optional=True,
    ),
    REBASE_TARGET,
    replace(
        CARRY_OVER,
        name=StepName.REBASE_CARRY_OVER,
        title="Carry over again what was added to the VM replica",
        phase=Phase.SYNCING,
        undo=None,
        optional=True,
    ),
)
"""Walked in the phase the run is in; undo finds its work through the steps before."""

POWER_OFF_REPLICA = Step(
    StepName.POWER_OFF_REPLICA,
    "Power off the VM replica: downtime begins",
    Phase.SWITCHING,
    op.POWER_OFF,
    lambda f, s: (
        ops.PowerOff(
            **head(f, s),
            vm=f.known.replica,
            guest_timeout=f.request.guest_timeout,
            on_guest_timeout=f.request.on_guest_timeout,
            accept_suspended=f.request.accept_suspended,
        ),
    ),
    lambda f, r: f.model_copy(update={"replica_off": r[0]}),
    undo=UNDO_POWER_OFF_REPLICA,
    undo_on=lambda f, code: (
        code == "GuestShutdownTimeout" and f.request.on_guest_timeout is GuestTimeoutPolicy.UNDO
    ),
)

PROTECT_REPLICA = Step(
    StepName.PROTECT_REPLICA,
    "Failback protective snapshot of the VM replica",
    Phase.SWITCHING,
    op.SNAPSHOT_REPLICA,
    lambda f, s: (
        ops.SnapshotReplica(
            **head(f, s),
            replica=f.known.replica,
            purpose=PROTECTIVE_SNAPSHOT,
            power_mark=f.replica_off.power_mark if f.replica_off else None,
        ),
    ),
    lambda f, r: f.model_copy(update={"protective": r[0]}),
    undo=UNDO_PROTECT_REPLICA,
)

CALCULATE_DIFFERENCE_2 = Step(
    StepName.CALCULATE_DIFFERENCE_2,
    "Calculate the difference, pass 2",
    Phase.SWITCHING,
    op.CALCULATE_DIFFERENCE,
    lambda f, s: _difference(f, s, f.final_pass),
    _learn_difference,
)

TRANSPORT_CHANGES_2 = Step(
    StepName.TRANSPORT_CHANGES_2,
    "Transport the changes, pass 2",
    Phase.SWITCHING,
    op.TRANSPORT_CHANGES,
    lambda f, s: _transport(f, s, f.final_pass),
    lambda f, r: f.model_copy(update={"transfers": f.transfers + r}),
)

VERIFY = Step(
    StepName.VERIFY,
    "Verify both sides by digest",
    Phase.SWITCHING,
    op.VERIFY,
    _verify,
    lambda f, r: f.model_copy(update={"verified": r}),
)

MARK_FAILBACK = Step(
    StepName.MARK_FAILBACK,
    "Set the replica state to FAILBACK",
    Phase.SWITCHING,
    op.SET_REPLICA_STATE,
    lambda f, s: (
        ops.SetReplicaState(
            **head(f, s),
            to=ReplicaState.FAILBACK,
            allowed_from=(ReplicaState.FAILOVER, ReplicaState.READY_TO_SWITCH),
            verified_target=f.known.target,
        ),
    ),
    undo=UNDO_MARK_FAILBACK,
)

POWER_ON_TARGET = Step(
    StepName.POWER_ON_TARGET,
    "Power on the target VM: downtime ends",
    Phase.SWITCHING,
    op.POWER_ON,
    lambda f, s: (
        (
            ops.PowerOn(
                **head(f, s),
                vm=f.known.target,
                must_be_off=(f.known.replica, *f.others),
                attest_off=f.attested_off,
                written_disks=f.target_openings(),
                unused=f.replica_unused,
            ),
        )
        if f.request.power_on_target
        else ()
    ),
    lambda f, r: f.model_copy(update={"target_on_at": r[0].at}),
    undo=UNDO_POWER_ON_TARGET,
)

# --- recovered and new: another VM takes the place of the old source VM --------------------------

POWER_OFF_SOURCE = Step(
    StepName.POWER_OFF_SOURCE,
    "Power off the old source VM",
    Phase.SYNCING,
    op.POWER_OFF,
    lambda f, s: tuple(
        ops.PowerOff(
            **head(f, s),
            vm=vm,
            guest_timeout=f.request.guest_timeout,
            on_guest_timeout=f.request.on_guest_timeout,
            accept_suspended=f.request.accept_suspended,
            attest_off=f.attested_off,
            # Preflight may not have been able to ask, and somebody may have started it since.
            only_look=f.request.old_source is OldSource.REFUSE,
        )
        for vm in f.others
    ),
)

UNDO_REPLACE_SOURCE = Step(
    StepName.UNDO_REPLACE_SOURCE,
    "Give the replica its old source VM back",
    Phase.UNDOING,
    op.REPLACE_SOURCE,
    lambda f, s: tuple(
        ops.ReplaceSource(**head(f, s), old=f.known.target, new=vm)
        for vm in (f.known.old_source,)
        if vm is not None
    ),
)

REPLACE_SOURCE = Step(
    StepName.REPLACE_SOURCE,
    "Make the recovered VM the replica's source VM",
    Phase.SWITCHING,
    op.REPLACE_SOURCE,
    lambda f, s: tuple(
        ops.ReplaceSource(**head(f, s), old=vm, new=f.known.target)
        for vm in (f.known.old_source,)
        if vm is not None
    ),
    undo=UNDO_REPLACE_SOURCE,
)


def _learn_target(facts: Facts, results: tuple[ops.CreateTargetResult, ...]) -> Facts:
    made = results[0]
    plan = facts.known.model_copy(update={"target": made.target, "pairs": made.pairs})
    protected = ops.ProtectTargetResult(power_mark=made.power_mark, disks=made.disks)
    update = {"plan": plan, "protected": protected, "unconnected": made.unconnected}
    return facts.model_copy(update=update)


UNDO_CREATE_TARGET = Step(
    StepName.UNDO_CREATE_TARGET,
    "Delete the VM that this run made",
    Phase.UNDOING,
    op.DELETE_TARGET,
    lambda f, s: (
        ops.DeleteTarget(
            **head(f, s),
            site=f.known.target.site,
            target=f.known.target if f.known.target_exists else None,
            replica=f.known.replica,
            request=f.request,
            plan=f.known,
            files=tuple(disk.file for disk in f.protected.disks) if f.protected else (),
            attest_off=f.attested_off,
            accept_not_restored=f.undo.accept_target_not_restored,
        ),
    ),
)

CREATE_TARGET = Step(
    StepName.CREATE_TARGET,
    "Make the target VM: empty disks, no network, temporary name",
    Phase.SYNCING,
    op.CREATE_TARGET,
    lambda f, s: (
        ops.CreateTarget(**head(f, s), replica=f.known.replica, request=f.request, plan=f.known),
    ),
    _learn_target,
    undo=UNDO_CREATE_TARGET,
)

COPY_CONFIGURATION = Step(
    StepName.COPY_CONFIGURATION,
    "Copy NVRAM and configuration",
    Phase.SWITCHING,
    op.COPY_CONFIGURATION,
    lambda f, s: (
        ops.CopyConfiguration(
            **head(f, s), replica=f.known.replica, target=f.known.target, request=f.request
        ),
    ),
)

UNDO_REGISTER_TARGET = Step(
    StepName.UNDO_REGISTER_TARGET,
    "Take the final name and the network from the target VM",
    Phase.UNDOING,
    op.REGISTER_TARGET,
    lambda f, s: tuple(
        ops.RegisterTarget(
            **head(f, s),
            target=vm,
            request=f.request,
            final_name=f.known.final_name,
            back=True,
            attest_off=f.attested_off,
        )
        for vm in f.targets
    ),
)

REGISTER_TARGET = Step(
    StepName.REGISTER_TARGET,
    "Give the target VM its final name and connect its network",
    Phase.SWITCHING,
    op.REGISTER_TARGET,
    lambda f, s: (
        ops.RegisterTarget(
            **head(f, s),
            target=f.known.target,
            request=f.request,
            final_name=f.known.final_name,
            unconnected=f.unconnected,
        ),
    ),
    undo=UNDO_REGISTER_TARGET,
)

# --- the lists -----------------------------------------------------------------------------------

_PASS_1 = (FREEZE_REPLICA, CALCULATE_DIFFERENCE, TRANSPORT_CHANGES, UNFREEZE_REPLICA)
_PASS_2 = (POWER_OFF_REPLICA, PROTECT_REPLICA, CALCULATE_DIFFERENCE_2, TRANSPORT_CHANGES_2)

ORIGINAL: tuple[Step, ...] = (
    POWER_OFF_TARGET,
    PROTECT_TARGET,
    CARRY_OVER,
    FREEZE_REPLICA,
    CALCULATE_DIFFERENCE,
    TRANSPORT_CHANGES,
    UNFREEZE_REPLICA,
    CHECK_DRIFT,
    POWER_OFF_REPLICA,
    PROTECT_REPLICA,
    CALCULATE_DIFFERENCE_2,
    TRANSPORT_CHANGES_2,
    VERIFY,
    MARK_FAILBACK,
    POWER_ON_TARGET,
)

RECOVERED: tuple[Step, ...] = (
    POWER_OFF_SOURCE,
    POWER_OFF_TARGET,
    PROTECT_TARGET,
    CARRY_OVER,
    *_PASS_1,
    CHECK_DRIFT,
    *_PASS_2,
    VERIFY,
    MARK_FAILBACK,
    REPLACE_SOURCE,
    POWER_ON_TARGET,
)

NEW: tuple[Step, ...] = (
    POWER_OFF_SOURCE,
    CREATE_TARGET,
    *_PASS_1,
    CHECK_DRIFT,
    *_PASS_2,
    COPY_CONFIGURATION,
    VERIFY,
    MARK_FAILBACK,
    REGISTER_TARGET,
    POWER_ON_TARGET,
)

LISTS: dict[Destination, tuple[Step, ...]] = {
    Destination.ORIGINAL: ORIGINAL,
    Destination.RECOVERED: RECOVERED,
    Destination.NEW: NEW,
}
"""What each destination walks after preflight; the gate stands before CHECK_DRIFT."""


def before_gate(destination: Destination) -> tuple[Step, ...]:
    """The steps up to the gate: pass 1, while the replica serves."""
    steps = LISTS[destination]
    return steps[: steps.index(CHECK_DRIFT)]


def after_gate(destination: Destination) -> tuple[Step, ...]:
    """The steps from the gate on, the check before the switch first."""
    steps = LISTS[destination]
    return steps[steps.index(CHECK_DRIFT) :]


def rest_of_switch(facts: Facts, finished: Collection[StepName]) -> tuple[Step, ...]:
    """What a run that has set FAILBACK still has to do before production serves as it was asked to:
    a commit without it would leave a VM that is off, without its name, or not the source VM."""
    steps = after_gate(facts.request.destination)
    rest = steps[steps.index(MARK_FAILBACK) :]
    return tuple(s for s in rest if s.name not in finished and s.arguments(facts, s))


LIMITS = "Write the limits for the movers"

AWAIT_DECISION = Step(
    StepName.AWAIT_DECISION,
    "Await the decision: commit or undo",
    Phase.AWAITING_DECISION,
    op.WATCH_DECISION,
    lambda f, s: (
        ops.WatchDecision(
            **head(f, s),
            must_be_off=(f.known.replica, *f.others),
            target=f.known.target,
            probes=f.finalizing.probes,
            probes_count_from=(
                f.target_on_at + f.finalizing.boot_grace if f.target_on_at else None
            ),
            attest_off=f.attested_off,
        ),
    ),
)

COMMIT = Step(
    StepName.COMMIT,
    "Commit: replica READY, protective snapshot becomes a restore point",
    Phase.COMMITTING,
    op.CLOSE_RUN,
    lambda f, s: (
        ops.CloseRun(
            **head(f, s),
            outcome=Outcome.COMMITTED,
            request=f.commit,
            protective_snapshot=f.protective.snapshot if f.protective else None,
            replica=f.known.replica,
            target=f.known.target,
            old_source=f.known.old_source,
            final_name=f.known.final_name,
            must_be_off=f.others,
            power_known=f.targets,
            attest_off=f.attested_off,
        ),
    ),
)


def undo_list(reached: list[StepName], destination: Destination) -> tuple[Step, ...]:
    """What undo does when these steps were reached: settle, then reversed compensations."""
    done = set(reached)
    forward = (
        PREFLIGHT,
        *before_gate(destination),
        READY_TO_SWITCH,
        *after_gate(destination),
    )
    back = tuple(s.undo for s in reversed(forward) if s.undo is not None and s.name in done)
    return (SETTLE, *back)
