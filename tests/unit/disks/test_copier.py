from __future__ import annotations

import errno
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failback.disks.copier import copy
from failback.disks.faults import Op
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import (
    BLOCK_BYTES,
    Extent,
    TransferPlan,
    merge,
    plan_areas,
    plan_extents,
    segments,
    total_bytes,
)
from failback.disks.progress import CopyProgress
from failback.disks.testing import (
    Fault,
    MemoryDisk,
    MemoryLedgerStore,
    MemoryPassLedger,
    MemoryVolume,
)
from failback.disks.throttle import Throttle
from failback.errors import (
    CatalogUnavailable,
    DiskError,
    DiskFlushFailed,
    DiskFull,
    DiskReadFailed,
    DiskReadOnly,
    DiskSizeMismatch,
    DiskUnavailable,
    DiskWriteFailed,
    FailbackError,
    LeaseLost,
    Stopped,
    TransferStalled,
)
from tests.helpers.disks import QUICK, changed, content, no_check, no_report

B = BLOCK_BYTES


def ledger_of(plan: TransferPlan, store: MemoryLedgerStore | None = None) -> MemoryPassLedger:
    store = store or MemoryLedgerStore()
    store.save("plan", "disk", LedgerIdentity("source", "target"), plan)
    return store.open("plan", "owner")


def run(
    source: MemoryDisk,
    target: MemoryDisk,
    ledger: MemoryPassLedger,
    **changes: object,
) -> CopyProgress:
    arguments = {
        "options": QUICK,
        "check": no_check,
        "report": no_report,
        "clock": time.monotonic,
        **changes,
    }
    return copy(source, target, ledger, **arguments)  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    seed=st.integers(),
    size=st.integers(1, 24 * B),
    segment_blocks=st.integers(1, 5),
    window=st.integers(1, 6),
    request_blocks=st.integers(1, 4),
    maps=st.booleans(),
    partial=st.booleans(),
)
def test_areas_become_equal_and_nothing_else_is_written(
    seed: int,
    size: int,
    segment_blocks: int,
    window: int,
    request_blocks: int,
    maps: bool,
    partial: bool,
) -> None:
    rng = random.Random(seed)
    original = content(rng, size)
    before = changed(rng, original)
    areas = (
        [Extent(rng.randrange(size), rng.randint(0, 3 * B)) for _ in range(4)] if partial else None
    )
    plan = plan_areas(size, areas, segment_blocks * B)
    ledger = ledger_of(plan)
    volume = MemoryVolume(before)
    target = MemoryDisk(volume, rng=rng, maps_zeroes=maps)

    progress = run(
        MemoryDisk(MemoryVolume(original), rng=rng, writable=False),
        target,
        ledger,
        options=replace(QUICK, window=window, request_bytes=request_blocks * B),
    )

    inside = bytearray(before)
    for extent in plan_extents(plan):
        inside[extent.offset : extent.end] = original[extent.offset : extent.end]
    assert volume.content == volume.durable == inside
    different = [
        Extent(at, min(B, size - at))
        for extent in plan_extents(plan)
        for at in range(extent.offset, extent.end, B)
        if original[at : at + B] != before[at : at + B]
    ]
    changes = [Extent(offset, length) for op, offset, length in target.done if op.changes]
    assert merge(changes) == merge(different)
    assert total_bytes(changes) == total_bytes(different) == progress.different_bytes
    assert progress.written_bytes + progress.zeroed_bytes == progress.different_bytes
    assert progress.examined_bytes == progress.total_bytes == total_bytes(plan_extents(plan))
    assert set(ledger.finished()) == {index for index, _ in segments(plan)}
    assert merge(e for r in ledger.records() for e in r.written) == merge(different)


def test_zero_blocks_are_zeroed_and_shared_holes_are_not_read() -> None:
    original = bytes(4 * B) + b"x" * B + bytes(3 * B)
    before = bytes(2 * B) + b"y" * (2 * B) + b"x" * B + bytes(3 * B)
    source, target = MemoryDisk(MemoryVolume(original)), MemoryDisk(MemoryVolume(before))

    progress = run(source, target, ledger_of(TransferPlan(8 * B, 4 * B)))

    assert [done for done in target.done if done[0].changes] == [(Op.ZERO, 2 * B, 2 * B)]
    assert (progress.zeroed_bytes, progress.written_bytes) == (2 * B, 0)

    def read(disk: MemoryDisk) -> tuple[Extent, ...]:
        return merge(Extent(o, n) for op, o, n in disk.done if op is Op.READ)

    # What one side calls zeroes is read on the other side only; the end is looked at for its size.
    end = Extent(7 * B, B)
    assert read(source) == (Extent(4 * B, B), end)
    assert read(target) == (Extent(2 * B, 3 * B), end)
    assert progress.examined_bytes == 8 * B


