"""Where a VM is to be, and what of it there is at the site."""

from __future__ import annotations

from pydantic import Field

from failback.contracts.base import Contract, Name, Text


class DiskPlace(Contract):
    """Datastore of one disk, where it is not the placement's own."""

    address: Name
    """Address of the replica's disk, `scsi0:2`."""
    datastore: Text


class NetworkMap(Contract):
    """Network of the replica and the network that takes its place."""

    replica: Text
    target: Text


class Placement(Contract):
    """Where a new VM goes. Names, inventory paths or morefs; empty: the site has only one."""

    host: Text = ""
    cluster: Text = ""
    pool: Text = ""
    """Resource pool; empty: the root pool of the cluster or host."""
    folder: Text = ""
    """VM folder; empty: the datacenter's own."""
    datastore: Text = ""
    disks: tuple[DiskPlace, ...] = Field(default=(), max_length=64)
    networks: tuple[NetworkMap, ...] = Field(default=(), max_length=64)
    """A replica network not named here keeps its name."""
    storage_policy: Text = ""
    """Id of a storage policy (profile); empty: the datastore's default."""


class Misplaced(Contract):
    """Something a placement names and the site does not have, or has more than once."""

    kind: Name
    """`host`, `cluster`, `pool`, `folder`, `datastore` or `network`."""
    name: Text
    candidates: tuple[Text, ...] = Field(default=(), max_length=8)
    """Names that there are: none fits, or all of these do."""


class DatastoreView(Contract):
    """One datastore, as read."""

    moref: Name
    name: Text
    url: Text = ""
    """Identity across names and hosts, `ds:///vmfs/volumes/<uuid>/`."""
    capacity_bytes: int = 0
    free_bytes: int = 0
    accessible: bool = True
    in_maintenance: bool = False


class PlacementView(Contract):
    """What of a placement there is. With anything `missing` the other fields may be empty."""

    missing: tuple[Misplaced, ...] = Field(default=(), max_length=64)
    host: Name = ""
    """Name of the host; empty: the cluster chooses."""
    host_in_maintenance: bool = False
    datastores: tuple[DatastoreView, ...] = Field(default=(), max_length=64)
    taken_by: Name = ""
    """moref of what bears the wanted name in the folder already; empty: the name is free."""
