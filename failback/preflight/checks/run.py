"""Checks of the run itself: the replica's state, jobs and what we may do at the sites."""

from __future__ import annotations

from collections.abc import Iterator

from failback.contracts.plan import Finding
from failback.contracts.words import ReplicaState
from failback.preflight.evidence import Evidence, refuse, warn


def replica_state(e: Evidence) -> Iterator[Finding]:
    if e.state is not ReplicaState.FAILOVER:
        yield refuse(
            "REPLICA_STATE",
            e.request.replica,
            f"VM replica {e.request.replica!r} is in state {e.state}, not in FAILOVER.",
            "Fail over first; if it was done by another tool: failback replica mark-failover "
            f"{e.request.replica}.",
        )


def replication_running(e: Evidence) -> Iterator[Finding]:
    for job in e.running_jobs:
        yield refuse(
            "JOB_RUNNING",
            job,
            f"Replication job {job!r} of the source VM is running.",
            "Wait until it has ended, or stop it.",
        )


def hooks(e: Evidence) -> Iterator[Finding]:
    for name in e.unknown_hooks:
        yield refuse(
            "HOOK_UNKNOWN",
            name,
            f"The worker's settings have no hook {name!r}.",
            f"Add a table [hooks.{name}] there and start the worker again, or correct the name.",
        )


def schedule(e: Evidence) -> Iterator[Finding]:
    if e.switch_at is not None and e.now is not None and e.switch_at <= e.now:
        yield refuse(
            "SCHEDULE_PAST",
            e.request.replica,
            f"The switch is to be at {e.switch_at:%Y-%m-%d %H:%M %Z}, which is past.",
            "Name a time in the future.",
        )


def privileges(e: Evidence) -> Iterator[Finding]:
    for vm, missing in e.missing_privileges.items():
        if missing:
            yield refuse(
                "PRIVILEGE_MISSING",
                vm,
                f"The account lacks {', '.join(missing)} on {vm}.",
                "Grant the role of docs/vsphere-permissions.md.",
            )


def target_protection(e: Evidence) -> Iterator[Finding]:
    if not e.request.protect_target and not e.makes_target:
        yield warn(
            "TARGET_NOT_PROTECTED",
            e.target.identity,
            f"No snapshot of {e.target.identity} will be made: undo cannot give it its old content "
            "back.",
        )


CHECKS = (
    replica_state,
    replication_running,
    hooks,
    schedule,
    privileges,
    target_protection,
)
