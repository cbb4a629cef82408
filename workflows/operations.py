"""The activities' interface as data: wire name, argument, result, queue and preset of each.

Light on purpose: neither Temporal nor any activity module is imported, so that the engine and the
step lists can be read, run and tested alone. `activities/` binds an implementation to each record.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from failback.contracts import operations as ops
from failback.contracts import preview
from failback.contracts.base import Contract
from failback.contracts.remains import Remains

I = TypeVar("I", bound=Contract)  # noqa: E741 - the conventional name of an input type
O = TypeVar("O", bound=Contract)  # noqa: E741


class Preset(Enum):
    """Kinds of work; workflows/options.py gives each its timeouts and says why."""

    CONTROL = "control"
    """Changes at a site and in the catalog: minutes, hours for merges; heartbeats."""
    TRANSFER = "transfer"
    """Moves or digests bytes on a mover: unbounded, heartbeats."""
    WATCH = "watch"
    """Looks on while people decide; ends by cancellation."""
    PROBE = "probe"
    """One question, asked once."""


@dataclass(frozen=True)
class Operation(Generic[I, O]):
    """One activity: what crosses the wire, and how it is scheduled."""

    name: str
    argument: type[I]
    result: type[O]
    preset: Preset


PREFLIGHT = Operation("preflight", ops.Preflight, ops.PreflightResult, Preset.CONTROL)
LOOK_AHEAD = Operation("look_ahead", preview.LookAhead, preview.LookAheadResult, Preset.CONTROL)
POWER_OFF = Operation("power_off", ops.PowerOff, ops.PowerOffResult, Preset.CONTROL)
PROTECT_TARGET = Operation(
    "protect_target", ops.ProtectTarget, ops.ProtectTargetResult, Preset.CONTROL
)
CARRY_OVER = Operation("carry_over", ops.CarryOverHardware, ops.CarryOverResult, Preset.CONTROL)
SNAPSHOT_REPLICA = Operation(
    "snapshot_replica", ops.SnapshotReplica, ops.SnapshotReplicaResult, Preset.CONTROL
)
REMOVE_SNAPSHOT = Operation("remove_snapshot", ops.RemoveSnapshot, ops.Done, Preset.CONTROL)
CALCULATE_DIFFERENCE = Operation(
    "calculate_difference", ops.CalculateDifference, ops.Differences, Preset.CONTROL
)
TRANSPORT_CHANGES = Operation(
    "transport_changes", ops.TransportChanges, ops.TransportResult, Preset.TRANSFER
)
VERIFY = Operation("verify", ops.Verify, ops.VerifyResult, Preset.TRANSFER)
REBASE_TARGET = Operation("rebase_target", ops.RebaseTarget, ops.RebaseTargetResult, Preset.CONTROL)
CHECK_DRIFT = Operation("check_drift", ops.CheckDrift, ops.Done, Preset.CONTROL)
SET_REPLICA_STATE = Operation("set_replica_state", ops.SetReplicaState, ops.Done, Preset.CONTROL)
POWER_ON = Operation("power_on", ops.PowerOn, ops.PowerOnResult, Preset.CONTROL)
SETTLE = Operation("settle", ops.Settle, ops.Done, Preset.CONTROL)
RESTORE_REPLICA = Operation("restore_replica", ops.RestoreReplica, ops.Done, Preset.CONTROL)
RESTORE_TARGET = Operation("restore_target", ops.RestoreTarget, ops.Done, Preset.CONTROL)
CLEAN_TARGET = Operation("clean_target", ops.CleanTarget, ops.Done, Preset.CONTROL)
CLOSE_RUN = Operation("close_run", ops.CloseRun, ops.Done, Preset.CONTROL)
CREATE_TARGET = Operation("create_target", ops.CreateTarget, ops.CreateTargetResult, Preset.CONTROL)
DELETE_TARGET = Operation("delete_target", ops.DeleteTarget, ops.Done, Preset.CONTROL)
COPY_CONFIGURATION = Operation(
    "copy_configuration", ops.CopyConfiguration, ops.Done, Preset.CONTROL
)
REGISTER_TARGET = Operation("register_target", ops.RegisterTarget, ops.Done, Preset.CONTROL)
REPLACE_SOURCE = Operation("replace_source", ops.ReplaceSource, ops.Done, Preset.CONTROL)
SET_LIMITS = Operation("set_limits", ops.SetLimits, ops.Done, Preset.CONTROL)
RUN_HOOK = Operation("run_hook", ops.RunHook, ops.HookResult, Preset.CONTROL)
WATCH_DECISION = Operation("watch_decision", ops.WatchDecision, ops.WatchResult, Preset.WATCH)
INSPECT_RUN = Operation("inspect_run", ops.InspectRun, Remains, Preset.CONTROL)
PROBE = Operation("probe", ops.Probe, ops.ProbeResult, Preset.PROBE)
