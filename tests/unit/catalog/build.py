"""What the tests of the catalog are made of."""

from __future__ import annotations

from datetime import UTC, datetime

from failback.catalog.repository import Catalog
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import ReplicaState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

FAILOVER, FAILBACK = ReplicaState.FAILOVER, ReplicaState.FAILBACK
READY, WAITING = ReplicaState.READY, ReplicaState.READY_TO_SWITCH


def vm(site: str, moref: str, **other: str) -> VmIdentity:
    """A VM whose every field follows from site and moref."""
    fields = {
        "vcenter_uuid": f"vcenter-{site}",
        "name": f"name-{moref}",
        "instance_uuid": f"instance-{moref}",
        "bios_uuid": f"bios-{moref}",
        "path": f"/{site}/vm/{moref}",
    }
    return VmIdentity(site=site, moref=moref, **{**fields, **other})


def add(catalog: Catalog, key: str, state: ReplicaState = FAILOVER) -> None:
    """A replica with VMs of its own."""
    catalog.add_replica(key, vm("dr", f"{key}-replica"), vm("production", f"{key}-source"), state)


def start(catalog: Catalog, run_id: str, key: str) -> None:
    """A run with its claims, as preflight leaves it."""
    catalog.open_run(run_id, f"failback/{key}", key, StartRequest(replica=key))
    catalog.claim(run_id, [f"replica:{key}", f"vm:{key}-source"])


def switched(catalog: Catalog, run_id: str, key: str) -> None:
    """A replica whose run waits for the decision."""
    add(catalog, key)
    start(catalog, run_id, key)
    catalog.set_state(run_id, key, FAILBACK, [FAILOVER, WAITING])
