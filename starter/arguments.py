"""The command line's grammar. Imports no Temporal."""

from __future__ import annotations

import argparse
from typing import Any

from starter.arguments_run import add_plan, add_reconcile, add_requests, add_start
from starter.values import days, place

EPILOG = """\
The Temporal server is found by TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and the other variables of the
`temporal` command; without them it is localhost:7233.

exit status:
  0  done, accepted
  1  unexpected error
  2  refused or bad input; one sentence says why
  3  while waiting: the run ended, or stands in NEEDS_OPERATOR
"""


def parser() -> argparse.ArgumentParser:
    """The whole grammar; `command` in the result is `module:function` that runs it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="machine output on standard output")
    common.add_argument(
        "--settings",
        metavar="FILE",
        default=None,
        help="settings file (default: FAILBACK_SETTINGS)",
    )
    top = argparse.ArgumentParser(
        prog="failback",
        description="Fail virtual machines back from a DR site to production.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="name")
    _add_replica(commands, common)
    _add_catalog(commands, common)
    add_plan(commands, common)
    add_start(commands, common)
    _add_looks(commands, common)
    add_requests(commands, common)
    add_reconcile(commands, common)
    searched = commands.add_parser(
        "search-attributes",
        parents=[common],
        help="register the search attributes in the Temporal namespace",
        description="Register what is missing of the search attributes by which runs are found. "
        "Workers do it too when they start; this is for a namespace where they may not.",
    )
    searched.set_defaults(command="starter.namespace:register")
    version = commands.add_parser("version", parents=[common], help="print the version")
    version.set_defaults(command="starter.about:version")
    return top


def _add_replica(commands: Any, common: argparse.ArgumentParser) -> None:
    replica = commands.add_parser("replica", help="VM replicas in the catalog")
    actions = replica.add_subparsers(
        title="actions", metavar="ACTION", dest="action", required=True
    )
    listed = actions.add_parser("list", parents=[common], help="all VM replicas and their states")
    listed.set_defaults(command="starter.replicas:list_replicas")
    add = actions.add_parser(
        "add",
        parents=[common],
        help="enter a VM replica",
        description="Enter a VM replica and its source VM; both are looked up at their sites.",
    )
    add.add_argument("key", metavar="KEY", help="key for people and ids: a-z, 0-9, dot, _, -")
    where = "SITE:NAME_OR_PATH"
    add.add_argument("--replica", type=place, required=True, metavar=where, help="the VM replica")
    add.add_argument("--source", type=place, required=True, metavar=where, help="the source VM")
    add.add_argument(
        "--in-failover",
        action="store_true",
        help="the failover has happened: the replica runs (state FAILOVER instead of READY)",
    )
    add.set_defaults(command="starter.enrolling:add")
    again = actions.add_parser(
        "find-again",
        parents=[common],
        help="look both VMs up anew, after they were registered again",
        description="Look both VMs up by their UUIDs and paths: one that was taken out of the "
        "inventory and registered again has another reference.",
    )
    again.add_argument("key", metavar="KEY")
    again.set_defaults(command="starter.enrolling:find_again")
    show = actions.add_parser("show", parents=[common], help="one VM replica in detail")
    show.add_argument("key", metavar="KEY")
    show.set_defaults(command="starter.replicas:show")
    mark = actions.add_parser(
        "mark-failover", parents=[common], help="record that a failover has happened"
    )
    mark.add_argument("key", metavar="KEY")
    mark.set_defaults(command="starter.replicas:mark_failover")


def _add_catalog(commands: Any, common: argparse.ArgumentParser) -> None:
    group = commands.add_parser("catalog", help="the catalog's database")
    actions = group.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    migrate = actions.add_parser(
        "migrate", parents=[common], help="make it, or bring it up to this version"
    )
    migrate.set_defaults(command="starter.administration:migrate_catalog")
    forget = actions.add_parser(
        "forget-host",
        parents=[common],
        help="say that a machine runs movers no more, so that another one may",
    )
    forget.add_argument("machine", metavar="MACHINE", help="its id, as the worker's refusal says")
    forget.set_defaults(command="starter.administration:forget_host")
    purge = actions.add_parser(
        "purge",
        parents=[common],
        help="remove the ledger of runs that ended long ago",
        description="Remove plans and finished segments of runs that have ended. Outcomes, steps, "
        "sums and digests stay.",
    )
    purge.add_argument(
        "--older-than",
        type=days,
        metavar="DAYS",
        help="runs that ended so long ago (default: catalog.ledger_retention_days)",
    )
    purge.set_defaults(command="starter.administration:purge_ledger")


def _add_looks(commands: Any, common: argparse.ArgumentParser) -> None:
    status = commands.add_parser("status", parents=[common], help="where a run is")
    status.add_argument("key", metavar="KEY")
    status.set_defaults(command="starter.commands:status")
    listed = commands.add_parser("list", parents=[common], help="all runs, newest first")
    listed.set_defaults(command="starter.commands:list_runs")
    watch = commands.add_parser(
        "watch",
        parents=[common],
        help="follow a run",
        description="Follow a run until a person is needed or it ends. Leaving it with Ctrl-C "
        "does not disturb the run.",
    )
    watch.add_argument("key", metavar="KEY")
    _until(watch)
    watch.set_defaults(command="starter.watching:watch")


def _until(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--until",
        choices=["decision", "end"],
        default="decision",
        help="stop when the run awaits the decision (default), or when it has ended",
    )
