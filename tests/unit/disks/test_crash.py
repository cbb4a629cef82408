"""The real copier against a disk with a volatile cache, under any schedule of crashes."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from failback.disks.copier import copy
from failback.disks.faults import Op
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import BLOCK_BYTES, TransferPlan
from failback.disks.testing import MemoryDisk, MemoryLedgerStore, MemoryVolume
from tests.helpers.disks import QUICK, changed, content, no_check, no_report


class Crash(Exception):
    """The mover is gone, between any two instants."""


class LyingDisk(MemoryDisk):
    """Answers a flush without flushing: the same as committing before the flush."""

    def submit_flush(self, tag: int) -> None:
        self.submit_read(tag, 0, memoryview(bytearray(1)))


def simulate(seed: int, kind: type[MemoryDisk]) -> bool:
    """Crash a few times at random, then finish and lose power; True if the disks are equal."""
    rng = random.Random(seed)
    size = rng.randint(1, 24) * BLOCK_BYTES + rng.choice((0, 512, 777))
    original = content(rng, size)
    source, target = MemoryVolume(original), MemoryVolume(changed(rng, original, share=0.6))
    plan = TransferPlan(size, rng.randint(1, 3) * BLOCK_BYTES)
    store = MemoryLedgerStore()
    store.save("plan", "disk", LedgerIdentity("s", "t"), plan)
    options = replace(
        QUICK,
        window=rng.randint(1, 5),
        request_bytes=rng.randint(1, 3) * BLOCK_BYTES,
        flush_interval_s=0,
    )
    for attempt in range(rng.randint(1, 5), -1, -1):
        left = rng.randint(1, 60) if attempt else None

        def crash_in_time(*_: object) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left == 0:
                    raise Crash

        disk = kind(target, rng=rng, before=crash_in_time)
        try:
            copy(
                MemoryDisk(source, rng=rng, writable=False),
                disk,
                store.open("plan", f"attempt {attempt}"),
                options=options,
                check=no_check,
                report=no_report,
                clock=time.monotonic,
            )
        except Crash:
            disk.drop()
            if rng.random() < 0.7:
                target.power_cut(rng)
    target.power_cut(rng)
    return target.content == original


@settings(deadline=None, max_examples=150)
@given(st.integers())
def test_disks_are_equal_after_any_crashes_and_a_final_power_cut(seed: int) -> None:
    assert simulate(seed, MemoryDisk)


def test_the_simulation_catches_a_commit_before_the_flush() -> None:
    assert not all(simulate(seed, LyingDisk) for seed in range(20))


def test_a_simulation_can_be_replayed() -> None:
    def trace(seed: int) -> list[tuple[Op, int, int]]:
        rng = random.Random(seed)
        original = content(rng, 9 * BLOCK_BYTES)
        disk = MemoryDisk(MemoryVolume(changed(rng, original)), rng=rng)
        store = MemoryLedgerStore()
        store.save(
            "plan", "disk", LedgerIdentity("s", "t"), TransferPlan(len(original), BLOCK_BYTES)
        )
        copy(
            MemoryDisk(MemoryVolume(original), rng=rng),
            disk,
            store.open("plan", "me"),
            options=replace(QUICK, flush_interval_s=0),
            check=no_check,
            report=no_report,
            clock=time.monotonic,
        )
        return disk.done

    assert trace(11) == trace(11)
    assert trace(11) != trace(12)
