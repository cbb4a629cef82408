"""Checks of hosts, datastores and, for a VM that is to be made, its place."""

from __future__ import annotations

from collections.abc import Iterator

from failback.contracts.placement import DatastoreView
from failback.contracts.plan import Finding
from failback.preflight.carry import carried
from failback.preflight.evidence import Evidence, refuse, warn

GIB = 1 << 30


def host_maintenance(e: Evidence) -> Iterator[Finding]:
    for view in (e.replica, e.target):
        if view.in_maintenance and not any(store.in_maintenance for store in view.datastores):
            yield refuse(
                "HOST_MAINTENANCE",
                view.identity,
                f"The host of {view.identity} is in maintenance mode.",
                "Leave maintenance mode, or move the VM.",
            )
    if e.placement is not None and e.placement.host_in_maintenance:
        yield refuse(
            "HOST_MAINTENANCE",
            e.placement.host,
            f"Host {e.placement.host}, where the VM is to be, is in maintenance mode.",
            "Leave maintenance mode, or choose another host.",
        )


def datastore_usable(e: Evidence) -> Iterator[Finding]:
    for store in _datastores(e):
        if store.in_maintenance:
            yield refuse(
                "DATASTORE_MAINTENANCE",
                store.name,
                f"Datastore {store.name} is in maintenance mode, or enters it.",
                "Leave maintenance mode, or move the disks.",
            )
        if not store.accessible:
            yield refuse(
                "DATASTORE_INACCESSIBLE",
                store.name,
                f"Datastore {store.name} cannot be reached from its hosts.",
                "Bring it back first.",
            )


def room(e: Evidence) -> Iterator[Finding]:
    for store, need, worst in needs(e):
        reserve = reserve_bytes(store)
        told = (
            f"Datastore {store.name} has {_told(store.free_bytes)} free; about {_told(need)} are "
            f"needed ({e.request.expected_change_percent} % of its disks, or what change tracking "
            f"says), at worst {_told(worst)}"
        )
        if need > store.free_bytes:
            yield refuse(
                "NO_ROOM",
                store.name,
                f"{told}.",
                "Make room, or start with a smaller --expected-change-percent if you know it.",
            )
        elif store.free_bytes - need < reserve:
            yield warn(
                "ROOM_SCARCE",
                store.name,
                f"{told}; then less than the reserve of {_told(reserve)} is left.",
                "Make room before the run.",
            )


def placement(e: Evidence) -> Iterator[Finding]:
    if e.placement is None:
        return
    for one in e.placement.missing:
        known = ", ".join(one.candidates) or "none"
        what = (
            f"There is no {one.kind} {one.name}"
            if one.name
            else f"There is not exactly one {one.kind}, and none was named"
        )
        code = "NETWORK_MISSING" if one.kind == "network" else "PLACEMENT_MISSING"
        yield refuse(code, one.name or one.kind, f"{what}.", f"There are: {known}.")


def name_free(e: Evidence) -> Iterator[Finding]:
    if e.placement is not None and e.placement.taken_by:
        yield refuse(
            "NAME_TAKEN",
            e.new_name,
            f"The folder has something named {e.new_name} already ({e.placement.taken_by}).",
            "Choose another name or folder.",
        )


def needs(e: Evidence) -> Iterator[tuple[DatastoreView, int, int]]:
    """Each datastore that will hold what is written, with bytes expected and at worst.

    The target's disks grow by what is written, in its protective snapshot; the replica's by what
    its guest writes until the switch, in the read snapshot, for which the same share is assumed.
    """
    for view in (e.replica, e.target):
        stores = {store.moref: store for store in view.datastores}
        expected: dict[str, int] = dict.fromkeys(stores, 0)
        worst: dict[str, int] = dict.fromkeys(stores, 0)
        addresses = {p.target_key if view is e.target else p.replica_key: p for p in e.pairs()}
        for disk in view.disks:
            pair = addresses.get(disk.key)
            if pair is None or disk.datastore not in stores:
                continue
            share = pair.capacity_bytes * e.request.expected_change_percent // 100
            if view is e.target and e.makes_target:
                # Everything that the replica's disk holds is copied.
                share = disk.stored_bytes if disk.stored_bytes is not None else pair.capacity_bytes
            made = view is e.target and e.makes_target
            tracked = share if made else e.tracked_bytes.get(str(pair.address), share)
            expected[disk.datastore] += min(pair.capacity_bytes, tracked)
            worst[disk.datastore] += pair.capacity_bytes
        for moref, size in _added(e) if view is e.target else ():
            if moref in stores:
                expected[moref] += size
                worst[moref] += size
        for moref, store in stores.items():
            if worst[moref]:
                yield store, expected[moref], worst[moref]


def _added(e: Evidence) -> Iterator[tuple[str, int]]:
    """Datastore and size of each disk that is carried over: all of it is written."""
    carry = carried(e)
    names = {store.name: store.moref for store in e.target.datastores}
    for disk in carry.disks if carry is not None else ():
        moref = names.get(disk.folder[1:].partition("]")[0])
        if moref is not None:
            yield moref, disk.capacity_bytes


def reserve_bytes(store: DatastoreView) -> int:
    """Room that is to stay free: 10 GiB or 5 %, whichever is more."""
    return max(10 * GIB, store.capacity_bytes // 20)


def tight(e: Evidence) -> tuple[tuple[str, DatastoreView], ...]:
    """(site, datastore) where the free space as last told by the site does not settle the question:
    worth refreshing before a run is refused for it."""
    return tuple(
        (view.identity.site, store)
        for view in (e.replica, e.target)
        for store, need, _ in needs(e)
        if store in view.datastores and store.free_bytes < 2 * need + reserve_bytes(store)
    )


def _datastores(e: Evidence) -> tuple[DatastoreView, ...]:
    placed = e.placement.datastores if e.placement is not None else ()
    found = {
        (view.identity.vcenter_uuid, store.moref): store
        for view in (e.replica, e.target)
        for store in view.datastores
    }
    return (*found.values(), *placed)


def _told(size: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << power:
            return f"{size / (1 << power):.1f} {unit}"
    return f"{size} bytes"


CHECKS = (host_maintenance, datastore_usable, room, placement, name_free)
