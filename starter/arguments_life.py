"""Options about when a run switches, who decides, how fast it copies and where its target is."""

from __future__ import annotations

from typing import Any

from failback.contracts.words import (
    CarryOver,
    FinalizeMode,
    OldSource,
    OnOverrun,
    SwitchMode,
)
from starter.values import duration, moment, pair, probe, rate, window


def add_switch(command: Any) -> None:
    """When the work moves over: `start` and `reschedule`."""
    group = command.add_argument_group("the switch")
    group.add_argument(
        "--switch",
        choices=[word.value for word in SwitchMode],
        default=None,
        help="auto: straight through (default); scheduled: at --switch-at; manual: when somebody "
        "says switch-over",
    )
    group.add_argument(
        "--switch-at",
        type=moment,
        metavar="TIME",
        help="time of the switch: 2026-11-24T22:00+01:00, or local time without an offset",
    )
    group.add_argument(
        "--resync-interval",
        type=duration,
        metavar="TIME",
        help="how often the difference is made small while it waits (default: 15m)",
    )
    group.add_argument(
        "--downtime-budget",
        type=duration,
        metavar="TIME",
        help="do not switch while the predicted downtime is longer",
    )
    group.add_argument(
        "--on-overrun",
        choices=[word.value for word in OnOverrun],
        default=None,
        help="when the switch takes longer than the budget (default: continue)",
    )


def add_finalize(command: Any) -> None:
    """Who decides at the end: `start` and `adjust`."""
    group = command.add_argument_group("the decision")
    group.add_argument(
        "--finalize",
        choices=[word.value for word in FinalizeMode],
        default=None,
        help="who decides at the end (default: manual)",
    )
    group.add_argument(
        "--finalize-after",
        type=duration,
        metavar="TIME",
        help="soak time of auto_commit, deadline of auto_undo (default: 1h)",
    )
    group.add_argument(
        "--boot-grace",
        type=duration,
        metavar="TIME",
        help="how long probes may fail while the workload boots (default: 10m)",
    )
    group.add_argument(
        "--probe",
        type=probe,
        action="append",
        default=[],
        metavar="PROBE",
        help="must hold for auto_commit: tcp:HOST:PORT, http(s)://..., tools, command:NAME; "
        "repeatable",
    )
    group.add_argument(
        "--accept-loss-of-production-writes",
        action="store_true",
        help="auto_undo: what production wrote is lost",
    )


UNSAID: Any = object()
"""Default of a limit for `adjust`, where saying nothing and saying none differ."""


def add_limits(command: Any, default: Any = None) -> None:
    """How fast and when disks are copied: `start` and `adjust`."""
    group = command.add_argument_group("limits")
    group.add_argument(
        "--bandwidth",
        type=rate,
        default=default,
        metavar="RATE",
        help="bytes per second of this run, such as 100M; `none` takes the limit away",
    )
    group.add_argument(
        "--window",
        type=window,
        default=default,
        metavar="HH:MM-HH:MM",
        help="hours (UTC) in which pass 1 and re-syncs may copy; `none`: at any time",
    )


def add_place(command: Any) -> None:
    """Where the work goes back to: `start` and `plan`."""
    group = command.add_argument_group("destinations recovered and new")
    group.add_argument(
        "--recovered", default="", metavar="SITE:VM", help="the VM that takes the source VM's place"
    )
    group.add_argument(
        "--old-source",
        choices=[word.value for word in OldSource],
        default=OldSource.POWER_OFF,
        help="when the old source VM runs (default: power_off)",
    )
    group.add_argument("--new-name", default="", metavar="NAME", help="default: the replica's name")
    group.add_argument("--new-site", default="", metavar="SITE", help="default: the source VM's")
    for name in ("host", "cluster", "pool", "folder", "datastore", "storage-policy"):
        group.add_argument(f"--{name}", default="", metavar="NAME", help=f"{name} of the new VM")
    group.add_argument(
        "--disk-datastore",
        type=pair,
        action="append",
        default=[],
        metavar="ADDRESS=DATASTORE",
        help="datastore of one disk, such as scsi0:1=fast; repeatable",
    )
    group.add_argument(
        "--network",
        type=pair,
        action="append",
        default=[],
        metavar="REPLICA=TARGET",
        help="network that takes a replica network's place; others keep their names; repeatable",
    )
    group.add_argument(
        "--keep-macs", action="store_true", help="give the new VM the replica's MAC addresses"
    )
    group.add_argument(
        "--no-keep-bios-uuid", action="store_true", help="give the new VM a BIOS UUID of its own"
    )


def add_life(command: Any) -> None:
    """What else is said at the start."""
    group = command.add_argument_group("hooks, approvals, carry-over")
    group.add_argument(
        "--hook",
        action="append",
        default=[],
        metavar="WHEN:STEP:NAME[:POLICY]",
        help="call of the worker's settings, such as after:power_on_target:dns:continue; POLICY is "
        "continue, stop (default) or undo; repeatable",
    )
    group.add_argument(
        "--approvals",
        type=int,
        default=1,
        choices=(1, 2),
        help="2: switch-over, commit and undo wait for a second person's `approve`",
    )
    group.add_argument(
        "--approval-expiry",
        type=duration,
        default=None,
        metavar="TIME",
        help="a request that nobody approved in this time is void (default: 4h)",
    )
    group.add_argument(
        "--carry-over",
        action="append",
        default=[],
        choices=[word.value for word in CarryOver],
        help="give the target what was added to the replica; repeatable",
    )
