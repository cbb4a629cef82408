"""Makes the target's bytes equal to the source's, and proves it to the ledger segment by segment.

A single-threaded state machine over two BlockIOs: reads both sides, compares blocks of 64 KiB and
writes only what differs. The order that makes a crash harmless is in `_checkpoint`: all writes of a
segment answered, then FLUSH answered, then commit. It flushes even if nothing was written: an
earlier attempt may have written what now compares equal and lies in a volatile cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from failback.disks.blockio import Answer, BlockIO, Check, Clock
from failback.disks.budget import Budget, Buffers, Slot
from failback.disks.compare import Run, contents, differing, occupied
from failback.disks.holes import Holes, Zeroes
from failback.disks.ledger import PassLedger, SegmentRecord
from failback.disks.plan import (
    BLOCK_BYTES,
    Extent,
    merge,
    plan_extents,
    segments,
    total_bytes,
)
from failback.disks.planner import Action, Part, decide, decide_full
from failback.disks.progress import CopyProgress, Rate
from failback.disks.requests import Requests
from failback.disks.throttle import Pace
from failback.disks.together import LocalFile, Together
from failback.errors import CatalogError, DiskError, DiskSizeMismatch, Stopped

GIB = 1024 * 1024 * 1024
FULL_WINDOW = 8
"""At least, where everything is written: a write takes longer than a read, and holds its buffer."""

Decided = tuple[int, tuple[Extent, ...], tuple[Part, ...]]
"""Index and extents of a segment, and what is to be done in it."""

Scouting = Callable[[Requests, Iterator[tuple[int, tuple[Extent, ...]]]], Iterator[Decided | None]]
"""Decides about segments in their order; yields None while the requests' `turn` must go on."""


@dataclass(frozen=True)
class CopyOptions:
    """Knobs of one copy; memory is about 2 * window * request_bytes."""

    window: int = 8
    """Requests under way on each side."""
    request_bytes: int = 1024 * 1024
    """A multiple of BLOCK_BYTES; both disks' own limits also hold."""
    budget: Budget | None = None
    """Shared by all copies of a worker; None limits this copy by its window alone."""
    flush_interval_s: float = 2.0
    flush_bytes: int = GIB
    report_interval_s: float | None = None
    """None: the flush interval."""
    stall_timeout_s: float = 120.0
    check_interval_s: float = 0.25
    stop_grace_s: float = 1.25
    """How long a stop may take to finish writes, flush and commit: it is noticed a check interval
    after it was asked for and exporters end after it, and all of that is to fit in 2 s."""
    skip_holes: bool = True
    """Do not read what a disk says reads as zeroes."""
    full: bool = False
    """Do not read the target: write all of the source's areas."""
    blank_target: bool = False
    """With `full`: the target was created by us and never written, so holes stay holes."""
    throttle: Pace | None = None


def copy(
    source: BlockIO,
    target: BlockIO,
    ledger: PassLedger,
    *,
    options: CopyOptions,
    check: Check,
    report: Callable[[CopyProgress], None],
    clock: Clock,
    scout: Scouting | None = None,
) -> CopyProgress:
    """Examine every unfinished segment of the ledger's plan and write what differs.

    Returns the final progress, after `ledger.complete()`. `report` is called after every commit and
    at least every report interval. `check` is called at least twice a second and before each batch
    of writes. When it raises Stopped, writes under way are finished, flushed and committed and
    Stopped is raised again; when it raises LeaseLost, nothing more is submitted.

    `scout` finds the parts to work on by its own means, such as digests; None: from what both disks
    say about their zeroes, as the options want.

    Raises DiskSizeMismatch before the first request, else DiskReadFailed, DiskWriteFailed,
    DiskFull, DiskReadOnly, DiskFlushFailed, DiskUnavailable, TransferStalled, and what the ledger
    raises."""
    check_sizes(source, target, ledger.plan.capacity_bytes)
    return _Copy(source, target, ledger, options, check, report, clock, scout).run()


