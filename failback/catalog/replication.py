"""Replication of a VM is on hold while its replica is not READY.

That follows from the replica's state, so there is nothing to switch: a port with a command for a
foreign replication tool would act in `hold` and `release`, the catalog only checks.
"""

from __future__ import annotations

from typing import Protocol

from failback.catalog.repository import Catalog
from failback.errors import StateConflict


class ReplicationControl(Protocol):
    """Holding and releasing the replication of a VM."""

    def hold(self, key: str) -> None:
        """Make sure that nothing replicates onto this replica; already on hold is success."""
        ...

    def release(self, key: str) -> None:
        """Let replication go on after a commit; already released is success."""
        ...

    def is_running(self, job: str) -> bool:
        """Whether this replication job is at work now."""
        ...


class CatalogReplication:
    """ReplicationControl by the catalog alone; foreign tools read it and set `running`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def hold(self, key: str) -> None:
        """StateConflict while the replica is READY: then its replication may run."""
        if not self._catalog.get_replica(key).replication_on_hold:
            raise StateConflict(
                f"Replication onto replica {key} is not on hold: the replica is READY.",
                "Record its failover with `failback replica mark-failover`.",
            )

    def release(self, key: str) -> None:
        """StateConflict while the replica is not READY: only a commit releases it."""
        record = self._catalog.get_replica(key)
        if record.replication_on_hold:
            raise StateConflict(
                f"Replication onto replica {key} stays on hold: the replica is {record.state}.",
                "Commit its run.",
            )

    def is_running(self, job: str) -> bool:
        """What the foreign tool last said."""
        return self._catalog.get_job(job).running
