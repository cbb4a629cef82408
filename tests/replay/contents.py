"""What a recorded history tells, as words in their order, and what each path must tell."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HISTORIES = Path(__file__).parent / "histories"
Event = Mapping[str, Any]

DECIDED = ("scheduled watch_decision", "signal commit", "cancel watch_decision")
COMMITTED = (*DECIDED, "scheduled close_run", "child FailbackCleanup", "ended COMMITTED")
REVERSED = ("signal undo", "cancel watch_decision", "scheduled settle")
UNDONE = ("scheduled restore_replica", "scheduled restore_target", "ended UNDONE")
MOVING = ("started Failback", "scheduled transport_changes", "scheduled transport_changes")
GATE = ("scheduled transport_changes", "scheduled set_replica_state")
WAITING = (*GATE, "timer")
AGAIN = ("scheduled calculate_difference", "scheduled transport_changes")
"""A cycle."""
PATCHED = "marker looks-again"

TOO_LARGE = frozenset({"bounded-input"})
"""Patches of which no history is kept: it would hold a start request beyond the bound. The replay
of a commit that began with one stands for it."""

CONTENT: dict[str, tuple[str, ...]] = {
    "commit": ("scheduled verify", "scheduled power_on", *COMMITTED),
    "undo": ("scheduled verify", "scheduled power_on", *REVERSED, *UNDONE),
    "undo-in-transport": (
        *MOVING,
        "signal undo",
        "cancel transport_changes",
        "scheduled settle",
        "scheduled restore_target",
        "ended UNDONE",
    ),
    "pause-and-resume": (
        *MOVING,
        "pause accepted",
        "cancel transport_changes",
        "resume accepted",
        "scheduled transport_changes",
        *COMMITTED,
    ),
    "needs-operator-and-retry": (
        "protect_target failed DiskFull",
        "retry accepted",
        "scheduled protect_target",
        *COMMITTED,
    ),
    "declared-off": (
        "protect_target failed DiskFull",
        "marker attests-by-reference",
        "retry rejected",
        "retry accepted",
        "scheduled protect_target",
        *COMMITTED,
    ),
    "cancellation-after-a-skipped-start": (
        "scheduled set_replica_state",
        "scheduled watch_decision",
        "cancellation",
        "marker left-power-on",
        "signal commit",
        "ended COMMITTED",
    ),
    "cancellation-after-a-skipped-start-before": (
        "scheduled set_replica_state",
        "scheduled watch_decision",
        "cancellation",
        "cancel watch_decision",
        "scheduled settle",
        *UNDONE,
    ),
    "recovered-commit": (
        # The old source VM, and the target.
        "scheduled power_off",
        "scheduled power_off",
        "scheduled protect_target",
        "scheduled verify",
        "scheduled set_replica_state",
        "scheduled replace_source",
        "scheduled power_on",
        *COMMITTED,
    ),
    "recovered-undo": (
        "scheduled power_off",
        "scheduled power_off",
        "scheduled protect_target",
        "scheduled replace_source",
        "scheduled power_on",
        *REVERSED,
        "scheduled replace_source",
        *UNDONE,
    ),
    "new-commit": (
        "scheduled power_off",
        "scheduled create_target",
        "scheduled copy_configuration",
        "scheduled register_target",
        "scheduled power_on",
        *COMMITTED,
    ),
    "new-undo": (
        "scheduled power_off",
        "scheduled create_target",
        "scheduled copy_configuration",
        "scheduled register_target",
        "scheduled power_on",
        *REVERSED,
        "scheduled register_target",
        "scheduled restore_replica",
        "scheduled delete_target",
        "ended UNDONE",
    ),
    "manual-with-cycles": (
        *WAITING,
        "fired",
        *AGAIN,
        "fired",
        *AGAIN,
        "switch_over accepted",
        "scheduled power_off",
        *COMMITTED,
    ),
    "scheduled": (*WAITING, "fired", *AGAIN, "scheduled power_off", *COMMITTED),
    "rescheduled": (
        *WAITING,
        "reschedule accepted",
        "cancelled timer",
        "fired",
        "scheduled power_off",
        *COMMITTED,
    ),
    "scheduled-by-reschedule": (
        *WAITING,
        "reschedule accepted",
        "cancelled timer",
        "fired",
        "scheduled power_off",
        *COMMITTED,
    ),
    "undo-in-the-gate": (*WAITING, *AGAIN, "signal undo", "scheduled settle", "ended UNDONE"),
    "pause-in-the-gate": (
        *WAITING,
        "pause accepted",
        "resume accepted",
        "switch_over accepted",
        *COMMITTED,
    ),
    "trouble-at-the-last-look": (
        *GATE,
        "switch_over accepted",
        "check_drift failed VmChanged",
        "retry accepted",
        PATCHED,
        "scheduled check_drift",
        "scheduled power_off",
        *COMMITTED,
    ),
    "trouble-at-the-last-look-before": (
        *GATE,
        "switch_over accepted",
        "check_drift failed VmChanged",
        "retry accepted",
        "scheduled check_drift",
        "scheduled power_off",
        *COMMITTED,
    ),
    "pause-at-the-last-look": (
        *GATE,
        "switch_over accepted",
        "pause accepted",
        "cancel check_drift",
        "resume accepted",
        PATCHED,
        "scheduled power_off",
        *COMMITTED,
    ),
    "rebase": (
        "check_drift failed ReplicaGrown",
        "retry accepted",
        "scheduled rebase_target",
        *AGAIN,
        *COMMITTED,
    ),
    "budget-kept": (
        PATCHED,
        "timer",
        "scheduled power_on",
        "cancelled timer",
        *COMMITTED,
    ),
    "budget-kept-before": (
        "scheduled check_drift",
        "timer",
        "scheduled power_off",
        "scheduled power_on",
        "cancelled timer",
        *COMMITTED,
    ),
    "worker-crash": (
        *MOVING,
        "transport_changes attempt 2 after HEARTBEAT",
        "transport_changes attempt 2 after HEARTBEAT",
        "scheduled remove_snapshot",
        *COMMITTED,
    ),
    "site-unreachable": (
        "calculate_difference failed SiteUnreachable",
        "fired",
        "scheduled probe",
        "fired",
        "scheduled probe",
        "scheduled calculate_difference",
        *COMMITTED,
    ),
    "site-unreachable-in-the-undo": (
        *REVERSED,
        "restore_replica failed SiteUnreachable",
        "fired",
        "scheduled probe",
        "fired",
        "scheduled probe",
        *UNDONE,
    ),
    "cancellation": (
        *MOVING,
        "cancellation",
        "cancel transport_changes",
        "scheduled settle",
        "scheduled restore_target",
        "ended UNDONE",
    ),
    "approval": (
        "scheduled watch_decision",
        "commit accepted",
        "approve accepted",
        "cancel watch_decision",
        "scheduled close_run",
        "ended COMMITTED",
    ),
    "adjusted": (
        *MOVING,
        "adjust accepted",
        "scheduled set_limits",
        "adjust accepted",
        "fired",
        "scheduled probe",
        "scheduled close_run",
        "ended COMMITTED",
    ),
    "limits-at-start": ("scheduled preflight", "scheduled set_limits", *COMMITTED),
    "auto-commit": (
        "scheduled watch_decision",
        "fired",
        "scheduled probe",
        "cancel watch_decision",
        "scheduled close_run",
        "child FailbackCleanup",
        "ended COMMITTED",
    ),
    "auto-undo": (
        "scheduled watch_decision",
        "fired",
        "scheduled probe",
        "cancel watch_decision",
        "scheduled settle",
        *UNDONE,
    ),
    "pause-in-the-decision": (
        "timer",
        "scheduled watch_decision",
        "pause accepted",
        "cancelled timer",
        "resume accepted",
        "timer",
        "signal commit",
        "ended COMMITTED",
    ),
    "probe-failed": (
        "timer",
        "scheduled watch_decision",
        "scheduled watch_decision",
        "cancelled timer",
        "signal commit",
        "ended COMMITTED",
    ),
    "watch-failed": (
        "timer",
        "watch_decision failed SiteUnreachable",
        PATCHED,
        "timer",
        "cancelled timer",
        "signal commit",
        "ended COMMITTED",
    ),
    "watch-failed-before": (
        "timer",
        "watch_decision failed SiteUnreachable",
        "timer",
        "cancelled timer",
        "signal commit",
        "ended COMMITTED",
    ),
    "hook": ("scheduled power_on", "scheduled run_hook", *COMMITTED),
    "carried-over-undo": (
        "scheduled protect_target",
        "scheduled carry_over",
        *REVERSED,
        "scheduled restore_replica",
        "scheduled carry_over",
        "scheduled restore_target",
        "ended UNDONE",
    ),
    "continued-as-new": (
        *WAITING,
        "switch_over accepted",
        "continued as new",
        "started Failback",
        "carried AWAITING_DECISION",
        *COMMITTED,
    ),
    "continued-in-the-gate": (
        *WAITING,
        "continued as new",
        "started Failback",
        "carried READY_TO_SWITCH",
        "switch_over accepted",
        "scheduled power_off",
        "scheduled close_run",
        "ended COMMITTED",
    ),
    "refused": ("scheduled preflight", "ended REFUSED"),
    "reconcile": ("started FailbackReconcile", "scheduled inspect_run", "ended"),
    "reconcile-undo": ("started FailbackReconcile", "scheduled inspect_run", "child Failback"),
    "reconcile-commit": ("started FailbackReconcile", "scheduled inspect_run", "child Failback"),
    "reconcile-cleanup": (
        "started FailbackReconcile",
        "scheduled inspect_run",
        "child FailbackCleanup",
    ),
    "taken-up-undo": (
        "started Failback",
        "carried UNDOING",
        "scheduled settle",
        "scheduled replace_source",
        *UNDONE,
    ),
    "taken-up-commit": (
        "started Failback",
        "carried COMMITTING",
        "scheduled close_run",
        "child FailbackCleanup",
        "ended COMMITTED",
    ),
    "cleanup": ("started FailbackCleanup", "scheduled clean_target", "ended"),
    "preview": ("started FailbackPreview", "scheduled look_ahead", "ended"),
}
"""By path, words that its history has in this order."""


def recordings() -> dict[str, list[Path]]:
    """Files by recording, one of several executions as several files."""
    found: dict[str, list[Path]] = {}
    for file in sorted(HISTORIES.glob("*.json"), key=lambda file: (len(file.stem), file.stem)):
        found.setdefault(file.stem.partition(".")[0], []).append(file)
    return found


def path_of(stem: str) -> str:
    """The path that a file is a history of."""
    return stem.partition(".")[0].partition("+")[0]


def read(files: list[Path]) -> list[Event]:
    """All events of a recording."""
    return [event for file in files for event in json.loads(file.read_text())["events"]]


def told(events: list[Event]) -> list[str]:
    """The words of these events."""
    return [word for word in Teller().words(events) if word]


def lacking(words: list[str], content: tuple[str, ...]) -> str:
    """The first word that does not come after those before it; empty: all do."""
    rest = iter(words)
    return next((word for word in content if word not in rest), "")


class Teller:
    """Reads events, and remembers what later ones speak of."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Activities by the event that scheduled them, updates by the event that accepted them."""

    def words(self, events: list[Event]) -> Iterator[str]:
        for event in events:
            kind = event["eventType"].removeprefix("EVENT_TYPE_")
            if kind == "WORKFLOW_EXECUTION_STARTED":
                # Ids of events begin anew with every execution.
                self.names = {}
            more: Event = next((v for k, v in event.items() if k.endswith("Attributes")), {})
            yield from self._words(kind, event["eventId"], more)

    def _words(self, kind: str, event_id: str, more: Event) -> Iterator[str]:
        activity = self.names.get(more.get("scheduledEventId", ""), "")
        match kind:
            case "WORKFLOW_EXECUTION_STARTED":
                yield f"started {more['workflowType']['name']}"
                if len(inputs := more["input"]["payloads"]) > 1:
                    yield f"carried {value_of(inputs[1])['phase']}"
            case "ACTIVITY_TASK_SCHEDULED":
                self.names[event_id] = more["activityType"]["name"]
                yield f"scheduled {self.names[event_id]}"
            case "ACTIVITY_TASK_STARTED" if int(more.get("attempt", 1)) > 1:
                failure = more.get("lastFailure", {})
                cause = failure.get("timeoutFailureInfo", {}).get("timeoutType", "")
                why = cause.removeprefix("TIMEOUT_TYPE_") or failure.get("message", "")
                yield f"{activity} attempt {more['attempt']} after {why}"
            case "ACTIVITY_TASK_FAILED":
                info = more["failure"].get("applicationFailureInfo", {})
                yield f"{activity} failed {info.get('type', '')}"
            case "ACTIVITY_TASK_CANCEL_REQUESTED":
                yield f"cancel {activity}"
            case "TIMER_STARTED":
                yield "timer"
            case "TIMER_FIRED":
                yield "fired"
            case "TIMER_CANCELED":
                yield "cancelled timer"
            case "START_CHILD_WORKFLOW_EXECUTION_INITIATED":
                yield f"child {more['workflowType']['name']}"
            case "MARKER_RECORDED":
                yield f"marker {value_of(more['details']['patch-data']['payloads'][0])['id']}"
            case "WORKFLOW_EXECUTION_SIGNALED":
                yield f"signal {more['signalName']}"
            case "WORKFLOW_EXECUTION_CANCEL_REQUESTED":
                yield "cancellation"
            case "WORKFLOW_EXECUTION_UPDATE_ACCEPTED":
                self.names[event_id] = more["acceptedRequest"]["input"]["name"]
            case "WORKFLOW_EXECUTION_UPDATE_COMPLETED":
                answer = value_of(more["outcome"]["success"]["payloads"][0])
                said = "accepted" if answer["accepted"] else "rejected"
                yield f"{self.names[more['acceptedEventId']]} {said}"
            case "WORKFLOW_EXECUTION_CONTINUED_AS_NEW":
                yield "continued as new"
            case "WORKFLOW_EXECUTION_COMPLETED":
                result = value_of(more["result"]["payloads"][0])
                yield f"ended {result.get('outcome') or ''}".strip()


def value_of(payload: Event) -> Any:
    """What a payload says."""
    return json.loads(base64.b64decode(payload["data"]))
