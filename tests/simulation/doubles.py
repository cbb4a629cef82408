"""The shipped doubles of the ports, with a point for the crew at every way in and out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from activities.disks import Disks, Pair
from activities.edge import Attempt
from failback.catalog.records import Beginning, Turn
from failback.catalog.repository import Catalog
from failback.contracts.operations import DiskCall
from failback.contracts.vm import Disk, DiskOpening, VmIdentity
from failback.disks.faults import Op
from failback.disks.testing import MemoryDisk, MemoryVolume
from failback.errors import LeaseLost
from failback.hypervisor.ports import Beat
from failback.hypervisor.testing import FakeSite, FakeSites
from failback.hypervisor.testing_vm import FakeDisk
from tests.simulation.crew import Crew

READING = frozenset(
    {
        "read",
        "power_mark",
        "get_attribute",
        "snapshot_disks",
        "ping",
        "about",
        "missing_privileges",
        "configuration",
        "place",
        "find",
        "find_made",
        "changed_areas",
        "read_nvram",
        "keep_alive",
        "refresh_datastores",
    }
)


class SimSite(FakeSite):
    """A site whose calls may be lost, or outlive who made them."""

    def __init__(self, name: str, crew: Crew, *, forgets_marks: bool = False) -> None:
        super().__init__(name)
        self.crew, self.forgets_marks = crew, forgets_marks
        self.reverted: Callable[[VmIdentity], None] = lambda vm: None

    @contextlib.contextmanager
    def call(self, name: str) -> Iterator[None]:
        mutating = name not in READING
        label = f"{self.name}.{name}"
        self.crew.point(f"{label} sent", lost=True, mutating=mutating)
        with super().call(name):
            yield
        self.crew.point(f"{label} done", lost=True, mutating=mutating)

    def revert_to_snapshot(self, vm: VmIdentity, snapshot: str, mark: str, beat: Beat) -> None:
        super().revert_to_snapshot(vm, snapshot, mark, beat)
        self.reverted(vm)

    def grow_disk(self, vm: VmIdentity, disk_key: int, capacity_bytes: int, beat: Beat) -> None:
        super().grow_disk(vm, disk_key, capacity_bytes, beat)
        self.reverted(vm)

    def create_snapshot(self, vm: VmIdentity, name: str, description: str, beat: Beat) -> str:
        if self.forgets_marks:
            # A deliberate bug: an earlier attempt's snapshot is not looked for.
            with self.call("create_snapshot"):
                beat()
                found = self.vm(vm)
                return found.freeze(f"snapshot-{self.next_number()}", name, description)
        return super().create_snapshot(vm, name, description, beat)


class SimSites(FakeSites):
    """Sites of the simulation."""

    def put(self, site: SimSite) -> SimSite:
        self._sites[site.name] = site
        return site


class SimCatalog(Catalog):
    """The real catalog, with a point before and after every write."""

    def __init__(self, url: str, crew: Crew) -> None:
        super().__init__(url)
        write = self._write

        def watched(work: Any, *arguments: Any) -> Any:
            name = f"catalog.{work.__name__}"
            crew.point(f"{name} sent", mutating=True)
            result = write(work, *arguments)
            crew.point(f"{name} done", mutating=True)
            return result

        self._write = watched  # type: ignore[assignment]
        self._epochs: dict[str, int] = {}

    def take_lease(
        self, name: str, owner: str, turn: Turn | None = None, open_run: str | None = None
    ) -> int:
        epoch = super().take_lease(name, owner, turn, open_run)
        return self._newest(name, epoch)

    def begin_attempt(
        self,
        beginning: Beginning,
        lease: str | None,
        owner: str,
        turn: Turn,
        open_run: str | None = None,
    ) -> int:
        epoch = super().begin_attempt(beginning, lease, owner, turn, open_run)
        return epoch if lease is None else self._newest(lease, epoch)

    def _newest(self, name: str, epoch: int) -> int:
        # A zombie may hear of its lease long after another attempt has taken it over.
        self._epochs[name] = max(epoch, self._epochs.get(name, 0))
        return epoch

    def check_lease(self, name: str, epoch: int) -> None:
        """As the catalog's own, from memory: it is asked at every beat, by this process only."""
        if self._epochs.get(name) != epoch:
            raise LeaseLost(f"The lease on {name} went over.", "Nothing is to be done.")


