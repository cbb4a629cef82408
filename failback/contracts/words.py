"""The vocabulary: every closed set of words that crosses the wire or is stored."""

from __future__ import annotations

from enum import StrEnum


class ReplicaState(StrEnum):
    """Persistent state of a replica in the catalog."""

    READY = "READY"
    FAILOVER = "FAILOVER"
    READY_TO_SWITCH = "READY_TO_SWITCH"
    FAILBACK = "FAILBACK"


class Phase(StrEnum):
    """Where a run is."""

    PREFLIGHT = "PREFLIGHT"
    SYNCING = "SYNCING"
    READY_TO_SWITCH = "READY_TO_SWITCH"
    SWITCHING = "SWITCHING"
    AWAITING_DECISION = "AWAITING_DECISION"
    COMMITTING = "COMMITTING"
    UNDOING = "UNDOING"
    NEEDS_OPERATOR = "NEEDS_OPERATOR"
    CLOSED = "CLOSED"


class Outcome(StrEnum):
    """How a run ended."""

    COMMITTED = "COMMITTED"
    UNDONE = "UNDONE"
    REFUSED = "REFUSED"


class Destination(StrEnum):
    """Where the work goes back to."""

    ORIGINAL = "original"
    """The source VM where it was."""
    RECOVERED = "recovered"
    """A VM that was restored elsewhere already and takes the source VM's place."""
    NEW = "new"
    """A VM that failback makes from the replica."""


class StepName(StrEnum):
    """Names of the steps, as stored in the catalog and shown in status."""

    PREFLIGHT = "preflight"
    POWER_OFF_SOURCE = "power_off_source"
    POWER_OFF_TARGET = "power_off_target"
    CREATE_TARGET = "create_target"
    PROTECT_TARGET = "protect_target"
    CARRY_OVER = "carry_over"
    FREEZE_REPLICA = "freeze_replica"
    CALCULATE_DIFFERENCE = "calculate_difference"
    TRANSPORT_CHANGES = "transport_changes"
    UNFREEZE_REPLICA = "unfreeze_replica"
    CHECK_DRIFT = "check_drift"
    REBASE_CARRY_BACK = "rebase_carry_back"
    REBASE_TARGET = "rebase_target"
    REBASE_CARRY_OVER = "rebase_carry_over"
    READY_TO_SWITCH = "ready_to_switch"
    RESYNC_FREEZE = "resync_freeze"
    RESYNC_CALCULATE = "resync_calculate"
    RESYNC_TRANSPORT = "resync_transport"
    RESYNC_UNFREEZE = "resync_unfreeze"
    POWER_OFF_REPLICA = "power_off_replica"
    PROTECT_REPLICA = "protect_replica"
    CALCULATE_DIFFERENCE_2 = "calculate_difference_2"
    TRANSPORT_CHANGES_2 = "transport_changes_2"
    VERIFY = "verify"
    COPY_CONFIGURATION = "copy_configuration"
    MARK_FAILBACK = "mark_failback"
    REPLACE_SOURCE = "replace_source"
    REGISTER_TARGET = "register_target"
    POWER_ON_TARGET = "power_on_target"
    AWAIT_DECISION = "await_decision"
    COMMIT = "commit"
    SETTLE = "settle"
    UNDO_POWER_ON_TARGET = "undo_power_on_target"
    UNDO_REGISTER_TARGET = "undo_register_target"
    UNDO_REPLACE_SOURCE = "undo_replace_source"
    UNDO_MARK_FAILBACK = "undo_mark_failback"
    UNDO_PROTECT_REPLICA = "undo_protect_replica"
    UNDO_POWER_OFF_REPLICA = "undo_power_off_replica"
    UNDO_FREEZE_REPLICA = "undo_freeze_replica"
    UNDO_READY_TO_SWITCH = "undo_ready_to_switch"
    UNDO_CARRY_OVER = "undo_carry_over"
    UNDO_PROTECT_TARGET = "undo_protect_target"
    UNDO_CREATE_TARGET = "undo_create_target"
    UNDO_CLOSE = "undo_close"
    CLEAN_TARGET = "clean_target"
    RESTORE_TRACKING = "restore_tracking"
    HOOK = "hook"
    ADJUST = "adjust"


class RequestKind(StrEnum):
    """What people may ask of a running failback: signals and updates of these names."""

    COMMIT = "commit"
    UNDO = "undo"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    SWITCH_OVER = "switch_over"
    RESCHEDULE = "reschedule"
    ADJUST = "adjust"
    APPROVE = "approve"


class PowerState(StrEnum):
    """Power state of a VM; UNKNOWN when the site cannot be asked."""

    ON = "on"
    OFF = "off"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"


class PowerOffWay(StrEnum):
    """How a VM came to be off."""

    ALREADY_OFF = "already_off"
    GUEST_SHUTDOWN = "guest_shutdown"
    HARD = "hard"
    ATTESTED = "attested"
    """Nobody could be asked; a person declared it to be off."""


class GuestTimeoutPolicy(StrEnum):
    """What to do when the guest does not shut down in time."""

    FORCE = "force"
    STOP = "stop"
    UNDO = "undo"


class Method(StrEnum):
    """How the difference of a disk is found."""

    COMPARE = "compare"
    TRACKED = "tracked"
    FULL = "full"
    """Everything allocated is copied: the target is a disk that this run made, empty."""
    DIGEST = "digest"
    """A comparison in which each site digests its own disk."""


class ReplicaContent(StrEnum):
    """Undo's answer when the replica ran after its protective snapshot."""

    KEEP = "keep"
    REVERT = "revert"


class Severity(StrEnum):
    """Weight of a preflight finding."""

    REFUSE = "refuse"
    WARN = "warn"


class SwitchMode(StrEnum):
    """When the switch from the replica to the target happens."""

    AUTO = "auto"
    """Straight through."""
    SCHEDULED = "scheduled"
    """At a time; until then the difference is kept small."""
    MANUAL = "manual"
    """When somebody says `switch_over`; until then the difference is kept small."""


class OnOverrun(StrEnum):
    """What to do when the switch takes longer than the downtime budget."""

    CONTINUE = "continue"
    UNDO = "undo"


class FinalizeMode(StrEnum):
    """Who decides at the end."""

    MANUAL = "manual"
    AUTO_COMMIT = "auto_commit"
    """Commit when every probe held for the whole soak time."""
    AUTO_UNDO = "auto_undo"
    """Undo at the deadline unless somebody commits before."""


class ProbeKind(StrEnum):
    """How the workload is asked whether it lives."""

    TCP = "tcp"
    HTTP = "http"
    TOOLS = "tools"
    """The heartbeat of the guest tools."""
    COMMAND = "command"
    """A command of the worker's settings."""


class OldSource(StrEnum):
    """What to do with the old source VM when another VM takes its place and it runs."""

    POWER_OFF = "power_off"
    REFUSE = "refuse"


class HookWhen(StrEnum):
    """Before or after a step."""

    BEFORE = "before"
    AFTER = "after"


class HookPolicy(StrEnum):
    """What a failed hook does to the run."""

    CONTINUE = "continue"
    STOP = "stop"
    UNDO = "undo"


class CarryOver(StrEnum):
    """What somebody added to the replica since the failover and wants to keep."""

    CPU = "cpu"
    MEMORY = "memory"
    NICS = "nics"
    DISKS = "disks"


class Finish(StrEnum):
    """How a run that was left behind is brought to its end."""

    UNDO = "undo"
    COMMIT = "commit"
    CLEANUP = "cleanup"
    """It has ended; only what it should have tidied up is left."""
