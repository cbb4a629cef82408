"""The grammar of start and of the requests."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from failback.contracts.words import (
    Destination,
    Finish,
    GuestTimeoutPolicy,
    ReplicaContent,
)
from starter.arguments_life import (
    UNSAID,
    add_finalize,
    add_life,
    add_limits,
    add_place,
    add_switch,
)
from starter.values import duration

SAID: dict[str, Any] = {"action": "store_true", "default": argparse.SUPPRESS}
"""A choice that is sent only when it was made: an earlier request's must not be erased."""


def add_start(commands: Any, common: argparse.ArgumentParser) -> None:
    start = commands.add_parser(
        "start",
        parents=[common],
        help="start a failback and wait for preflight",
        description="Start a failback. Waits until preflight accepts it or refuses with findings.",
    )
    start.add_argument("--no-wait", action="store_true", help="do not wait for preflight")
    start.add_argument(
        "--plan-hash",
        default="",
        metavar="HASH",
        help="what `failback plan` gave: refuse if the world is another one now",
    )
    _run_options(start)
    start.set_defaults(command="starter.commands:start")


def add_plan(commands: Any, common: argparse.ArgumentParser) -> None:
    plan = commands.add_parser(
        "plan",
        parents=[common],
        help="what a failback would do: checks, steps, bytes, times; changes nothing",
        description="Run the checks of a start and print what it would do. Claims nothing and "
        "changes nothing; takes the options of `failback start`.",
    )
    _run_options(plan)
    plan.set_defaults(command="starter.planning:plan")


def _run_options(start: argparse.ArgumentParser) -> None:
    """What a run is to be: the same for `start` and `plan`."""
    start.add_argument("key", metavar="KEY", help="the VM replica")
    start.add_argument(
        "--destination", choices=[word.value for word in Destination], default=Destination.ORIGINAL
    )
    start.add_argument(
        "--no-power-on", action="store_true", help="leave the target VM off after the switch"
    )
    start.add_argument(
        "--no-protect-target",
        action="store_true",
        help="no target protective snapshot: undo then cannot give the target its old content back",
    )
    start.add_argument(
        "--no-tracking",
        action="store_true",
        help="do not switch change tracking on at the replica: pass 2 then compares whole disks",
    )
    start.add_argument(
        "--accept-target-overwrite",
        action="store_true",
        help="overwrite a target VM that runs: what it wrote since its last boot is lost",
    )
    start.add_argument(
        "--accept-suspended", action="store_true", help="lose the memory of a suspended VM"
    )
    start.add_argument(
        "--guest-timeout",
        type=duration,
        default=timedelta(minutes=15),
        metavar="TIME",
        help="how long a guest may take to shut down (default: 15m)",
    )
    start.add_argument(
        "--on-guest-timeout",
        choices=[word.value for word in GuestTimeoutPolicy],
        default=GuestTimeoutPolicy.FORCE,
        help="then: power off hard, stop for an operator, or undo (default: force)",
    )
    start.add_argument(
        "--no-auto-retry",
        action="store_true",
        help="wait for `retry` although a site that could not be reached is back",
    )
    start.add_argument(
        "--grow-target",
        action="store_true",
        help="grow target disks that are smaller than the replica's; undo cannot shrink them",
    )
    start.add_argument(
        "--verify-whole-disk", action="store_true", help="verify all of every disk, not a sample"
    )
    start.add_argument(
        "--leave-behind",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="replica disk without partner whose data stays on DR, such as scsi0:2; repeatable",
    )
    start.add_argument(
        "--disk-map",
        action="append",
        default=[],
        metavar="REPLICA=TARGET",
        help="addresses of two disks that belong together, such as scsi0:1=sata0:0; repeatable",
    )
    start.add_argument(
        "--accept-pair",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="replica disk whose partner carries another partition table; repeatable",
    )
    start.add_argument(
        "--expected-change-percent",
        type=int,
        default=20,
        metavar="PERCENT",
        help="share of each disk expected to differ, to judge the room needed (default: 20)",
    )
    for add in (add_switch, add_finalize, add_limits, add_place, add_life):
        add(start)
    _who(start)


def add_requests(commands: Any, common: argparse.ArgumentParser) -> None:
    for name, text in (
        ("commit", "keep production: the failback is final"),
        ("undo", "go back to DR; what production wrote since the switch is lost"),
        ("retry", "try the failed step again"),
        ("pause", "stop at the next checkpoint"),
        ("resume", "go on after pause"),
        ("switch-over", "move the work over now, or as soon as the cycle under way is done"),
        ("reschedule", "change when the work moves over"),
        ("adjust", "change limits, or who decides at the end"),
        ("approve", "agree, as a second person, to a request that waits for it"),
    ):
        command = commands.add_parser(name, parents=[common], help=text, description=text + ".")
        command.add_argument("key", metavar="KEY")
        command.add_argument(
            "--request-id", default="", metavar="ID", help="makes a repeat harmless"
        )
        if name == "undo":
            _add_undo(command)
        if name == "switch-over":
            command.add_argument(
                "--ignore-budget",
                **SAID,
                help="also when the predicted downtime is over the budget",
            )
        if name == "reschedule":
            add_switch(command)
        if name == "adjust":
            add_finalize(command)
            add_limits(command, UNSAID)
        if name == "approve":
            command.add_argument("of", metavar="REQUEST_ID", help="the request, as status shows it")
        if name in ("undo", "retry"):
            _add_attest(command)
        if name == "retry":
            command.add_argument(
                "--rebase-target",
                **SAID,
                help="a disk of the replica has grown: grow the target's too and compare "
                "everything again; undo cannot shrink it",
            )
        _who(command)
        command.set_defaults(command="starter.commands:ask")


def add_reconcile(commands: Any, common: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "reconcile",
        parents=[common],
        help="what a run left behind whose workflow is gone, and its end",
        description="Read the catalog and both sites and say what the newest run of a VM replica "
        "left behind, when its workflow was terminated or lost. With --finish it is brought to its "
        "end, under the same marks and claims.",
    )
    command.add_argument("key", metavar="KEY")
    command.add_argument(
        "--finish",
        choices=[word.value for word in Finish],
        default=None,
        help="undo: back to DR; commit: keep production; cleanup: tidy up after a commit",
    )
    command.add_argument("--request-id", default="", metavar="ID", help="makes a repeat harmless")
    _add_undo(command)
    _add_attest(command)
    _who(command)
    command.set_defaults(command="starter.reconciling:reconcile")


def _add_attest(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--attest-off",
        action="append",
        default=argparse.SUPPRESS,
        metavar="VM",
        help="declare that this VM is off while its site or host cannot be asked: its name, its "
        "moref, or either after SITE: where it needs that; with --reason; repeatable",
    )


def _add_undo(undo: argparse.ArgumentParser) -> None:
    undo.add_argument("--yes", "-y", action="store_true", help="do not ask")
    undo.add_argument(
        "--power-on-replica",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="whether the VM replica is powered on (default: if it ran when the run began)",
    )
    undo.add_argument(
        "--replica-content",
        choices=[word.value for word in ReplicaContent],
        default=argparse.SUPPRESS,
        help="when the replica ran after its protective snapshot: keep its data, or revert it",
    )
    undo.add_argument(
        "--accept-target-not-restored",
        **SAID,
        help="go on although the target VM cannot get its old content back",
    )


def _who(command: argparse.ArgumentParser) -> None:
    command.add_argument("--by", default=None, metavar="NAME", help="who asks (default: the user)")
    command.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")
