from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest

from failback.disks.budget import Budget, Buffers
from failback.disks.copier import copy
from failback.disks.faults import Op
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import BLOCK_BYTES, TransferPlan
from failback.disks.testing import Fault, MemoryDisk, MemoryLedgerStore, MemoryVolume
from failback.errors import DiskError
from tests.helpers.disks import QUICK, changed, content, no_report

B = BLOCK_BYTES


def test_a_budget_grants_up_to_its_limit_and_again_what_was_returned() -> None:
    budget = Budget(4 * B)
    slots = [budget.take(B), budget.take(B)]
    assert budget.take(B) is None
    assert slots[0] is not None
    budget.give(slots[0])
    assert budget.take(B) is slots[0]
    assert budget.used_bytes == 4 * B


def test_every_copy_gets_one_slot_even_if_the_budget_is_spent() -> None:
    budget = Budget(2 * B)
    ours, theirs = Buffers(budget, B, 8), Buffers(budget, B, 8)
    mine = ours.take(B)
    assert mine is not None
    assert ours.take(B) is None
    assert theirs.take(B) is not None
    ours.give(mine)
    assert ours.take(B) is mine
    for buffers in (ours, theirs):
        buffers.close(reuse=True)
    assert budget.used_bytes == 0


def test_a_slot_that_may_still_be_touched_is_not_given_to_another() -> None:
    budget = Budget(8 * B)
    buffers = Buffers(budget, B, 2)
    touched = {buffers.take(B), buffers.take(B)}
    buffers.close(reuse=False)
    assert budget.used_bytes == 0
    assert not touched & {budget.take(B) for _ in range(4)}


def test_of_small_parts_more_are_under_way_in_the_same_memory() -> None:
    budget = Budget(64 * B)
    buffers = Buffers(budget, 4 * B, 3)
    first = buffers.take(4 * B)
    small = [buffers.take(B) for _ in range(8)]
    assert first is not None
    assert all(small)
    assert buffers.take(1) is None
    assert budget.used_bytes == 2 * 12 * B
    buffers.give(first)
    assert buffers.take(3 * B) is first


def test_idle_slots_of_another_size_make_room() -> None:
    budget = Budget(4 * B)
    for slot in [budget.take(B), budget.take(B)]:
        assert slot is not None
        budget.give(slot)
    large = budget.take(2 * B)
    assert large is not None
    budget.give(large)
    assert budget.take(2 * B) is large


def test_a_budget_too_small_for_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="hold no block"):
        Budget(B)


@pytest.mark.parametrize("limit_blocks", [2, 16])
def test_copies_at_once_share_one_budget_and_return_it_also_after_a_failure(
    limit_blocks: int,
) -> None:
    budget = Budget(limit_blocks * B)
    options = replace(QUICK, budget=budget, window=8)
    peaks: list[int] = []
    contents: dict[int, tuple[bytes, MemoryVolume]] = {}

    def one(number: int) -> None:
        rng = random.Random(number)
        original = content(rng, 40 * B)
        volume = MemoryVolume(changed(rng, original))
        contents[number] = original, volume
        faults = [Fault(Op.READ, nth=9, times=99)] if number == 0 else []
        store = MemoryLedgerStore()
        store.save("plan", "disk", LedgerIdentity("s", "t"), TransferPlan(40 * B, 8 * B))
        try:
            copy(
                MemoryDisk(MemoryVolume(original), faults=faults),
                MemoryDisk(volume),
                store.open("plan", "owner"),
                options=options,
                check=lambda: peaks.append(budget.used_bytes),
                report=no_report,
                clock=time.monotonic,
            )
        except DiskError:
            assert number == 0
            return
        assert number != 0

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(volume.content == original for n, (original, volume) in contents.items() if n)
    own = len(threads) * 2 * QUICK.request_bytes
    assert 0 < max(peaks) <= limit_blocks * B + own
    assert budget.used_bytes == 0
