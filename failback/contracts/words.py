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


class StepName(StrEnum):
    """Names of the steps, as stored in the catalog and shown in status."""

    PREFLIGHT = "preflight"
    POWER_OFF_TARGET = "power_off_target"
    PROTECT_TARGET = "protect_target"
    FREEZE_REPLICA = "freeze_replica"
    CALCULATE_DIFFERENCE = "calculate_difference"
    TRANSPORT_CHANGES = "transport_changes"
    UNFREEZE_REPLICA = "unfreeze_replica"
    CHECK_DRIFT = "check_drift"
    POWER_OFF_REPLICA = "power_off_replica"
    PROTECT_REPLICA = "protect_replica"
    CALCULATE_DIFFERENCE_2 = "calculate_difference_2"
    TRANSPORT_CHANGES_2 = "transport_changes_2"
    VERIFY = "verify"
    MARK_FAILBACK = "mark_failback"
    POWER_ON_TARGET = "power_on_target"
    AWAIT_DECISION = "await_decision"
    COMMIT = "commit"
    SETTLE = "settle"
    UNDO_POWER_ON_TARGET = "undo_power_on_target"
    UNDO_MARK_FAILBACK = "undo_mark_failback"
    UNDO_PROTECT_REPLICA = "undo_protect_replica"
    UNDO_POWER_OFF_REPLICA = "undo_power_off_replica"
    UNDO_FREEZE_REPLICA = "undo_freeze_replica"
    UNDO_PROTECT_TARGET = "undo_protect_target"
    UNDO_CLOSE = "undo_close"
    CLEAN_TARGET = "clean_target"
    RESTORE_TRACKING = "restore_tracking"


class RequestKind(StrEnum):
    """What people may ask of a running failback: signals and updates of these names."""

    COMMIT = "commit"
    UNDO = "undo"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


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