def check_sizes(source: BlockIO, target: BlockIO, capacity_bytes: int) -> None:
    """The source has exactly the planned size; the target may be larger, never smaller."""
    for disk, fits in (
        (source, source.capacity_bytes == capacity_bytes),
        (target, target.capacity_bytes >= capacity_bytes),
    ):
        if not fits:
            raise DiskSizeMismatch(
                f"{disk.name} has {disk.capacity_bytes} bytes, the plan says {capacity_bytes}.",
                "Calculate the difference again after the disk's size is settled.",
                actual=disk.capacity_bytes,
                planned=capacity_bytes,
            )


@dataclass(slots=True)
class _Segment:
    index: int
    extents: tuple[Extent, ...]
    unsettled: int = 1
    """Chunks that are not done, and one more until all chunks are issued."""
    different: int = 0
    written: int = 0
    zeroed: int = 0
    changed: list[Extent] = field(default_factory=list)
    examined: int = 0

    def __post_init__(self) -> None:
        self.examined = total_bytes(self.extents)

    def record(self) -> SegmentRecord:
        return SegmentRecord(
            index=self.index,
            examined_bytes=self.examined,
            different_bytes=self.different,
            written_bytes=self.written,
            zeroed_bytes=self.zeroed,
            written=merge(self.changed),
        )


@dataclass(slots=True)
class _Chunk:
    segment: _Segment
    extent: Extent
    action: Action
    slot: Slot
    unread: int = 0
    unwritten: int = 0

    def views(self) -> tuple[memoryview, memoryview]:
        """Where the bytes of the source and of the target go."""
        length = self.extent.length
        return self.slot.source[:length], self.slot.target[:length]

    def runs(self) -> list[Run]:
        """What is to be written of the chunk, after it was read."""
        source, target = self.views()
        match self.action:
            case Action.COMPARE:
                return list(differing(source, target))
            case Action.FILL:
                return [(start, size, False) for start, size in occupied(source)]
            case Action.CLEAR:
                return [(start, size, True) for start, size in occupied(target)]
            case Action.OVERWRITE:
                return list(contents(source))
            case Action.ZERO:
                return [(0, self.extent.length, True)]


