"""Two in-memory sites, a real catalog in a file, and activities bound as a worker binds them."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.disks import Disks
from activities.registry import Rooms, control, mover
from failback.catalog import schema
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.contracts.operations import RunRef
from failback.contracts.plan import RunPlan, Tuning
from failback.contracts.start import StartRequest
from failback.contracts.vm import DiskPair, VmIdentity
from failback.contracts.words import PowerState, ReplicaState, StepName
from failback.disks.copier import CopyOptions
from failback.disks.kinds import DatastoreAccess
from failback.hypervisor.testing import FakeSite, FakeSites

MIB = 1024 * 1024
RUN = RunRef(run_id="run-1", replica="web01")
_ids = itertools.count(1)


@dataclass
class World:
    """Everything an activity can reach."""

    root: Path
    sites: FakeSites
    production: FakeSite
    dr: FakeSite
    target: VmIdentity
    replica: VmIdentity
    catalog: Catalog
    rooms: Rooms
    activities: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def run(self, name: str, argument: Any, **info: Any) -> Any:
        """Run one attempt of an activity: a new scheduling unless `activity_id` says otherwise."""
        return self.environment(**info).run(self.activities[name], argument)

    @staticmethod
    def environment(**info: Any) -> ActivityEnvironment:
        """An environment for one attempt."""
        environment = ActivityEnvironment()
        given = {"activity_id": str(next(_ids)), "heartbeat_timeout": timedelta(seconds=3), **info}
        environment.info = dataclasses.replace(environment.info, **given)
        return environment

    def head(self, step: StepName = StepName.PROTECT_TARGET, **more: Any) -> dict[str, Any]:
        """Common fields of an argument."""
        return {"run": RUN, "step": step, **more}


def make(root: Path) -> World:
    """Production VM off with a snapshot-free history, replica running, run opened and claimed."""
    sites = FakeSites()
    production, dr = sites.add("production"), sites.add("dr")
    target = production.add_vm("web01", disks=[bytearray(MIB)], power=PowerState.OFF)
    replica = dr.add_vm("web01-replica", disks=[bytearray(MIB)], power=PowerState.ON)
    url = f"sqlite:///{root}/catalog.db"
    schema.migrate(url)
    catalog = Catalog(url)
    catalog.add_replica("web01", replica, target, ReplicaState.FAILOVER)
    catalog.open_run(RUN.run_id, "failback/web01", "web01", StartRequest(replica="web01"))
    access = {
        name: DatastoreAccess({f"ds-{name}": root / name}, chain_members_complete=True)
        for name in ("production", "dr")
    }
    for name in access:
        (root / name).mkdir(exist_ok=True)
    tuning = Tuning(heartbeat_timeout=timedelta(seconds=3))
    rooms = Rooms(
        sites=sites,
        catalog=catalog,
        disks=Disks(access, catalog, root / "state", tuning.heartbeat_timeout),
        ledger=SqlLedgerStore(catalog),
        tuning=tuning,
        segment_bytes=256 * 1024,
        options=CopyOptions(),
    )
    world = World(root, sites, production, dr, target, replica, catalog, rooms)
    for function in (*control(rooms), *mover(rooms)):
        world.activities[function.__name__] = function
    return world


def plan_of(world: World, **more: Any) -> RunPlan:
    """What preflight would plan for the first disk of both VMs."""
    disk = world.dr.vm(world.replica).view().disks[0]
    pair = DiskPair(
        address=disk.address,
        replica_key=disk.key,
        target_key=disk.key,
        capacity_bytes=MIB,
        target_capacity_bytes=MIB,
    )
    given: dict[str, Any] = {
        "replica": world.replica,
        "target": world.target,
        "pairs": (pair,),
        "replica_power": PowerState.ON,
        "target_power": PowerState.OFF,
        "replica_tracking": False,
        "target_tracking": False,
    }
    return RunPlan(**{**given, **more})


def plan_of_new(world: World, **more: Any) -> RunPlan:
    """The same for a VM that is still to be made."""
    wish = world.target.model_copy(update={"moref": "", "name": "home (to be)"})
    return plan_of(world, target=wish, final_name="home", **more)


NEW_REQUEST = StartRequest.model_validate(
    {"replica": "web01", "destination": "new", "new_vm": {"name": "home"}}
)


def write_disk(folder: Path, name: str, data: bytes) -> str:
    """A monolithic flat disk with its descriptor; returns its vSphere name."""
    vm = folder / "vm"
    vm.mkdir(exist_ok=True)
    (vm / f"{name}-flat.vmdk").write_bytes(data)
    (vm / f"{name}.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="vmfs"\nRW {len(data) // 512} VMFS "{name}-flat.vmdk"\n'
    )
    return f"[ds-{folder.name}] vm/{name}.vmdk"


def random_bytes(seed: int, size: int) -> bytes:
    """The same bytes for the same seed."""
    return random.Random(seed).randbytes(size)
