"""The hash of a plan: a short digest for each part of the world that the plan rests on.

One digest over everything could only say that something changed. With one for each part a start
names what changed, and nothing has to be kept between the plan and the start. Not part of it is
what moves by itself while the replica works: the clock, free space, change ids, the host a VM is
on, and snapshots of the replica (their numbers are taken off its disks' file names).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from failback.contracts.placement import DatastoreView
from failback.contracts.plan import Finding
from failback.contracts.vm import Disk, VmIdentity, VmView
from failback.preflight.evidence import Evidence, refuse

VERSION = "p1-"
"""Changes with the parts, their order or what belongs to one of them."""
DIGITS = 6
"""Of base 32: two different parts look the same once in a thousand million."""
_SNAPSHOT_NUMBER = re.compile(r"-\d{6}(?=\.vmdk$)")


@dataclass(frozen=True)
class Known:
    """Everything that the hash is made of."""

    evidence: Evidence
    source: VmIdentity
    """The replica's source VM in the catalog."""
    jobs: Sequence[str] = ()
    """Replication jobs that include it."""


Part = tuple[str, Callable[[Known], object]]
"""What people call it, and what belongs to it."""


def _options(known: Known) -> object:
    # Defaults are left out, so that an option of a later release does not change old hashes.
    return known.evidence.request.model_dump(
        mode="json", exclude={"by", "reason", "plan_hash"}, exclude_defaults=True
    )


def _identity(view: VmView) -> object:
    return (
        view.identity,
        view.is_template,
        view.connection_state,
        view.fault_tolerant,
        view.hardware_version,
        view.firmware,
        view.vtpm,
        view.passthrough,
        view.in_vapp,
    )


def _disk(disk: Disk, file: str) -> object:
    size = (disk.capacity_bytes, disk.mode, disk.datastore, disk.linked, disk.refusals)
    return (disk.key, str(disk.address), file, *size)


def _disks_of_replica(known: Known) -> object:
    disks = known.evidence.replica.disks
    return [_disk(disk, _SNAPSHOT_NUMBER.sub("", disk.file)) for disk in disks]


def _disks_of_target(known: Known) -> object:
    # A disk that is still to be made has no file, only a datastore.
    made = known.evidence.makes_target
    return [_disk(disk, "" if made else disk.file) for disk in known.evidence.target.disks]


def _power(view: VmView) -> object:
    return (view.power, view.tools_running, view.question)


def _computing(view: VmView) -> object:
    return (view.cpus, view.memory_mb)


def _tracking(known: Known) -> object:
    views = (known.evidence.replica, known.evidence.target)
    return [(view.tracking_enabled, view.tracking_supported) for view in views]


def _places(known: Known) -> object:
    views = (known.evidence.replica, known.evidence.target)
    return [(view.in_maintenance, _stores(view.datastores)) for view in views]


def _placement(known: Known) -> object:
    placed = known.evidence.placement
    if placed is None:
        return None
    kept = placed.model_dump(mode="json", exclude={"datastores"})
    return (known.evidence.new_name, kept, _stores(placed.datastores))


def _stores(stores: Sequence[DatastoreView]) -> object:
    return sorted((s.moref, s.name, s.url, s.accessible, s.in_maintenance) for s in stores)


def _catalog(known: Known) -> object:
    evidence = known.evidence
    return (evidence.state, known.source, sorted(known.jobs), sorted(evidence.running_jobs))


def _old_source(known: Known) -> object:
    view = known.evidence.old_source
    seen = (view.identity, view.power) if view is not None else None
    return (seen, bool(known.evidence.old_source_unknown))


PARTS: tuple[Part, ...] = (
    ("the options of the run", _options),
    ("the catalog's record of the replica and its replication jobs", _catalog),
    ("the VM replica itself", lambda k: _identity(k.evidence.replica)),
    ("the VM replica's disks", _disks_of_replica),
    ("the VM replica's power state or guest tools", lambda k: _power(k.evidence.replica)),
    ("the VM replica's CPUs or memory", lambda k: _computing(k.evidence.replica)),
    ("the VM replica's network cards", lambda k: k.evidence.replica.nics),
    ("the target VM itself", lambda k: _identity(k.evidence.target)),
    ("the target VM's disks", _disks_of_target),
    (
        "the target VM's snapshots",
        lambda k: (k.evidence.target.snapshots, k.evidence.target.current_snapshot),
    ),
    ("the target VM's power state or guest tools", lambda k: _power(k.evidence.target)),
    ("the target VM's CPUs or memory", lambda k: _computing(k.evidence.target)),
    ("the target VM's network cards", lambda k: k.evidence.target.nics),
    ("change tracking of either VM", _tracking),
    ("the datastores or hosts of either VM", _places),
    ("the old source VM", _old_source),
    ("the place of the new VM", _placement),
)


def plan_hash(known: Known) -> str:
    """`p1-` and six letters or digits for each part, in order."""
    return VERSION + "".join(_digest(part(known)) for _, part in PARTS)


def changed(promised: str, now: str) -> tuple[str, ...]:
    """Names of the parts that differ between two hashes; ValueError: `promised` is no such hash."""
    if not re.fullmatch(rf"{VERSION}[a-z2-7]{{{len(PARTS) * DIGITS}}}", promised):
        raise ValueError(promised)
    at = range(len(VERSION), len(now), DIGITS)
    pairs = ((promised[i : i + DIGITS], now[i : i + DIGITS]) for i in at)
    return tuple(name for (name, _), (a, b) in zip(PARTS, pairs, strict=True) if a != b)


def plan_kept(evidence: Evidence, now: str) -> tuple[Finding, ...]:
    """A finding that refuses if the request carries the hash of a plan of another world."""
    key, promised = evidence.request.replica, evidence.request.plan_hash
    if not promised:
        return ()
    again = f"Look at it anew: failback plan {key}."
    try:
        parts = changed(promised, now)
    except ValueError:
        text = f"{promised[:40]!r} is not a plan hash of this version, or not all of one."
        return (refuse("PLAN_HASH_INVALID", key, text, again),)
    if not parts:
        return ()
    text = f"The world is not that of the plan; different now: {'; '.join(parts)}."
    return (refuse("PLAN_DRIFTED", key, text, again),)


def _digest(part: object) -> str:
    text = json.dumps(part, sort_keys=True, separators=(",", ":"), default=_plain)
    raw = hashlib.blake2s(text.encode(), digest_size=5, person=b"failback").digest()
    return base64.b32encode(raw).decode().lower()[:DIGITS]


def _plain(value: Any) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be part of a plan hash")