class _Copy:
    def __init__(
        self,
        source: BlockIO,
        target: BlockIO,
        ledger: PassLedger,
        options: CopyOptions,
        check: Check,
        report: Callable[[CopyProgress], None],
        clock: Clock,
        scout: Scouting | None,
    ) -> None:
        self._source, self._target, self._ledger = source, target, ledger
        self._options, self._report, self._clock = options, report, clock
        self._together = (
            Together(source, target)
            if isinstance(source, LocalFile) and isinstance(target, LocalFile) and not options.full
            else None
        )
        self._requests = Requests(
            source,
            target,
            *(() if self._together is None else (self._together,)),
            check=check,
            clock=clock,
            stall_timeout_s=options.stall_timeout_s,
            check_interval_s=options.check_interval_s,
        )
        limit = min(options.request_bytes, source.max_request_bytes, target.max_request_bytes)
        self._chunk_bytes = max(limit // BLOCK_BYTES, 1) * BLOCK_BYTES
        window = max(options.window, FULL_WINDOW) if options.full else options.window
        self._buffers = Buffers(options.budget, self._chunk_bytes, window)
        finished = ledger.finished()
        # One by one, never as a list: the largest disks have a million segments.
        work = (item for item in segments(ledger.plan) if item[0] not in finished)
        self._decided = (scout or self._by_holes)(self._requests, work)
        self._at_first = CopyProgress(
            total_bytes=total_bytes(plan_extents(ledger.plan)),
            resumed_bytes=ledger.totals().examined_bytes,
        )
        self._examined = self._different = self._written = self._zeroed = 0
        self._chunks = self._all_chunks()
        self._next: tuple[_Segment, Extent, Action] | None = None
        self._exhausted = False
        capacity = ledger.plan.capacity_bytes
        last = (capacity - 1) // BLOCK_BYTES * BLOCK_BYTES
        self._end = Extent(last, capacity - last)
        self._end_buffers = [memoryview(bytearray(self._end.length)) for _ in range(2)]
        self._begun: dict[int, _Segment] = {}
        """Segments that are not committed, of those that were looked at."""
        self._settled: list[_Segment] = []
        self._flushing: list[_Segment] = []
        self._flushed_at = self._reported_at = clock()
        self._report_interval_s = options.report_interval_s or options.flush_interval_s
        self._rate = Rate(self._flushed_at)

    def run(self) -> CopyProgress:
        try:
            self._requests.check()
            while not self._done():
                wait_s = self._issue()
                # A due flush must not wait for the answers of the reads just issued.
                self._checkpoint()
                if not self._done():
                    self._requests.turn(wait_s)
        except Stopped as stopped:
            self._wind_down(stopped)
            raise
        except DiskError as error:
            if self._begun and error.evidence.get("offset") is None:
                # Not of one request: where the next attempt will go on.
                error.evidence["offset"] = self._begun[min(self._begun)].extents[0].offset
            raise
        finally:
            self._buffers.close(reuse=not self._requests.open)
            if self._together is not None:
                self._together.close()
        self._ledger.complete()
        return self._tell()

    def _done(self) -> bool:
        return self._exhausted and not (self._requests.open or self._settled or self._flushing)

    # --- reading ---

    def _all_chunks(self) -> Iterator[tuple[_Segment, Extent, Action] | None]:
        """What to do, in order; None as long as it is not known."""
        for decided in self._decided:
            if decided is None:
                yield None
                continue
            index, extents, parts = decided
            segment = self._begun[index] = _Segment(index, extents)
            self._count(examined=total_bytes(extents) - total_bytes(p.extent for p in parts))
            for part in parts:
                extent = part.extent
                for offset in range(extent.offset, extent.end, self._chunk_bytes):
                    length = min(self._chunk_bytes, extent.end - offset)
                    segment.unsettled += 1
                    yield segment, Extent(offset, length), part.action
            self._settle(segment)

    def _by_holes(
        self, requests: Requests, work: Iterator[tuple[int, tuple[Extent, ...]]]
    ) -> Iterator[Decided | None]:
        holes = Holes(
            requests,
            self._source,
            self._target,
            work,
            enabled=self._options.skip_holes,
            ask_target=not self._options.full,
        )
        for known in holes.in_order():
            if known is None:
                yield None
            else:
                index, extents, ours, theirs = known
                yield index, extents, self._decide(extents, ours, theirs)

    def _decide(
        self, extents: tuple[Extent, ...], ours: Zeroes, theirs: Zeroes
    ) -> tuple[Part, ...]:
        capacity = self._ledger.plan.capacity_bytes
        if self._options.full:
            return decide_full(extents, ours, capacity, blank=self._options.blank_target)
        return decide(extents, ours, theirs, capacity)

    def _issue(self) -> float:
        """Read ahead as far as buffers, tokens and known holes allow.

        Returns after how many seconds to try again even if nothing is answered."""
        throttle = self._options.throttle
        while not self._exhausted:
            if self._next is None:
                try:
                    self._next = next(self._chunks)
                except StopIteration:
                    self._exhausted = True
                if self._next is None:
                    break
            segment, extent, action = self._next
            slot = self._buffers.take(extent.length)
            if slot is None:
                break
            # What is cleared or zeroed unread costs nothing of the source's bandwidth.
            limited = throttle if action.reads_source else None
            if limited is not None and (wait_s := limited.try_take(extent.length)) > 0:
                self._buffers.give(slot)
                return wait_s
            self._next = None
            self._begin(_Chunk(segment, extent, action, slot))
        return self._options.check_interval_s

    def _begin(self, chunk: _Chunk) -> None:
        if self._together is None or chunk.action is not Action.COMPARE:
            self._read(chunk)
            return

        def compared(answer: Answer) -> None:
            if answer.errno:
                self._read(chunk)
            else:
                self._write(chunk, answer.different)

        views = chunk.views()
        self._requests.compare(self._together, chunk.extent.offset, *views, compared)

    def _read(self, chunk: _Chunk) -> None:
        offset = chunk.extent.offset
        source, target = chunk.views()

        def answered(_: Answer) -> None:
            chunk.unread -= 1
            if chunk.unread == 0:
                self._write(chunk, chunk.runs())

        # Both are counted before the first is sent: an answer may come at once.
        chunk.unread = chunk.action.reads_source + chunk.action.reads_target
        if chunk.action.reads_source:
            self._requests.read(self._source, offset, source, answered)
        if chunk.action.reads_target:
            self._requests.read(self._target, offset, target, answered)
        if chunk.unread == 0:
            self._write(chunk, chunk.runs())

    # --- writing ---

    def _write(self, chunk: _Chunk, runs: Sequence[Run]) -> None:
        if self._requests.winding_down:
            return  # a write now would prolong the stop; the segment is compared again
        segment, slot = chunk.segment, chunk.slot
        self._count(examined=chunk.extent.length)
        if not runs:
            self._release(chunk)
            return
        self._requests.check()
        chunk.unwritten = len(runs)

        def answered(_: Answer) -> None:
            chunk.unwritten -= 1
            if chunk.unwritten == 0:
                self._release(chunk)

        for start, size, zero in runs:
            extent = Extent(chunk.extent.offset + start, size)
            segment.changed.append(extent)
            segment.different += size
            if zero:
                segment.zeroed += size
                self._requests.zero(self._target, extent, answered)
            else:
                segment.written += size
                self._requests.write(
                    self._target, extent.offset, slot.source[start : start + size], answered
                )
        zeroed = sum(size for _, size, zero in runs if zero)
        different = sum(size for _, size, _ in runs)
        self._count(different=different, written=different - zeroed, zeroed=zeroed)

    def _release(self, chunk: _Chunk) -> None:
        self._buffers.give(chunk.slot)
        self._settle(chunk.segment)

    def _settle(self, segment: _Segment) -> None:
        segment.unsettled -= 1
        if segment.unsettled == 0:
            self._settled.append(segment)

    # --- making it durable ---

    def _checkpoint(self) -> None:
        now = self._clock()
        if self._settled and not self._flushing and self._flush_due(now):
            self._flush()
        elif now - self._reported_at >= self._report_interval_s:
            self._tell()

    def _flush_due(self, now: float) -> bool:
        return (
            now - self._flushed_at >= self._options.flush_interval_s
            or sum(one.examined for one in self._settled) >= self._options.flush_bytes
            or (self._exhausted and not self._requests.open)
        )

    def _flush(self) -> None:
        # Only what is settled now: a flush says nothing about writes that are still under way.
        self._flushing, self._settled = self._settled, []
        awaited = 3

        def answered(answer: Answer) -> None:
            nonlocal awaited
            awaited -= 1
            if awaited == 0:
                self._flushed()

        # A file that was cut short under its exporter is told as a hole that reads as zeroes. So
        # nothing counts that was learnt before both disks were seen to reach to their ends.
        for disk in (self._source, self._target):
            self._requests.read(
                disk, self._end.offset, self._end_buffers[disk is self._source], answered
            )
        self._requests.flush(self._target, answered)

    def _flushed(self) -> None:
        self._ledger.commit([segment.record() for segment in self._flushing])
        for segment in self._flushing:
            del self._begun[segment.index]
        self._flushing = []
        self._flushed_at = self._clock()
        self._tell()

    def _wind_down(self, stopped: Stopped) -> None:
        self._requests.winding_down = True
        deadline = self._clock() + self._options.stop_grace_s
        try:
            while self._requests.changing and self._clock() < deadline:
                self._requests.turn(deadline - self._clock())
            if self._settled and not self._requests.changing:
                self._flush()
            while self._flushing and self._clock() < deadline:
                self._requests.turn(deadline - self._clock())
        except (CatalogError, DiskError) as error:
            # The stop was asked for and stands; what was not committed is compared again.
            raise stopped from error

    # --- telling ---

    def _count(
        self, *, examined: int = 0, different: int = 0, written: int = 0, zeroed: int = 0
    ) -> None:
        # Four numbers, not a new CopyProgress: this happens thousands of times a second.
        self._examined += examined
        self._different += different
        self._written += written
        self._zeroed += zeroed

    def _tell(self) -> CopyProgress:
        self._reported_at = self._clock()
        rate = self._rate.at(self._reported_at, self._examined)
        now = replace(
            self._at_first,
            examined_bytes=self._examined,
            different_bytes=self._different,
            written_bytes=self._written,
            zeroed_bytes=self._zeroed,
            rate_bytes_s=rate,
        )
        now = replace(now, eta_s=now.remaining_bytes / rate if rate > 0 else None)
        self._report(now)
        return now
