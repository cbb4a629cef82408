"""Resolving a placement: names of people to objects of the site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from failback.contracts.placement import Misplaced, Placement, PlacementView
from failback.contracts.vm import VmIdentity
from failback.errors import PlacementInvalid
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere.api import Ref, moref, vim
from failback.hypervisor.vsphere.nics import Network, read_networks
from failback.hypervisor.vsphere.properties import Read, read_objects, walk
from failback.hypervisor.vsphere.session import Session
from failback.hypervisor.vsphere.views import DATASTORE_PATHS, datastore_view, unescaped

SUGGESTIONS = 8

_PATHS: Mapping[str, Sequence[str]] = {
    "Datacenter": ("name", "parent", "vmFolder", "datastore", "network"),
    "Folder": ("name", "parent", "childType"),
    "ComputeResource": ("name", "parent", "resourcePool", "host"),
    "ResourcePool": ("name", "parent", "owner"),
    "HostSystem": ("name", "parent", "runtime.inMaintenanceMode", "datastore", "network"),
    "Datastore": DATASTORE_PATHS,
}


@dataclass(frozen=True)
class Store:
    """A datastore."""

    ref: Ref
    name: str


@dataclass(frozen=True)
class Place:
    """A placement, resolved."""

    folder: Ref
    pool: Ref
    host: Ref | None
    datastore: Store
    disks: Mapping[str, Store] = field(default_factory=dict)
    """Datastore by disk address, where it is not `datastore`."""
    networks: Mapping[str, Network] = field(default_factory=dict)
    """By the name of the replica's network."""
    here: Mapping[str, Network] = field(default_factory=dict)
    """All networks of the host or datacenter, by their own names."""

    def network(self, replica: str) -> Network:
        """What takes the place of this network of the replica; PlacementInvalid."""
        found = self.networks.get(replica) or self.here.get(replica)
        if found is None:
            raise PlacementInvalid(
                f"There is no network {replica} where the VM is to be.",
                f"Map it to one of: {', '.join(sorted(self.here)[:SUGGESTIONS]) or 'none'}.",
            )
        return found


def place(session: Session, placement: Placement, name: str) -> PlacementView:
    """What of the placement there is; missing things are listed, not raised."""
    found = _Resolver(session, placement, None)
    if found.missing:
        return found.view(taken_by="")
    child = session.read(
        session.login().content.searchIndex, "FindChild", found.place().folder, escaped(name)
    )
    return found.view(taken_by=moref(child) if child is not None else "")


def resolve(session: Session, placement: Placement, beat: Beat) -> Place:
    """The objects a placement names; PlacementInvalid says what is missing."""
    found = _Resolver(session, placement, beat)
    if found.missing:
        first = found.missing[0]
        raise PlacementInvalid(
            f"Site {session.site} has no {first.kind} {first.name}."
            if first.name
            else f"Site {session.site} has more than one {first.kind}, and none was named.",
            f"There are: {', '.join(first.candidates) or 'none'}.",
            missing=", ".join(f"{one.kind} {one.name}" for one in found.missing),
        )
    return found.place()


def folder_named(session: Session, folder: str, vm: VmIdentity, beat: Beat) -> Ref:
    """The VM folder of this name, path or moref; PlacementInvalid."""
    found = _Resolver(session, Placement(folder=folder), beat)
    if found.folder is None:
        raise PlacementInvalid(
            f"Site {session.site} has no folder {folder} for {vm}.", "Correct its name."
        )
    return found.folder


