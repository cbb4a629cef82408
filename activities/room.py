"""Free room on the datastores of both sides while disks are written.

A target grows with every block that is written to it, and a snapshot of a running replica with
every block that its guest writes. A datastore that fills up stops all VMs on it.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from failback.contracts.operations import DiskCall
from failback.contracts.placement import DatastoreView
from failback.contracts.vm import VmView
from failback.errors import FailbackError, NoRoomSoon
from failback.hypervisor.ports import Sites

log = logging.getLogger(__name__)

LOOK_S = 30.0
GIB = 1 << 30


@dataclass(frozen=True)
class Reserve:
    """How much of a datastore stays free: the larger of the two."""

    bytes: int = 10 * GIB
    percent: float = 5.0

    def of(self, store: DatastoreView) -> int:
        """Bytes that are to stay free on this datastore."""
        return max(self.bytes, int(store.capacity_bytes * self.percent / 100))

    def short(self, stores: Iterable[DatastoreView]) -> DatastoreView | None:
        """The first datastore with less free room; one whose size is not told is passed over."""
        return next(
            (one for one in stores if one.capacity_bytes and one.free_bytes < self.of(one)), None
        )

    def words(self, store: DatastoreView) -> str:
        """How short a datastore is, for people."""
        return (
            f"datastore {store.name} has {store.free_bytes / GIB:.2f} GiB free of "
            f"{store.capacity_bytes / GIB:.2f} GiB, less than the reserve of "
            f"{self.of(store) / GIB:.2f} GiB"
        )


def stores_of(view: VmView, disk_keys: frozenset[int] | None = None) -> tuple[DatastoreView, ...]:
    """Datastores of the VM's disks (of these keys). Others that it uses, such as one with images of
    CDs, do not grow. All of the VM's where the site does not say which disk is where."""
    wanted = {
        disk.datastore for disk in view.disks if disk_keys is None or disk.key in disk_keys
    } - {None}
    return tuple(one for one in view.datastores if not wanted or one.moref in wanted)


def look(sites: Sites, reserve: Reserve, call: DiskCall) -> None:
    """Raise NoRoomSoon when a datastore of either side of a disk has too little free room.

    What a vCenter says may be half an hour old, so a datastore that seems short, or nearly, is
    looked at anew by the site before it is believed."""
    near = Reserve(2 * reserve.bytes, min(2 * reserve.percent, 100.0))
    for opening in (call.target, call.source):
        site = sites.site(opening.site)
        vm, keys = site.find(opening.vm_moref), frozenset({opening.disk_key})
        stores = stores_of(site.read([vm])[0], keys)
        if near.short(stores) is None:
            continue
        site.refresh_datastores([one.moref for one in stores])
        short = reserve.short(stores_of(site.read([vm])[0], keys))
        if short is not None:
            raise NoRoomSoon(
                f"NO_ROOM_SOON: {reserve.words(short)} (site {opening.site}, disk "
                f"{call.plan.address} of {vm}).",
                "Make room there and send retry, or send undo; transfer.reserve_bytes and "
                "transfer.reserve_percent set the reserve.",
                datastore=short.name,
                free_bytes=short.free_bytes,
            )


class RoomWatch:
    """Looks at both datastores every half minute from a thread of its own, so that no answer of a
    site is waited for while disks are open; what it found is raised by `check`."""

    def __init__(
        self, sites: Sites, reserve: Reserve, call: DiskCall, interval_s: float = LOOK_S
    ) -> None:
        self._sites, self._reserve, self._call = sites, reserve, call
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._short: NoRoomSoon | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="room", daemon=True
        )

    def __enter__(self) -> RoomWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Not joined: a site that does not answer keeps its thread until its own time limit.
        self._stop.set()

    def check(self) -> None:
        """Raise what was found."""
        if self._short is not None:
            raise self._short

    def _run(self) -> None:
        for _ in self._rounds():
            try:
                look(self._sites, self._reserve, self._call)
            except NoRoomSoon as error:
                self._short = error
                return
            except FailbackError as error:
                # Not to be asked is no reason to stop: the disk itself tells when it is full.
                log.info("room not looked at", extra={"code": error.type, "detail": str(error)})

    def _rounds(self) -> Iterator[None]:
        yield None
        while not self._stop.wait(self._interval_s):
            yield None