@settings(deadline=None)
@given(seed=st.integers(), size=st.integers(1, 24 * B), maps=st.booleans(), blank=st.booleans())
def test_a_full_copy_reads_no_target_and_writes_whatever_is_not_known_to_be_zero(
    seed: int, size: int, maps: bool, blank: bool
) -> None:
    rng = random.Random(seed)
    original = content(rng, size)
    volume = MemoryVolume(bytes(size) if blank else changed(rng, original))
    target = MemoryDisk(volume, rng=rng)
    source = MemoryDisk(MemoryVolume(original), rng=rng, writable=False, maps_zeroes=maps)

    progress = run(
        source,
        target,
        ledger_of(TransferPlan(size, 3 * B)),
        options=replace(QUICK, full=True, blank_target=blank),
    )

    assert volume.content == volume.durable == original
    # But its end, to see that it is as long as it was.
    end = (size - 1) // B * B
    looks = {(Op.READ, end, size - end)}
    assert {done for done in target.done if done[0] in (Op.READ, Op.MAP)} == looks
    zero = sum(min(B, size - at) for at in range(0, size, B) if not any(original[at : at + B]))
    assert progress.written_bytes == size - zero
    assert progress.zeroed_bytes == (0 if blank else zero)
    assert progress.examined_bytes == progress.total_bytes == size


