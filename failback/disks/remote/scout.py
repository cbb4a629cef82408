"""Finds what differs between a disk of the other site and one of ours, without moving the bytes.

Both disks are digested at once and a good way ahead of what is done with the result, so the link's
latency is waited for a few times in all, not once for each segment.
"""

from __future__ import annotations

import random as randoms
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from blake3 import blake3

from failback.disks.blockio import BlockIO, Check, Clock
from failback.disks.copier import CopyOptions, Scouting, copy
from failback.disks.digest import VerifyOptions, VerifyOutcome, choose
from failback.disks.ledger import PassLedger
from failback.disks.plan import (
    BLOCK_BYTES,
    SEGMENT_BYTES,
    Extent,
    TransferPlan,
    merge,
    segments,
    total_bytes,
)
from failback.disks.planner import Action, Part
from failback.disks.progress import CopyProgress
from failback.disks.remote import wire
from failback.disks.remote.disk import RemoteDisk
from failback.disks.remote.leaves import ZERO_LEAF, Digester, root
from failback.disks.remote.wire import LEAF_BYTES
from failback.disks.requests import Requests

Segments = Iterator[tuple[int, tuple[Extent, ...]]]
Found = tuple[int, tuple[Extent, ...], tuple[Part, ...]]

AHEAD_BYTES = 512 * 1024 * 1024
"""Of the disk, digested ahead. What is kept of it are digests: 16 bytes for each 64 KiB."""

USUAL = VerifyOptions()


def over_link(options: CopyOptions) -> CopyOptions:
    """The same options for a source behind a link: single blocks are read, and many of them at
    once, because each is on its way for a round trip."""
    return replace(options, window=max(options.window, 64), request_bytes=256 * 1024)


def copy_from(
    source: BlockIO,
    target: BlockIO,
    ledger: PassLedger,
    *,
    options: CopyOptions,
    check: Check,
    report: Callable[[CopyProgress], None],
    clock: Clock,
) -> CopyProgress:
    """`copier.copy`, with digests if the source is a disk of the other site."""
    scout = None
    if isinstance(source, RemoteDisk):
        scout = scouting(source, target, ledger.plan.segment_bytes)
        options = over_link(options)
    return copy(
        source,
        target,
        ledger,
        options=options,
        check=check,
        report=report,
        clock=clock,
        scout=scout,
    )


class Scout:
    """Looks at segments in order and tells which parts differ.

    Args:
        requests: whose `turn` brings the answers of both disks.
        source: is asked for digests, under the key of its connection.
        target: is read and digested here.
        segment_bytes: of the largest segment.
    """

    def __init__(
        self,
        requests: Requests,
        source: RemoteDisk,
        target: BlockIO,
        segments: Segments,
        segment_bytes: int,
    ) -> None:
        self._source, self._segments = source, segments
        self._digester = Digester(requests, target, source.key)
        # Small segments are many at once: else their round trips would follow one another.
        self._ahead = max(2, min(wire.MAX_OPEN_DIGESTS // 2, AHEAD_BYTES // segment_bytes))
        self._looks: deque[_Look] = deque()
        self.last_root = b""
        """The source's root of the segment that `in_order` told last."""

    def in_order(self) -> Iterator[Found | None]:
        """(index, extents, parts that differ); None while an answer is awaited.

        The parts are OVERWRITE, or ZERO where the source is known to be zero."""
        while True:
            while len(self._looks) < self._ahead:
                segment = next(self._segments, None)
                if segment is None:
                    break
                self._looks.append(_Look(self._source, *segment))
                self._digester.start(segment[1], self._looks[-1].hear_ours)
            self._digester.pump()
            if not self._looks:
                return
            while self._looks[0].parts is None:
                yield None
            look = self._looks.popleft()
            self.last_root = look.root or b""
            yield look.index, look.extents, look.parts or ()


def scouting(source: RemoteDisk, target: BlockIO, segment_bytes: int) -> Scouting:
    """What `copy` is given to find differences by digests."""

    def scout(requests: Requests, work: Segments) -> Iterator[Found | None]:
        return Scout(requests, source, target, work, segment_bytes).in_order()

    return scout


class _Look:
    def __init__(self, source: RemoteDisk, index: int, extents: tuple[Extent, ...]) -> None:
        self.index, self.extents = index, extents
        self.parts: tuple[Part, ...] | None = None
        self._source = source
        self._ours: bytes | None = None
        self.root: bytes | None = None
        self._number = source.digest(extents, self._hear_root)

    def hear_ours(self, leaves: bytes) -> None:
        self._ours = leaves
        self._judge()

    def _hear_root(self, theirs: bytes) -> None:
        self.root = theirs
        self._judge()

    def _judge(self) -> None:
        if self._ours is None or self.root is None:
            return
        if root(self._ours, self._source.key) == self.root:
            self._source.forget(self._number)
            self.parts = ()
            return
        blocks = len(self._ours) // LEAF_BYTES
        self._source.leaves(self._number, self.extents[0], blocks, self._hear_leaves)

    def _hear_leaves(self, theirs: bytes) -> None:
        if root(theirs, self._source.key) != self.root:
            raise wire.broken(
                self._source.name, "sent digests that contradict its own", self.extents[0].offset
            )
        groups: dict[Action, list[Extent]] = {Action.OVERWRITE: [], Action.ZERO: []}
        at, ours = 0, self._ours or b""
        for extent in self.extents:
            for offset in range(extent.offset, extent.end, BLOCK_BYTES):
                leaf = theirs[at : at + LEAF_BYTES]
                if leaf != ours[at : at + LEAF_BYTES]:
                    action = Action.ZERO if leaf == ZERO_LEAF else Action.OVERWRITE
                    length = min(BLOCK_BYTES, extent.end - offset)
                    groups[action].append(Extent(offset, length))
                at += LEAF_BYTES
        parts = [Part(one, action) for action, found in groups.items() for one in merge(found)]
        self.parts = tuple(sorted(parts, key=lambda part: part.extent))


def verify_remote(
    source: RemoteDisk,
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
    options: VerifyOptions = USUAL,
    clock: Clock = time.monotonic,
) -> VerifyOutcome:
    """Like `digest.verify`, but only digests cross the link.

    The root in the outcome is over the place and root of every checked segment, keyed by the
    connection's key. Raises what `digest.verify` raises."""
    capacity = source.capacity_bytes
    whole = TransferPlan(capacity, segment_bytes)
    if not whole_disk:
        rng = random or randoms.SystemRandom()
        areas = choose(whole, tuple(written), sample_fraction, min_samples, rng)
        whole = TransferPlan(capacity, segment_bytes, areas)
    requests = Requests(
        source,
        target,
        check=check,
        clock=clock,
        stall_timeout_s=options.stall_timeout_s,
        check_interval_s=options.check_interval_s,
    )
    total, checked = sum(total_bytes(extents) for _, extents in segments(whole)), 0
    reported_at, proof = clock(), blake3(key=source.key)
    requests.check()
    scout = Scout(requests, source, target, segments(whole), segment_bytes)
    for found in scout.in_order():
        if found is None:
            requests.turn(options.check_interval_s)
            continue
        _, extents, parts = found
        checked += total_bytes(extents)
        if parts:
            return VerifyOutcome(False, checked, "", parts[0].extent.offset)
        proof.update(wire.pack_extents(extents) + scout.last_root)
        if clock() - reported_at >= options.report_interval_s:
            reported_at = clock()
            report(CopyProgress(total, checked))
    report(CopyProgress(total, checked))
    return VerifyOutcome(True, checked, proof.hexdigest())
