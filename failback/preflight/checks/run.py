"""Checks of the run itself: the replica's state, jobs, the sites and what we may do there."""

from __future__ import annotations

from collections.abc import Iterator

from failback.contracts.plan import Finding
from failback.contracts.words import ReplicaState
from failback.preflight.evidence import Evidence, refuse, warn

OLDEST_API = (6, 7)
"""vSphere 6.7: older releases are out of support, and were never tried."""


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


def schedule(e: Evidence) -> Iterator[Finding]:
    if e.switch_at is not None and e.now is not None and e.switch_at <= e.now:
        yield refuse(
            "SCHEDULE_PAST",
            e.request.replica,
            f"The switch is to be at {e.switch_at:%Y-%m-%d %H:%M %Z}, which is past.",
            "Name a time in the future.",
        )


def site_version(e: Evidence) -> Iterator[Finding]:
    for name, about in e.sites.items():
        found = tuple(int(part) for part in about.api_version.split(".")[:2] if part.isdigit())
        if found and found < OLDEST_API:
            yield refuse(
                "VERSION_UNSUPPORTED",
                name,
                f"Site {name} is {about.product} with API {about.api_version}; vSphere "
                f"{'.'.join(map(str, OLDEST_API))} or newer is needed.",
                "Upgrade it, or reach the VM through a newer vCenter.",
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
    if not e.request.protect_target:
        yield warn(
            "TARGET_NOT_PROTECTED",
            e.target.identity,
            f"No snapshot of {e.target.identity} will be made: undo cannot give it its old content "
            "back.",
        )


CHECKS = (
    replica_state,
    replication_running,
    schedule,
    site_version,
    privileges,
    target_protection,
)
