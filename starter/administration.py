"""What the commands that administer the catalog share: settings and catalog, opened when called."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from failback.catalog.records import ReplicaDetail, ReplicaRecord
from failback.catalog.repository import Catalog
from failback.catalog.schema import migrate
from failback.settings import Settings, load_settings
from starter.shell import Shell

_RECORD: TypeAdapter[ReplicaRecord] = TypeAdapter(ReplicaRecord)
_DETAIL: TypeAdapter[ReplicaDetail] = TypeAdapter(ReplicaDetail)


def settings(shell: Shell, file: str | None) -> Settings:
    """The settings of `--settings`, FAILBACK_SETTINGS or the usual place; SettingsInvalid."""
    return load_settings(Path(file) if file else None, shell.environ)


@contextmanager
def catalog(of: Settings) -> Iterator[Catalog]:
    """The catalog, closed afterwards; CatalogUnavailable."""
    with closing(Catalog(of.catalog_url)) as opened:
        yield opened


def migrate_catalog(args: argparse.Namespace, shell: Shell) -> int:
    """`failback catalog migrate`."""
    migrate(settings(shell, args.settings).catalog_url)
    shell.give({"migrated": True})
    shell.say("The catalog is up to date.")
    return 0


def forget_host(args: argparse.Namespace, shell: Shell) -> int:
    """`failback catalog forget-host`."""
    with catalog(settings(shell, args.settings)) as opened:
        opened.forget_mover_host(args.machine)
    shell.give({"forgotten": args.machine})
    shell.say(f"Machine {args.machine} runs movers no more.")
    return 0


def purge_ledger(args: argparse.Namespace, shell: Shell) -> int:
    """`failback catalog purge`."""
    configured = settings(shell, args.settings)
    days = args.older_than
    retention = configured.ledger_retention if days is None else timedelta(days=days)
    with catalog(configured) as opened:
        purged = opened.purge_ledger(retention)
    shell.give({"plans": purged.plans, "segments": purged.segments})
    shell.say(f"Removed {purged.segments} segments of {purged.plans} passes of runs that are over.")
    return 0


def record_json(record: ReplicaRecord) -> dict[str, Any]:
    """A replica for machines."""
    fields: dict[str, Any] = _RECORD.dump_python(record, mode="json")
    return {**fields, "replication_on_hold": record.replication_on_hold}


def detail_json(detail: ReplicaDetail) -> dict[str, Any]:
    """A replica and all that hangs on it, for machines."""
    fields: dict[str, Any] = _DETAIL.dump_python(detail, mode="json")
    return {**fields, "replica": record_json(detail.replica)}