def test_finished_segments_are_skipped_and_counted_as_resumed() -> None:
    rng = random.Random(5)
    original = content(rng, 8 * B, zero_share=0)
    store = MemoryLedgerStore()
    plan = TransferPlan(8 * B, 2 * B)
    volume = MemoryVolume(bytes(8 * B))
    first = ledger_of(plan, store)

    def check() -> None:
        if first.finished():
            raise Stopped("enough")

    with pytest.raises(Stopped):
        run(
            MemoryDisk(MemoryVolume(original)),
            MemoryDisk(volume),
            first,
            check=check,
            options=replace(QUICK, window=1, flush_interval_s=0, check_interval_s=0),
        )
    ledger = store.open("plan", "second")
    done = ledger.finished()
    assert 0 < len(done) < 4
    source = MemoryDisk(MemoryVolume(original))

    progress = run(source, MemoryDisk(volume), ledger)

    assert volume.durable == original
    assert progress.resumed_bytes == len(done) * 2 * B
    assert progress.examined_bytes == 8 * B - progress.resumed_bytes
    assert progress.remaining_bytes == 0
    assert not any(op is Op.READ and offset // (2 * B) in done for op, offset, _ in source.done)
    assert store.is_complete("plan")


def test_everything_finished_needs_no_request() -> None:
    store, volume = MemoryLedgerStore(), MemoryVolume(b"a" * B)
    run(MemoryDisk(volume), MemoryDisk(volume), ledger_of(TransferPlan(B, B), store))
    target = MemoryDisk(volume)

    progress = run(MemoryDisk(volume), target, store.open("plan", "again"))

    assert target.done == []
    assert progress.resumed_bytes == progress.total_bytes == B


def test_a_plan_without_areas_is_complete_at_once() -> None:
    store = MemoryLedgerStore()

    run(
        MemoryDisk(MemoryVolume(b"a")),
        MemoryDisk(MemoryVolume(b"b")),
        ledger_of(plan_areas(1, []), store),
    )

    assert store.is_complete("plan")


def test_equal_disks_are_flushed_before_they_count_as_equal() -> None:
    """What compares equal may still lie in a cache that an earlier attempt wrote to."""
    volume = MemoryVolume(bytes(2 * B))
    volume.write(0, b"x" * B)
    target = MemoryDisk(volume)

    run(MemoryDisk(MemoryVolume(b"x" * B + bytes(B))), target, ledger_of(TransferPlan(2 * B, B)))

    assert volume.durable[:B] == b"x" * B
    assert Op.FLUSH in [op for op, _, _ in target.done]


@pytest.mark.parametrize(
    ("faults", "on_source", "expected", "offset"),
    [
        ([Fault(Op.READ, times=2, extent=Extent(B, 1))], True, DiskReadFailed, B),
        ([Fault(Op.READ, times=2, extent=Extent(B, 1))], False, DiskReadFailed, B),
        ([Fault(Op.WRITE, times=2, extent=Extent(2 * B, 1))], False, DiskWriteFailed, 2 * B),
        ([Fault(Op.WRITE, errno.ENOSPC, extent=Extent(2 * B, 1))], False, DiskFull, 2 * B),
        ([Fault(Op.WRITE, errno.EPERM, extent=Extent(2 * B, 1))], False, DiskReadOnly, 2 * B),
        ([Fault(Op.WRITE, errno.EROFS, extent=Extent(2 * B, 1))], False, DiskReadOnly, 2 * B),
        ([Fault(Op.ZERO, errno.ENOSPC)], False, DiskFull, 3 * B),
        ([Fault(Op.WRITE, errno.ESHUTDOWN, extent=Extent(B, 1))], False, DiskUnavailable, B),
        ([Fault(Op.FLUSH)], False, DiskFlushFailed, 0),
    ],
)
def test_errors_are_typed_and_carry_the_offset(
    faults: Sequence[Fault], on_source: bool, expected: type[DiskError], offset: int
) -> None:
    source = MemoryVolume(b"x" * (3 * B) + bytes(B))
    ledger = ledger_of(TransferPlan(4 * B, B))

    with pytest.raises(expected) as caught:
        run(
            MemoryDisk(source, faults=faults if on_source else ()),
            MemoryDisk(MemoryVolume(b"y" * (4 * B)), faults=() if on_source else faults),
            ledger,
            options=replace(QUICK, request_bytes=B, flush_interval_s=60),
        )

    assert caught.value.evidence["offset"] == offset
    assert str(caught.value).count(".") >= 2
    assert ledger.finished() == set()


@pytest.mark.parametrize("op", [Op.READ, Op.WRITE, Op.ZERO])
def test_a_request_that_fails_once_is_sent_again(op: Op) -> None:
    original = b"x" * B + bytes(B)
    volume = MemoryVolume(b"y" * (2 * B))

    run(
        MemoryDisk(MemoryVolume(original), maps_zeroes=False),
        MemoryDisk(volume, faults=[Fault(op)]),
        ledger_of(TransferPlan(2 * B, B)),
    )

    assert volume.durable == original


def test_a_map_that_fails_only_costs_reading() -> None:
    volume = MemoryVolume(b"y" * B)

    run(
        MemoryDisk(MemoryVolume(bytes(B)), faults=[Fault(Op.MAP, times=9)]),
        MemoryDisk(volume),
        ledger_of(TransferPlan(B, B)),
    )

    assert volume.durable == bytes(B)


@pytest.mark.parametrize(("source", "target"), [(B + 1, 2 * B), (B - 1, 2 * B), (B, B - 1)])
def test_another_size_than_planned_is_refused_before_any_request(source: int, target: int) -> None:
    disks = MemoryDisk(MemoryVolume(bytes(source))), MemoryDisk(MemoryVolume(bytes(target)))

    with pytest.raises(DiskSizeMismatch):
        run(*disks, ledger_of(TransferPlan(B, B)))

    assert disks[0].done == disks[1].done == []


def test_a_larger_target_keeps_what_lies_beyond_the_source() -> None:
    volume = MemoryVolume(b"y" * (2 * B))

    run(MemoryDisk(MemoryVolume(b"x" * 100)), MemoryDisk(volume), ledger_of(TransferPlan(100, B)))

    assert volume.durable == b"x" * 100 + b"y" * (2 * B - 100)


@pytest.mark.parametrize("op", [Op.READ, Op.WRITE, Op.FLUSH])
def test_a_stall_is_noticed_and_check_is_called_while_waiting(op: Op) -> None:
    calls: list[float] = []

    with pytest.raises(TransferStalled, match="did not answer"):
        run(
            MemoryDisk(MemoryVolume(b"x" * B)),
            MemoryDisk(MemoryVolume(b"y" * B), before=lambda one, *_: one is op),
            ledger_of(TransferPlan(B, B)),
            check=lambda: calls.append(time.monotonic()),
            options=replace(QUICK, stall_timeout_s=0.3, check_interval_s=0.02),
        )

    gaps = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert len(calls) >= 5
    assert max(gaps) < 0.5


def test_stopping_finishes_writes_flushes_and_commits_what_is_finished() -> None:
    original = b"x" * (8 * B)
    volume = MemoryVolume(bytes(8 * B))
    written: list[int] = []

    def before(op: Op, offset: int, _: int) -> None:
        if op is Op.WRITE:
            written.append(offset)

    def check() -> None:
        if len(written) >= 3:
            raise Stopped("paused")

    ledger = ledger_of(TransferPlan(8 * B, B))
    with pytest.raises(Stopped, match="paused"):
        run(
            MemoryDisk(MemoryVolume(original)),
            MemoryDisk(volume, before=before),
            ledger,
            check=check,
            options=replace(QUICK, window=2, request_bytes=B, flush_interval_s=60),
        )

    finished = ledger.finished()
    assert 0 < len(finished) < 8
    for index in finished:
        assert volume.durable[index * B : (index + 1) * B] == b"x" * B
    assert len(written) == len(finished), "every write that was sent is finished and committed"


def test_a_stop_is_not_held_up_by_a_disk_that_does_not_answer() -> None:
    stuck: list[Op] = []

    def before(op: Op, *_: int) -> bool:
        if op is Op.WRITE:
            stuck.append(op)
        return op is Op.WRITE

    def check() -> None:
        if stuck:
            raise Stopped("paused")

    ledger = ledger_of(TransferPlan(B, B))
    began = time.monotonic()
    with pytest.raises(Stopped, match="paused"):
        run(
            MemoryDisk(MemoryVolume(b"x" * B)),
            MemoryDisk(MemoryVolume(b"y" * B), before=before),
            ledger,
            check=check,
            options=replace(QUICK, stop_grace_s=0.1, check_interval_s=0.02),
        )

    assert time.monotonic() - began < 2
    assert ledger.finished() == set()


@pytest.mark.parametrize(
    ("fault", "grace_error"), [(Fault(Op.FLUSH), DiskFlushFailed), (Fault(Op.WRITE, 28), DiskFull)]
)
def test_a_failure_while_stopping_does_not_hide_the_stop(
    fault: Fault, grace_error: type[DiskError]
) -> None:
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise Stopped("paused")

    ledger = ledger_of(TransferPlan(4 * B, B))
    with pytest.raises(Stopped) as caught:
        run(
            MemoryDisk(MemoryVolume(b"x" * (4 * B))),
            MemoryDisk(MemoryVolume(b"y" * (4 * B)), faults=[fault]),
            ledger,
            check=check,
            options=replace(QUICK, window=2, request_bytes=B, flush_interval_s=60),
        )

    assert isinstance(caught.value.__cause__, grace_error)
    assert ledger.finished() == set()


@settings(deadline=None, max_examples=60)
@given(st.integers(), st.integers(1, 40))
def test_nothing_is_sent_after_the_lease_is_lost(seed: int, lost_at: int) -> None:
    rng = random.Random(seed)
    submitted: list[Op] = []
    calls: list[int] = []

    class Watched(MemoryDisk):
        def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
            submitted.append(Op.WRITE)
            super().submit_write(tag, offset, data)

        def submit_flush(self, tag: int) -> None:
            submitted.append(Op.FLUSH)
            super().submit_flush(tag)

    def check() -> None:
        calls.append(1)
        if len(calls) == lost_at:
            submitted.clear()
            raise LeaseLost("a newer attempt runs")
        assert len(calls) < lost_at, "checked again after the lease was lost"

    ledger = ledger_of(TransferPlan(16 * B, B))
    try:
        run(
            MemoryDisk(MemoryVolume(b"x" * (16 * B)), rng=rng),
            Watched(MemoryVolume(b"y" * (16 * B)), rng=rng),
            ledger,
            check=check,
            options=replace(QUICK, request_bytes=B, check_interval_s=0, flush_interval_s=0),
        )
    except LeaseLost:
        committed = ledger.finished()
        assert submitted == []
        assert ledger.finished() == committed
    else:
        assert len(calls) < lost_at


def test_check_comes_before_each_batch_of_writes() -> None:
    checks = writes = 0
    fresh = False

    def check() -> None:
        nonlocal checks, fresh
        checks, fresh = checks + 1, True

    class Watched(MemoryDisk):
        def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
            nonlocal writes, fresh
            assert fresh
            writes, fresh = writes + 1, False
            super().submit_write(tag, offset, data)

    run(
        MemoryDisk(MemoryVolume(b"x" * (8 * B))),
        Watched(MemoryVolume(b"y" * (8 * B))),
        ledger_of(TransferPlan(8 * B, B)),
        check=check,
        options=replace(QUICK, request_bytes=B, check_interval_s=60),
    )

    assert writes == 8


@pytest.mark.parametrize("error", [LeaseLost("taken over"), CatalogUnavailable("locked")])
def test_a_commit_that_fails_ends_the_copy(error: FailbackError) -> None:
    class Refusing(MemoryPassLedger):
        def commit(self, records: object) -> None:
            raise error

    store = MemoryLedgerStore()
    ledger_of(TransferPlan(B, B), store)
    ledger = store.open("plan", "me")
    ledger.__class__ = Refusing

    with pytest.raises(type(error)):
        run(MemoryDisk(MemoryVolume(b"x" * B)), MemoryDisk(MemoryVolume(b"y" * B)), ledger)

    assert ledger.finished() == set()
    assert not store.is_complete("plan")


def test_the_throttle_limits_the_source_and_check_is_called_meanwhile() -> None:
    calls: list[int] = []
    began = time.monotonic()

    run(
        MemoryDisk(MemoryVolume(b"x" * (20 * B))),
        MemoryDisk(MemoryVolume(b"x" * (20 * B))),
        ledger_of(TransferPlan(20 * B, 4 * B)),
        check=lambda: calls.append(1),
        options=replace(
            QUICK,
            request_bytes=B,
            check_interval_s=0.01,
            throttle=Throttle(80 * B, clock=time.monotonic, burst_s=0.02),
        ),
    )

    assert 0.15 < time.monotonic() - began < 5
    assert len(calls) > 5


def test_progress_tells_rate_and_time_left() -> None:
    reports: list[CopyProgress] = []
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    run(
        MemoryDisk(MemoryVolume(b"x" * (32 * B))),
        MemoryDisk(MemoryVolume(b"y" * (32 * B))),
        ledger_of(TransferPlan(32 * B, B)),
        report=reports.append,
        clock=clock,
        options=replace(QUICK, window=1, request_bytes=B, flush_interval_s=0.1),
    )

    assert len(reports) > 3
    assert reports[0].rate_bytes_s > 0
    assert reports[0].eta_s == pytest.approx(reports[0].remaining_bytes / reports[0].rate_bytes_s)
    assert [r.examined_bytes for r in reports] == sorted(r.examined_bytes for r in reports)
    assert reports[-1].eta_s == 0


@pytest.mark.parametrize("cut", ["source", "target"])
def test_nothing_counts_before_both_disks_are_seen_to_reach_to_their_ends(cut: str) -> None:
    """The missing part of a file that was cut short is told as a hole that reads as zeroes."""

    def disk(name: str) -> MemoryDisk:
        missing = Fault(Op.READ, times=9, extent=Extent(7 * B, B))
        faults = [missing] if name == cut else []
        return MemoryDisk(MemoryVolume(bytes(8 * B)), faults=faults)

    ledger = ledger_of(TransferPlan(8 * B, B))
    with pytest.raises(DiskReadFailed) as caught:
        run(disk("source"), disk("target"), ledger)

    assert caught.value.evidence["offset"] == 7 * B
    assert not ledger.finished()


def test_what_is_zeroed_without_reading_the_source_takes_none_of_its_bandwidth() -> None:
    size = 8 * B
    throttle = Throttle(1.0, clock=lambda: 0.0)
    # In debt for good: whoever asks now waits for ever, because the clock stands still.
    assert throttle.try_take(size) == 0.0
    assert throttle.try_take(1) > 0
    volume = MemoryVolume(b"x" * size)

    progress = run(
        MemoryDisk(MemoryVolume(bytes(size)), writable=False),
        MemoryDisk(volume),
        ledger_of(TransferPlan(size)),
        options=replace(QUICK, throttle=throttle),
    )

    assert progress.zeroed_bytes == size
    assert volume.durable == bytes(size)
