"""Where the finished segments of a command are kept: nowhere, on the screen, or in a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from failback.catalog import schema
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.disks.command.sides import Pair
from failback.disks.ledger import LedgerIdentity, PassLedger
from failback.disks.plan import Extent, TransferPlan
from failback.errors import SettingsInvalid

_SQLITE = b"SQLite format 3\0"
_DISK = "sync"


@contextmanager
def kept(
    file: Path, pair: Pair, plan: TransferPlan, note: Callable[[str], None]
) -> Iterator[PassLedger]:
    """The pass of these two disks in a ledger file; SettingsInvalid, CatalogUnavailable."""
    with _store(file) as store:
        plan_id = plan_of(pair)
        if store.is_complete(plan_id):
            store.forget(plan_id)
        before = len(store.finished(plan_id))
        identity = LedgerIdentity(pair.source_identity, pair.target_identity)
        store.save(plan_id, f"{_DISK}/{plan_id}", identity, plan)
        after = len(store.finished(plan_id))
        if before and not after:
            note("The ledger is of other disks or another plan: everything is compared again.")
        elif after:
            note(f"Going on: {after} segments are finished already.")
        yield store.open(plan_id, f"process {os.getpid()}")


def written(file: Path, pair: Pair) -> tuple[Extent, ...]:
    """What the sync with this ledger wrote; SettingsInvalid where it knows of none."""
    if not file.exists():
        raise SettingsInvalid(f"There is no ledger {file}.", "Check its path.")
    with _store(file) as store:
        plan_id = plan_of(pair)
        if not store.is_complete(plan_id):
            raise SettingsInvalid(
                f"The ledger {file} has no complete sync of these two disks.",
                "Finish the sync first, or verify the whole disk without --ledger.",
            )
        return tuple(store.written(f"{_DISK}/{plan_id}"))


def plan_of(pair: Pair) -> str:
    """One ledger may serve several pairs of disks."""
    names = f"{pair.source.name}\0{pair.target.name}".encode()
    return f"{_DISK}/{hashlib.blake2b(names, digest_size=12).hexdigest()}"


@contextmanager
def _store(file: Path) -> Iterator[SqlLedgerStore]:
    try:
        with file.open("rb") as found:
            start = found.read(len(_SQLITE))
    except FileNotFoundError:
        start = b""
    except OSError as error:
        raise SettingsInvalid(
            f"The ledger {file} cannot be read ({error.strerror}).", "Name another file."
        ) from error
    if start not in (b"", _SQLITE):
        raise SettingsInvalid(
            f"{file} is not a ledger, and is left alone.", "Name a file that is not there yet."
        )
    url = f"sqlite:///{file.absolute()}"
    schema.migrate(url)
    with closing(Catalog(url)) as catalog:
        yield SqlLedgerStore(catalog)
