"""Doubles with the real ones' behaviour, for tests of anything that moves bytes.

`MemoryVolume` is a disk with a volatile cache, `MemoryDisk` a connection to it, `MemoryLedgerStore`
a ledger without a database. All randomness is the caller's, so a failing schedule can be replayed.
"""

from __future__ import annotations

import errno as errnos
import random
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

from failback.disks.blockio import Answer
from failback.disks.faults import Op
from failback.disks.ledger import (
    LedgerIdentity,
    SegmentRecord,
    SegmentSet,
    SegmentTotals,
    total,
)
from failback.disks.plan import Extent, TransferPlan, subtract, union
from failback.errors import DiskUnavailable, LeaseLost, StateConflict


class MemoryVolume:
    """A disk's bytes: what readers see, and what survives a power cut."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.durable = bytearray(content)
        self._volatile: list[Extent] = []

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.content[offset : offset + len(data)] = data
        self._volatile.append(Extent(offset, len(data)))

    def flush(self) -> None:
        for extent in self._volatile:
            self.durable[extent.offset : extent.end] = self.content[extent.offset : extent.end]
        self._volatile.clear()

    def power_cut(self, rng: random.Random) -> None:
        """Every sector (512 bytes) written since the last flush survives or is lost by chance."""
        for extent in self._volatile:
            for start in range(extent.offset, extent.end, 512):
                end = min(start + 512, extent.end)
                if rng.random() < 0.5:
                    self.durable[start:end] = self.content[start:end]
        self.content[:] = self.durable
        self._volatile.clear()


@dataclass
class Fault:
    """Answers requests with an errno: from the `nth` matching one on (1 is the first), `times` so
    many, optionally only those that touch `extent`."""

    op: Op
    errno: int = errnos.EIO
    nth: int = 1
    times: int = 1
    extent: Extent | None = None
    seen: int = field(default=0, init=False)

    def hits(self, op: Op, offset: int, length: int) -> bool:
        touched = self.extent is None or (
            offset < self.extent.end and self.extent.offset < offset + length
        )
        if op is not self.op or not touched:
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


@dataclass(slots=True)
class _Pending:
    tag: int
    op: Op
    offset: int
    length: int
    view: memoryview | None


class MemoryDisk:
    """A connection to a MemoryVolume; implements BlockIO without threads.

    Args:
        rng: if given, requests take effect and are answered in random order.
        faults: errors to answer with.
        before: called with each operation before it takes effect; may raise to crash its caller,
            or stop answering by returning True ("this one never ends").
        maps_zeroes: whether `submit_map` works.
    """

    def __init__(
        self,
        volume: MemoryVolume,
        name: str = "memory disk",
        *,
        rng: random.Random | None = None,
        faults: Sequence[Fault] = (),
        before: Callable[[Op, int, int], bool | None] | None = None,
        maps_zeroes: bool = True,
        max_request_bytes: int = 32 * 1024 * 1024,
        writable: bool = True,
    ) -> None:
        self.name = name
        self.capacity_bytes = len(volume.content)
        self.max_request_bytes = max_request_bytes
        self.maps_zeroes = maps_zeroes
        self.faults = list(faults)
        self.done: list[tuple[Op, int, int]] = []
        """Operations that took effect: (op, offset, length)."""
        self._volume = volume
        self._rng = rng
        self.before = before
        self._writable = writable
        self._pending: list[_Pending] = []
        self._wake: Callable[[], None] = lambda: None
        self._closed = False

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        self._submit(_Pending(tag, Op.READ, offset, into.nbytes, into))

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        self._submit(_Pending(tag, Op.WRITE, offset, data.nbytes, data))

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        self._submit(_Pending(tag, Op.ZERO, offset, length, None))

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        if not self.maps_zeroes:
            raise ValueError(f"{self.name} offers no map of zeroes")
        self._submit(_Pending(tag, Op.MAP, offset, length, None))

    def submit_flush(self, tag: int) -> None:
        self._submit(_Pending(tag, Op.FLUSH, 0, 0, None))

    def poll(self, timeout_s: float) -> list[Answer]:
        if self._closed:
            raise DiskUnavailable(f"The connection to {self.name} was cut.", "Open the disk again.")
        count = len(self._pending)
        if self._rng is not None and count:
            self._rng.shuffle(self._pending)
            count = self._rng.randint(1, count)
        batch, self._pending = self._pending[:count], self._pending[count:]
        answers = [answer for one in batch if (answer := self._perform(one)) is not None]
        if self._pending:
            self._wake()
        return answers

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        wake()

    def interest(self) -> None:
        """`on_answer` tells."""

    def close(self) -> None:
        self._closed = True
        self._pending.clear()

    @property
    def closed(self) -> bool:
        return self._closed

    def drop(self) -> None:
        """Lose the connection: half of what is under way takes effect, nobody learns which."""
        rng = self._rng or random.Random(0)
        for one in self._pending:
            if one.op in (Op.WRITE, Op.ZERO) and rng.random() < 0.5:
                self._apply(one)
        self.close()

    def _submit(self, request: _Pending) -> None:
        if self._closed:
            raise DiskUnavailable(f"The connection to {self.name} was cut.", "Open the disk again.")
        limit = self.capacity_bytes if request.op is Op.MAP else self.max_request_bytes
        if request.op is not Op.FLUSH and (
            not 0 < request.length <= limit
            or not 0 <= request.offset <= self.capacity_bytes - request.length
        ):
            raise ValueError(f"{request} does not fit {self.name}")
        if request.op.changes and not self._writable:
            raise ValueError(f"{self.name} was opened for reading only")
        self._pending.append(request)
        self._wake()

    def _perform(self, one: _Pending) -> Answer | None:
        if self.before is not None and self.before(one.op, one.offset, one.length):
            return None
        for fault in self.faults:
            if fault.hits(one.op, one.offset, one.length):
                return Answer(one.tag, fault.errno)
        self.done.append((one.op, one.offset, one.length))
        return Answer(one.tag, 0, self._apply(one))

    def _apply(self, one: _Pending) -> tuple[Extent, ...]:
        end = one.offset + one.length
        match one.op:
            case Op.READ if one.view is not None:
                one.view[:] = self._volume.content[one.offset : end]
            case Op.WRITE if one.view is not None:
                self._volume.write(one.offset, one.view)
            case Op.ZERO:
                self._volume.write(one.offset, bytes(one.length))
            case Op.FLUSH:
                self._volume.flush()
            case _:
                return self._zeroes(one.offset, end)
        return ()

    def _zeroes(self, start: int, end: int) -> tuple[Extent, ...]:
        content = self._volume.content
        data = [
            Extent(at, min(4096, end - at))
            for at in range(start, end, 4096)
            if any(content[at : min(at + 4096, end)])
        ]
        return subtract([Extent(start, end - start)], data)


@dataclass
class _StoredPlan:
    disk_id: str
    identity: LedgerIdentity
    plan: TransferPlan
    finished: dict[int, SegmentRecord] = field(default_factory=dict)
    owner: str = ""
    opened: int = 0
    complete: bool = False


class MemoryLedgerStore:
    """A LedgerStore without a database; same rules, including LeaseLost."""

    def __init__(self) -> None:
        self._plans: dict[str, _StoredPlan] = {}

    def save(
        self, plan_id: str, disk_id: str, identity: LedgerIdentity, plan: TransferPlan
    ) -> None:
        old = self._plans.get(plan_id)
        if old is None or (old.disk_id, old.identity, old.plan) != (disk_id, identity, plan):
            self._plans[plan_id] = _StoredPlan(disk_id, identity, plan)

    def open(self, plan_id: str, owner: str) -> MemoryPassLedger:
        stored = self._plans.get(plan_id)
        if stored is None:
            raise StateConflict(
                f"There is no plan {plan_id}.", "Calculate the difference first.", plan=plan_id
            )
        stored.owner = owner
        stored.opened += 1
        return MemoryPassLedger(self, plan_id, stored)

    def written(self, disk_id: str) -> Iterator[Extent]:
        return iter(
            union(
                *(
                    record.written
                    for stored in self._plans.values()
                    if stored.disk_id == disk_id
                    for record in stored.finished.values()
                )
            )
        )

    def fold(self, disk_id: str, *, check: Callable[[], None], but: str = "") -> None:
        check()
        complete = [
            (plan_id, stored)
            for plan_id, stored in self._plans.items()
            if stored.disk_id == disk_id and stored.complete and plan_id != but
        ]
        for plan_id, stored in complete[1:]:
            first = complete[0][1]
            if stored.plan.segment_bytes != first.plan.segment_bytes:
                continue
            for index, record in stored.finished.items():
                old = first.finished.get(index, SegmentRecord(index, 0, 0, 0, 0, ()))
                both = union(old.written, record.written)
                first.finished[index] = replace(old, written=both)
            del self._plans[plan_id]

    def is_complete(self, plan_id: str) -> bool:
        return self._plans[plan_id].complete

    def holds(self, plan_id: str, stored: _StoredPlan, opened: int) -> bool:
        return self._plans.get(plan_id) is stored and stored.opened == opened


class MemoryPassLedger:
    """One holder's view of one plan; implements PassLedger."""

    def __init__(self, store: MemoryLedgerStore, plan_id: str, stored: _StoredPlan) -> None:
        self._store, self._plan_id, self._stored = store, plan_id, stored
        self._opened = stored.opened

    @property
    def plan(self) -> TransferPlan:
        return self._stored.plan

    def finished(self) -> Set[int]:
        return SegmentSet(self._stored.finished)

    def totals(self) -> SegmentTotals:
        return total(self._stored.finished.values())

    def records(self) -> Iterator[SegmentRecord]:
        return (record for _, record in sorted(self._stored.finished.items()))

    def commit(self, records: Sequence[SegmentRecord]) -> None:
        self._demand_held()
        self._stored.finished.update({record.index: record for record in records})

    def complete(self) -> None:
        self._demand_held()
        self._stored.complete = True

    def _demand_held(self) -> None:
        if not self._store.holds(self._plan_id, self._stored, self._opened):
            raise LeaseLost(
                f"Plan {self._plan_id} was taken over by another attempt.",
                "Nothing to do: the newer attempt continues.",
                plan=self._plan_id,
            )
