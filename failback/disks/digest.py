"""Proves that both disks hold the same bytes: keyed BLAKE3 over what was written and a sample.

The key is drawn per call, so that a guest cannot hold content made to collide.
"""

from __future__ import annotations

import random as randoms
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from failback.disks.blockio import Answer, BlockIO, Check, Clock
from failback.disks.compare import differing
from failback.disks.plan import (
    BLOCK_BYTES,
    SEGMENT_BYTES,
    Extent,
    TransferPlan,
    align,
    plan_extents,
    segments,
    subtract,
    total_bytes,
    union,
)
from failback.disks.progress import CopyProgress, Rate
from failback.disks.requests import Requests
from failback.errors import DiskSizeMismatch


@dataclass(frozen=True)
class VerifyOutcome:
    """What a verification found."""

    equal: bool
    checked_bytes: int
    root_hex: str
    """Keyed digest over offset, length and digest of every checked part of the source, in order;
    empty if the disks differ."""
    first_difference_offset: int | None = None
    """Start in bytes of the first differing block; None if equal."""


@dataclass(frozen=True)
class VerifyOptions:
    """Knobs of one verification; memory is about 2 * window * request_bytes."""

    window: int = 8
    request_bytes: int = 1024 * 1024
    stall_timeout_s: float = 120.0
    check_interval_s: float = 0.25
    report_interval_s: float = 2.0


def verify(
    source: BlockIO,
    target: BlockIO,
    written: Iterable[Extent],
    *,
    check: Check,
    report: Callable[[CopyProgress], None],
    sample_fraction: float = 0.01,
    min_samples: int = 64,
    whole_disk: bool = False,
    segment_bytes: int = SEGMENT_BYTES,
    random: randoms.Random | None = None,
    options: VerifyOptions = VerifyOptions(),
    clock: Clock = time.monotonic,
) -> VerifyOutcome:
    """Read both sides and compare digests; ends at the first difference.

    Checked are all written extents and, of the segments with blocks that were not written, those
    blocks of a random `sample_fraction`, at least `min_samples` (all if there are fewer). Both
    connections should have been opened after the last write was flushed.

    Raises DiskSizeMismatch, DiskReadFailed, DiskUnavailable, TransferStalled, and what `check`
    raises."""
    capacity = source.capacity_bytes
    if target.capacity_bytes < capacity:
        raise DiskSizeMismatch(
            f"{target.name} has {target.capacity_bytes} bytes, {source.name} has {capacity}.",
            "Calculate the difference again after the disk's size is settled.",
            actual=target.capacity_bytes,
            planned=capacity,
        )
    rng = random or randoms.SystemRandom()
    whole = TransferPlan(capacity, segment_bytes)
    if whole_disk:
        parts = plan_extents(whole)
    else:
        chosen = choose(whole, tuple(written), sample_fraction, min_samples, rng)
        parts = align(chosen, capacity)
    requests = Requests(
        source,
        target,
        check=check,
        clock=clock,
        stall_timeout_s=options.stall_timeout_s,
        check_interval_s=options.check_interval_s,
    )
    key = rng.randbytes(32)
    return _Verify(source, target, parts, key, requests, options, report, clock).run()


def choose(
    whole: TransferPlan,
    written: tuple[Extent, ...],
    sample_fraction: float,
    min_samples: int,
    rng: randoms.Random,
) -> tuple[Extent, ...]:
    """The written extents and a random choice of segments, of each what was not written in it."""
    rest = subtract(plan_extents(whole), align(written, whole.capacity_bytes))
    untouched = [
        extents
        for _, extents in segments(TransferPlan(whole.capacity_bytes, whole.segment_bytes, rest))
    ]
    count = min(len(untouched), max(min_samples, round(len(untouched) * sample_fraction)))
    return union(written, *rng.sample(untouched, count))


class _Pair:
    def __init__(self, size: int) -> None:
        self.source = memoryview(bytearray(size))
        self.target = memoryview(bytearray(size))
        self.extent = Extent(0, 0)
        self.unread = 0


class _Verify:
    def __init__(
        self,
        source: BlockIO,
        target: BlockIO,
        parts: tuple[Extent, ...],
        key: bytes,
        requests: Requests,
        options: VerifyOptions,
        report: Callable[[CopyProgress], None],
        clock: Clock,
    ) -> None:
        self._source, self._target, self._parts = source, target, parts
        self._key, self._requests, self._options = key, requests, options
        self._report, self._clock = report, clock
        limit = min(options.request_bytes, source.max_request_bytes, target.max_request_bytes)
        self._chunk_bytes = max(limit // BLOCK_BYTES, 1) * BLOCK_BYTES
        self._total = total_bytes(parts)
        self._reported_at = clock()
        self._rate = Rate(self._reported_at)

    def run(self) -> VerifyOutcome:
        root = blake3(key=self._key)
        free = [_Pair(self._chunk_bytes) for _ in range(self._options.window)]
        # Answers come in any order, the root is made in the order of the disk.
        reading: deque[_Pair] = deque()
        chunks, more, checked = self._chunks(), True, 0
        self._requests.check()
        while more or reading:
            while free and more:
                extent = next(chunks, None)
                if extent is None:
                    more = False
                else:
                    reading.append(free.pop())
                    self._read(reading[-1], extent)
            while reading and not reading[0].unread:
                pair = reading.popleft()
                difference = self._digest(pair, root)
                checked += pair.extent.length
                if difference is not None:
                    return VerifyOutcome(False, checked, "", difference)
                free.append(pair)
                self._tell(checked)
            if reading and reading[0].unread:
                self._requests.turn(self._options.check_interval_s)
        self._tell(checked, always=True)
        return VerifyOutcome(True, checked, root.hexdigest())

    def _chunks(self) -> Iterator[Extent]:
        for part in self._parts:
            for offset in range(part.offset, part.end, self._chunk_bytes):
                yield Extent(offset, min(self._chunk_bytes, part.end - offset))

    def _read(self, pair: _Pair, extent: Extent) -> None:
        pair.extent, pair.unread = extent, 2

        def answered(_: Answer) -> None:
            pair.unread -= 1

        self._requests.read(self._source, extent.offset, pair.source[: extent.length], answered)
        self._requests.read(self._target, extent.offset, pair.target[: extent.length], answered)

    def _digest(self, pair: _Pair, root: blake3) -> int | None:
        """Add one part to the root; the offset of its first difference if there is one."""
        extent = pair.extent
        source, target = pair.source[: extent.length], pair.target[: extent.length]
        ours = blake3(source, key=self._key).digest()
        if ours != blake3(target, key=self._key).digest():
            return extent.offset + next(differing(source, target))[0]
        root.update(extent.offset.to_bytes(8, "big") + extent.length.to_bytes(8, "big") + ours)
        return None

    def _tell(self, checked: int, *, always: bool = False) -> None:
        now = self._clock()
        if not always and now - self._reported_at < self._options.report_interval_s:
            return
        self._reported_at = now
        rate = self._rate.at(now, checked)
        eta_s = (self._total - checked) / rate if rate > 0 else None
        self._report(CopyProgress(self._total, checked, rate_bytes_s=rate, eta_s=eta_s))
