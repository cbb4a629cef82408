"""The shipped doubles of catalog, ledger and disks, with a point for the crew at every way in and
out, and what the ledger says held against the bytes that a power cut would leave."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from activities.disks import Disks, Pair
from activities.edge import Attempt
from failback.catalog import schema
from failback.catalog.engine import Database
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.records import Beginning, Turn
from failback.catalog.repository import Catalog
from failback.catalog.tables import Table
from failback.contracts.operations import DiskCall, Verify
from failback.contracts.vm import Disk, DiskOpening, VmIdentity
from failback.disks.faults import Op
from failback.disks.ledger import LedgerIdentity, PassLedger, SegmentRecord
from failback.disks.plan import Extent, TransferPlan, segments
from failback.disks.testing import Fault, MemoryDisk, MemoryVolume
from failback.errors import LeaseLost
from failback.hypervisor.testing_vm import FakeDisk
from tests.simulation.crew import Crew, Wrong
from tests.simulation.wire import SimSites

REQUEST_BYTES = 64 * 1024


@cache
def _database() -> Database:
    """One database for all runs of this process, as the migrations make it: making one, and
    compiling its statements anew, takes longer than a run."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="simulation-", dir=memory if memory.is_dir() else None)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            made.close()
            shutil.rmtree(folder, ignore_errors=True)

    url = f"sqlite:///{folder}/catalog.db"
    schema.migrate(url)
    made = Database(url)
    atexit.register(remove)
    return made


def empty_database() -> Database:
    """The database without a row."""
    made = _database()

    def wipe(session: Any) -> None:
        for table in reversed(Table.metadata.sorted_tables):
            session.connection().execute(table.delete())

    made.write(wipe)
    return made


class SimCatalog(Catalog):
    """The real catalog, with a point before and after every write."""

    def __init__(self, crew: Crew) -> None:
        database = empty_database()
        super().__init__(database.where, now=crew.wall)
        self.database, self._read = database, database.read

        def watched(work: Any, *arguments: Any) -> Any:
            name = f"catalog.{work.__name__}"
            crew.point(f"{name} sent", mutating=True)
            result = database.write(work, *arguments)
            crew.point(f"{name} done", mutating=True)
            return result

        self._write = watched  # type: ignore[assignment]
        self._epochs: dict[str, int] = {}

    def close(self) -> None:
        """The database stays for the next run."""

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


class SimLedger(SqlLedgerStore):
    """The real ledger, with a point before and after every write."""

    def __init__(self, catalog: SimCatalog, crew: Crew) -> None:
        super().__init__(catalog, now=crew.wall)
        self.crew = crew
        self.plans: dict[str, TransferPlan] = {}

    @contextlib.contextmanager
    def _around(self, name: str) -> Iterator[None]:
        self.crew.point(f"ledger.{name} sent", mutating=True)
        yield
        self.crew.point(f"ledger.{name} done", mutating=True)

    def save(
        self, plan_id: str, disk_id: str, identity: LedgerIdentity, plan: TransferPlan
    ) -> None:
        with self._around("save"):
            super().save(plan_id, disk_id, identity, plan)
            self.plans[plan_id] = plan

    def open(self, plan_id: str, owner: str) -> PassLedger:
        with self._around("open"):
            return super().open(plan_id, owner)

    def commit(self, plan_id: str, epoch: int, records: Sequence[SegmentRecord]) -> None:
        with self._around("commit"):
            super().commit(plan_id, epoch, records)

    def complete(self, plan_id: str, epoch: int) -> None:
        with self._around("complete"):
            super().complete(plan_id, epoch)

    def finished_extents(self, plan_id: str) -> Iterator[Extent]:
        """What the ledger calls equal and durable."""
        plan = self.plans.get(plan_id)
        done = self.finished(plan_id) if plan is not None else ()
        for number, extents in segments(plan) if plan is not None else ():
            if number in done:
                yield from extents


class SimVolume(MemoryVolume):
    """A disk of a double as a volume: its bytes, and which of them a power cut may take."""

    def __init__(self, disk: FakeDisk) -> None:
        super().__init__(b"")
        # Kept, so that no other disk gets its id.
        self.disk = disk
        self.content = disk.data
        self.settled()

    def settled(self) -> None:
        """The site itself wrote the disk: what it writes is durable."""
        self.durable[:] = self.content
        self._volatile.clear()


@dataclass
class _Pass:
    """The newest pass of a target disk."""

    plan_id: str
    source: bytes
    volume: SimVolume


