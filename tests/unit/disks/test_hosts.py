"""The budget of a host: never exceeded, never stuck, and disks of other hosts do not feel it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from failback.disks.blockio import BlockIO
from failback.disks.copier import copy
from failback.disks.faults import Op
from failback.disks.hosts import (
    MIB,
    RESERVE_BYTES,
    HostBudget,
    HostBudgets,
    HostLimits,
    LimitedDisk,
    Share,
    place,
)
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import BLOCK_BYTES, TransferPlan
from failback.disks.testing import MemoryDisk, MemoryLedgerStore, MemoryVolume
from failback.errors import DiskUnavailable, Stopped
from tests.helpers.disks import QUICK, changed, content, eventually, no_check, no_report

LIMITS = HostLimits(8 * MIB, 3)


def entered(budget: HostBudget) -> Share:
    share = budget.enter()
    assert share is not None
    return share


def test_a_disk_has_its_reserve_whatever_the_others_took() -> None:
    budget = HostBudget(LIMITS)
    greedy, modest = entered(budget), entered(budget)
    while greedy.take(MIB):
        pass
    # Its reserve and all that is common; the reserves of two more disks are left.
    assert greedy.used_bytes == budget.used_bytes == 4 * MIB
    assert modest.take(RESERVE_BYTES)
    assert not modest.take(1)
    last = entered(budget)
    assert last.take(RESERVE_BYTES)
    assert budget.used_bytes == LIMITS.in_flight_bytes
    assert budget.enter() is None


def test_what_is_returned_goes_to_those_who_wait() -> None:
    budget = HostBudget(LIMITS)
    greedy, waiting, idle = entered(budget), entered(budget), entered(budget)
    woken: list[str] = []
    waiting.wake, idle.wake = (lambda: woken.append("waiting")), (lambda: woken.append("idle"))
    while greedy.take(MIB):
        pass
    assert waiting.take(RESERVE_BYTES)
    assert not waiting.take(MIB)
    greedy.give(MIB)
    assert woken == ["waiting"]
    assert waiting.take(MIB)
    budget.leave(waiting)
    budget.leave(waiting)
    assert budget.used_bytes == greedy.used_bytes == 3 * MIB


def test_hosts_are_told_apart_by_server_and_name() -> None:
    hosts = HostBudgets()
    one = hosts.of("vc-a", "esx1", LIMITS)
    assert hosts.of("vc-a", "esx1", HostLimits()) is one
    assert hosts.of("vc-a", "esx2", LIMITS) is not one
    assert hosts.of("vc-b", "esx1", LIMITS) is not one


@pytest.mark.parametrize(("size", "disks"), [(2 * MIB, 2), (MIB, 1), (8 * MIB, 0)])
def test_limits_without_room_for_every_disk_are_refused(size: int, disks: int) -> None:
    with pytest.raises(ValueError, match="less than 2 MiB"):
        HostLimits(size, disks)


def test_a_disk_waits_for_its_place_and_for_no_longer_than_told() -> None:
    budget = HostBudget(HostLimits(2 * MIB, 1))
    now, checks = [0.0], list[int]()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def check() -> None:
        checks.append(1)

    with place(budget, name="disk", check=check):
        with (
            pytest.raises(DiskUnavailable, match="1 disks are open on its host") as caught,
            place(budget, name="disk", check=check, timeout_s=5, clock=lambda: now[0], sleep=sleep),
        ):
            pass
        assert caught.value.retryable
        assert len(checks) > 40

        def stop() -> None:
            raise Stopped("asked to", "")

        with pytest.raises(Stopped), place(budget, name="disk", check=stop):
            pass
    with place(budget, name="disk", check=no_check):
        assert budget.disks == 1
    assert budget.disks == 0


def copied(
    number: int,
    share: Share,
    wrap: Callable[[MemoryDisk], BlockIO] = lambda disk: disk,
    before: Callable[[Op, int, int], bool | None] | None = None,
    check: Callable[[], None] = no_check,
) -> bool:
    """Copy 40 blocks from a disk behind the share; whether the target became equal."""
    rng = random.Random(number)
    original = content(rng, 40 * BLOCK_BYTES)
    volume = MemoryVolume(changed(rng, original))
    store = MemoryLedgerStore()
    store.save(
        "plan", "disk", LedgerIdentity("s", "t"), TransferPlan(40 * BLOCK_BYTES, 8 * BLOCK_BYTES)
    )
    copy(
        LimitedDisk(wrap(MemoryDisk(MemoryVolume(original), before=before)), share),
        MemoryDisk(volume),
        store.open("plan", "owner"),
        options=replace(QUICK, window=16, request_bytes=8 * BLOCK_BYTES, skip_holes=False),
        check=check,
        report=no_report,
        clock=time.monotonic,
    )
    return volume.content == original


def test_copies_of_one_host_stay_within_its_budget() -> None:
    limits = HostLimits(3 * RESERVE_BYTES + 4 * BLOCK_BYTES, 3)
    budget = HostBudget(limits)
    seen: list[int] = []
    results: list[bool] = []

    def one(number: int) -> None:
        share = entered(budget)
        try:
            done = copied(
                number,
                share,
                before=lambda *_: seen.append(budget.used_bytes),
            )
            results.append(done)
        finally:
            budget.leave(share)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [True] * 3
    assert 0 < max(seen) <= limits.in_flight_bytes
    assert budget.used_bytes == 0


def test_a_disk_that_hangs_with_all_it_could_take_stops_no_other() -> None:
    budget = HostBudget(HostLimits(2 * RESERVE_BYTES, 2))
    hanging, working = entered(budget), entered(budget)
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped("asked to", "")

    def hang() -> None:
        with pytest.raises(Stopped):
            copied(1, hanging, before=lambda *_: True, check=check)

    thread = threading.Thread(target=hang)
    thread.start()
    try:
        eventually(lambda: hanging.used_bytes == RESERVE_BYTES, 60)
        assert copied(2, working)
    finally:
        stop.set()
        thread.join()
    assert hanging.used_bytes == RESERVE_BYTES, "counted until what serves it is dead"
    budget.leave(hanging)
    assert budget.used_bytes == 0


def test_a_request_larger_than_a_reserve_is_never_asked_for() -> None:
    disk = LimitedDisk(MemoryDisk(MemoryVolume(bytes(8 * MIB))), entered(HostBudget(LIMITS)))
    assert disk.max_request_bytes == RESERVE_BYTES
    with pytest.raises(ValueError, match="does not fit"):
        disk.submit_read(1, 0, memoryview(bytearray(RESERVE_BYTES + 1)))


def test_a_closed_disk_forgets_what_waits() -> None:
    budget = HostBudget(HostLimits(2 * RESERVE_BYTES, 2))
    volume = MemoryVolume(bytes(8 * MIB))
    inner = MemoryDisk(volume, before=lambda *_: True)
    disk = LimitedDisk(inner, entered(budget))
    for tag in range(4):
        disk.submit_read(tag, 0, memoryview(bytearray(MIB)))
    assert budget.used_bytes == 2 * MIB
    disk.close()
    disk.close()
    assert budget.used_bytes == 2 * MIB