def escaped(name: str) -> str:
    """A name as vSphere stores it."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


class _Resolver:
    """Reads the inventory without its VMs, once, and picks what the placement names."""

    def __init__(self, session: Session, placement: Placement, beat: Beat | None) -> None:
        self.missing: list[Misplaced] = []
        self._session, self._beat = session, beat
        self._all = {moref(entry.ref): entry for entry in _inventory(session, beat)}
        self._placement = placement
        self._resolve()

    def _resolve(self) -> None:
        wanted = self._placement
        self.host = self._pick("host", wanted.host, "HostSystem") if wanted.host else None
        if self.host is not None:
            compute = self._all.get(moref(self._all[moref(self.host)].get("parent")))
        else:
            picked = self._pick("cluster", wanted.cluster, "ComputeResource", empty=True)
            compute = self._all.get(moref(picked)) if picked is not None else None
        center = self._datacenter(compute)
        self.folder = self._folder(wanted.folder, center)
        self.pool = self._pool(wanted.pool, compute)
        # What the host reaches; where the cluster chooses, what the datacenter has.
        reach = self._all[moref(self.host)] if self.host is not None else center
        stores = [moref(d) for d in (reach.get("datastore") or ())] if reach is not None else []
        self.store = self._datastore(wanted.datastore, stores)
        self.disks = {
            disk.address: store
            for disk in wanted.disks
            if (store := self._datastore(disk.datastore, stores)) is not None
        }
        refs = (reach.get("network") or ()) if reach is not None else ()
        self.here = {n.name: n for n in read_networks(self._session, list(refs), self._beat)}
        self.networks = {}
        for pair in wanted.networks:
            network = self.here.get(pair.target)
            if network is None:
                self._miss("network", pair.target, self.here)
            else:
                self.networks[pair.replica] = network

    def place(self) -> Place:
        assert self.store is not None
        return Place(
            self.folder, self.pool, self.host, self.store, self.disks, self.networks, self.here
        )

    def view(self, taken_by: str) -> PlacementView:
        host = self._all[moref(self.host)] if self.host is not None else None
        stores = {moref(s.ref) for s in (self.store, *self.disks.values()) if s is not None}
        return PlacementView(
            missing=tuple(self.missing),
            host=str(host.get("name")) if host is not None else "",
            host_in_maintenance=bool(host and host.get("runtime.inMaintenanceMode")),
            datastores=tuple(datastore_view(self._all[store]) for store in sorted(stores)),
            taken_by=taken_by,
        )

    def _pick(self, kind: str, wanted: str, *types: str, empty: bool = False) -> Ref | None:
        # Clusters are compute resources of a type of their own.
        classes = tuple(getattr(vim, name) for name in types)
        return self._choose(
            kind, wanted, [e for e in self._all.values() if isinstance(e.ref, classes)], empty
        )

    def _choose(
        self, kind: str, wanted: str, entries: Sequence[Read], empty: bool = False
    ) -> Ref | None:
        fit = [e for e in entries if self._is(e, wanted)] if wanted else list(entries)
        if len(fit) == 1 and (wanted or empty):
            return fit[0].ref
        self._miss(kind, wanted, (self._path(e) for e in fit or entries))
        return None

    def _miss(self, kind: str, wanted: str, candidates: Iterable[str]) -> None:
        told = tuple(sorted(candidates)[:SUGGESTIONS])
        self.missing.append(Misplaced(kind=kind, name=wanted, candidates=told))

    def _is(self, entry: Read, wanted: str) -> bool:
        name = unescaped(entry.get("name") or "")
        return wanted in {moref(entry.ref), name} or (
            "/" in wanted and self._path(entry).strip("/") == wanted.strip("/")
        )

    def _path(self, entry: Read) -> str:
        parts: list[str] = []
        at: Read | None = entry
        while at is not None:
            parts.append(unescaped(at.get("name") or ""))
            parent = at.get("parent")
            at = self._all.get(moref(parent)) if parent is not None else None
        # The root folder has no name that people use.
        return "/".join(reversed(parts[:-1])) if len(parts) > 1 else parts[0]

    def _datacenter(self, compute: Read | None) -> Read | None:
        at = compute
        while at is not None and not isinstance(at.ref, vim.Datacenter):
            parent = at.get("parent")
            at = self._all.get(moref(parent)) if parent is not None else None
        if at is not None:
            return at
        centers = [e for e in self._all.values() if isinstance(e.ref, vim.Datacenter)]
        return centers[0] if len(centers) == 1 else None

    def _folder(self, wanted: str, center: Read | None) -> Ref | None:
        if wanted:
            folders = [
                entry
                for entry in self._all.values()
                if isinstance(entry.ref, vim.Folder)
                and "VirtualMachine"
                in (str(t).rpartition(".")[2] for t in self._child_types(entry))
            ]
            return self._choose("folder", wanted, folders)
        if center is None:
            self._miss("folder", "", ())  # several datacenters, and nothing says which
            return None
        return center.get("vmFolder")

    def _child_types(self, entry: Read) -> Sequence[object]:
        return [getattr(kind, "__name__", kind) for kind in entry.get("childType") or ()]

    def _pool(self, wanted: str, compute: Read | None) -> Ref | None:
        if not wanted:
            return compute.get("resourcePool") if compute is not None else None
        pools = [
            entry
            for entry in self._all.values()
            if isinstance(entry.ref, vim.ResourcePool)
            and (compute is None or moref(entry.get("owner")) == moref(compute.ref))
        ]
        return self._choose("pool", wanted, pools)

    def _datastore(self, wanted: str, reachable: Sequence[str]) -> Store | None:
        entries = [self._all[store] for store in reachable if store in self._all]
        found = self._choose("datastore", wanted, entries, empty=True)
        return Store(found, self._all[moref(found)].get("name")) if found is not None else None


def _inventory(session: Session, beat: Beat | None) -> list[Read]:
    return read_objects(
        session,
        [session.login(beat).content.rootFolder],
        _PATHS,
        (
            walk(
                "Folder",
                "childEntity",
                "folder",
                "dc-vm",
                "dc-host",
                "dc-ds",
                "cr",
                "host-of",
                name="folder",
            ),
            walk("Datacenter", "vmFolder", "folder", name="dc-vm"),
            walk("Datacenter", "hostFolder", "folder", name="dc-host"),
            walk("Datacenter", "datastore", name="dc-ds"),
            walk("ComputeResource", "resourcePool", "pool", name="cr"),
            walk("ComputeResource", "host", name="host-of"),
            walk("ResourcePool", "resourcePool", "pool", name="pool"),
        ),
        beat,
    )