class SimVolume(MemoryVolume):
    """A disk of a double as a volume: its bytes, and which of them a power cut may take."""

    def __init__(self, disk: FakeDisk, *, lies: bool = False) -> None:
        super().__init__(bytes(disk.data))
        self.content = disk.data
        self.lies = lies

    def flush(self) -> None:
        if not self.lies:
            super().flush()

    def settled(self) -> None:
        """The site itself wrote the disk: what it writes is durable."""
        self.durable[:] = self.content
        self._volatile.clear()


@dataclass(frozen=True)
class SimDisks(Disks):
    """Disks of the doubles; opening a disk to write cuts off whoever had it open before."""

    crew: Crew = field(default_factory=lambda: Crew(0))
    world: SimSites = field(default_factory=SimSites)
    volumes: dict[int, SimVolume] = field(default_factory=dict)
    writers: dict[str, list[MemoryDisk]] = field(default_factory=dict)
    fenced: bool = True
    lies: bool = False

    def require(self, site: str, file: str) -> None:
        """Every disk of a double can be opened."""

    def require_place(self, site: str, datastore: str) -> None:
        """Every datastore of a double is there."""

    def label(self, vm: VmIdentity, disk: Disk, attempt: Attempt) -> str | None:
        return None

    def volume(self, disk: FakeDisk) -> SimVolume:
        """The one volume of a disk."""
        return self.volumes.setdefault(id(disk), SimVolume(disk, lies=self.lies))

    def prove_writers_dead(self, opening: DiskOpening, attempt: Attempt) -> None:
        name = f"{opening.site}/{opening.vm_moref}/{opening.disk_key}"
        self.catalog.take_lease(f"disk/{name}", attempt.owner, attempt.turn)
        self._cut_off(name)

    def _cut_off(self, name: str) -> None:
        if self.fenced:
            for disk in self.writers.get(name, []):
                disk.drop()
        self.writers[name] = []

    @contextlib.contextmanager
    def open_pair(self, call: DiskCall, attempt: Attempt, *, writable: bool) -> Iterator[Pair]:
        target, source = self._target(call.target, writable), self._source(call.source)
        try:
            yield Pair(source=source, target=target, check=attempt.beat)
        finally:
            target.close()
            source.close()

    def _target(self, opening: DiskOpening, writable: bool) -> MemoryDisk:
        name = f"{opening.site}/{opening.vm_moref}/{opening.disk_key}"
        self._cut_off(name)
        found = self._disk(opening)
        made = MemoryDisk(self.volume(found), name, rng=self.crew.rng, writable=writable)
        made.before = partial(self._before, made)
        if writable:
            self.writers[name].append(made)
        return made

    def _source(self, opening: DiskOpening) -> MemoryDisk:
        site = self.world.site(opening.site)
        vm = site.vms[opening.vm_moref]
        frozen = site.snapshot(vm, opening.snapshot or "")
        content = frozen.contents[opening.disk_key]
        made = MemoryDisk(MemoryVolume(content), "source", writable=False)
        made.before = partial(self._before, made)
        return made

    def _disk(self, opening: DiskOpening) -> FakeDisk:
        vm = self.world.site(opening.site).vms[opening.vm_moref]
        found: FakeDisk = next(d for d in vm.disks if d.key == opening.disk_key)
        return found

    def _before(self, disk: MemoryDisk, op: Op, offset: int, length: int) -> bool:
        self.crew.point(f"disk {op.name} {offset}", mutating=op in (Op.WRITE, Op.ZERO, Op.FLUSH))
        # An exporter that was killed meanwhile performs nothing any more.
        return disk.closed


def state_dir() -> Path:
    """Nothing is written there: the fence of the doubles is in memory."""
    return Path("/nonexistent")