@dataclass(frozen=True)
class SimDisks(Disks):
    """Disks of the doubles; opening a disk to write cuts off whoever had it open before."""

    crew: Crew = field(default_factory=lambda: Crew(0))
    world: SimSites = field(default_factory=lambda: SimSites(Crew(0)))
    journal: SimLedger | None = None
    volumes: dict[int, SimVolume] = field(default_factory=dict)
    writers: dict[str, list[MemoryDisk]] = field(default_factory=dict)
    passes: dict[str, _Pass] = field(default_factory=dict)
    rotten: set[str] = field(default_factory=set)
    """Disks that lost a block on their own, until verify has found it."""
    fenced: bool = True

    def require(self, site: str, file: str) -> None:
        """Every disk of a double can be opened."""

    def require_place(self, site: str, datastore: str) -> None:
        """Every datastore of a double is there."""

    def label(self, vm: VmIdentity, disk: Disk, attempt: Attempt) -> str | None:
        return None

    def volume(self, disk: FakeDisk) -> SimVolume:
        """The one volume of a disk."""
        found = self.volumes.get(id(disk))
        if found is None:
            found = self.volumes[id(disk)] = SimVolume(disk)
        return found

    def settled(self, disk: FakeDisk) -> None:
        """Somebody who waits for the storage wrote to the disk."""
        if id(disk) in self.volumes:
            self.volumes[id(disk)].settled()

    def put(self, disk: FakeDisk, offset: int, data: bytes) -> None:
        """A guest writes, and flushes."""
        disk.data[offset : offset + len(data)] = data
        if id(disk) in self.volumes:
            self.volumes[id(disk)].durable[offset : offset + len(data)] = data

    # --- what the ledger says, and what is true (invariant I5) ---

    def rot(self, opening: DiskOpening, data: bytes) -> None:
        """The storage of a disk loses what was written and flushed."""
        self.put(self._disk(opening), 0, data)
        self.rotten.add(_name(opening))

    def forget(self, vm: VmIdentity) -> None:
        """What the ledger says of these disks counts no more: somebody else has written them."""
        for name in [one for one in self.passes if one.startswith(f"{vm.site}/{vm.moref}/")]:
            del self.passes[name]

    def check_ledger(self) -> None:
        """Wrong where a segment is finished whose bytes a power cut would not leave."""
        assert self.journal is not None
        for name, one in self.passes.items():
            if name in self.rotten:
                continue
            for extent in self.journal.finished_extents(one.plan_id):
                part = slice(extent.offset, extent.end)
                if one.source[part] != one.volume.durable[part]:
                    raise Wrong(
                        f"the ledger calls {extent} of {name} equal in {one.plan_id}, and it is not"
                    )

    def check_pass(self, call: DiskCall) -> None:
        """Wrong where a disk differs from its source after a pass, or would after a power cut."""
        name = _name(call.target)
        if isinstance(call, Verify):
            self.rotten.discard(name)
        self.check_ledger()
        if name in self.rotten:
            return
        source = self._frozen(call.source)
        durable = self.volume(self._disk(call.target)).durable
        if durable[: len(source)] != source:
            raise Wrong(f"after {call.plan.plan_id} the disk differs from its source")

    def cut(self, site: str, rng: random.Random) -> None:
        """The storage of a site loses power: what was not flushed may be lost."""
        for name in [one for one in self.writers if one.startswith(f"{site}/")]:
            for disk in self.writers.pop(name):
                disk.close()
        for volume in self.volumes.values():
            volume.power_cut(rng)
        self.check_ledger()

    # --- opening ---

    def prove_writers_dead(self, opening: DiskOpening, attempt: Attempt) -> None:
        name = _name(opening)
        self.catalog.take_lease(f"disk/{name}", attempt.owner, attempt.turn)
        self._cut_off(name)

    def _cut_off(self, name: str) -> None:
        if self.fenced:
            for disk in self.writers.get(name, []):
                disk.drop()
        self.writers[name] = []

    @contextlib.contextmanager
    def open_pair(self, call: DiskCall, attempt: Attempt, *, writable: bool) -> Iterator[Pair]:
        target, source = self._target(call, writable), self._source(call.source)
        try:
            yield Pair(source=source, target=target, check=attempt.beat)
        finally:
            target.close()
            source.close()

    def _target(self, call: DiskCall, writable: bool) -> MemoryDisk:
        name = _name(call.target)
        self._cut_off(name)
        volume = self.volume(self._disk(call.target))
        made = self._connect(volume, name, writable)
        if writable:
            repair = "/repair" if isinstance(call, Verify) else ""
            plan_id = f"{call.plan.plan_id}{repair}"
            self.passes[name] = _Pass(plan_id, self._frozen(call.source), volume)
            self.writers[name].append(made)
        return made

    def _source(self, opening: DiskOpening) -> MemoryDisk:
        return self._connect(MemoryVolume(self._frozen(opening)), "source", writable=False)

    def _connect(self, volume: MemoryVolume, name: str, writable: bool) -> MemoryDisk:
        made = MemoryDisk(
            volume,
            name,
            rng=self.crew.rng,
            writable=writable,
            faults=self._faults(writable),
            max_request_bytes=REQUEST_BYTES,
        )
        made.before = partial(self._before, made)
        return made

    def _faults(self, writable: bool) -> list[Fault]:
        """Now and then the storage answers with an error, and sometimes again."""
        if not self.crew.spend(0.01):
            return []
        rng = self.crew.rng
        op = rng.choice([Op.WRITE, Op.ZERO, Op.FLUSH] if writable else [Op.READ])
        number = errno.ENOSPC if op is Op.WRITE and rng.random() < 0.3 else errno.EIO
        self.crew.note(f"{op.name} will fail with {errno.errorcode[number]}")
        return [Fault(op, number, nth=rng.randint(1, 3), times=rng.randint(1, 2))]

    def _frozen(self, opening: DiskOpening) -> bytes:
        site = self.world.raw(opening.site)
        frozen = site.snapshot(site.vms[opening.vm_moref], opening.snapshot or "")
        return frozen.contents[opening.disk_key]

    def _disk(self, opening: DiskOpening) -> FakeDisk:
        vm = self.world.raw(opening.site).vms[opening.vm_moref]
        return next(d for d in vm.disks if d.key == opening.disk_key)

    def _before(self, disk: MemoryDisk, op: Op, offset: int, length: int) -> bool:
        self.crew.point(f"disk {op.name} {offset}", mutating=op in (Op.WRITE, Op.ZERO, Op.FLUSH))
        # An exporter that was killed meanwhile performs nothing any more.
        return disk.closed


def _name(opening: DiskOpening) -> str:
    return f"{opening.site}/{opening.vm_moref}/{opening.disk_key}"


def state_dir() -> Path:
    """Nothing is written there: the fence of the doubles is in memory."""
    return Path("/nonexistent")
