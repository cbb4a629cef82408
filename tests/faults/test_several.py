"""Several disks of one worker: one bandwidth, which may change meanwhile, and one memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.disks.budget import Budget
from failback.disks.copier import copy
from failback.disks.ledger import LedgerIdentity
from failback.disks.opening import open_disk
from failback.disks.progress import CopyProgress
from failback.disks.throttle import Throttle
from tests.faults.scene import Scene
from tests.helpers.disks import MIB, eventually, no_check

NewScene = Callable[..., Scene]
DISKS = 4


class Worker:
    """Threads of one process that copy a disk each, with a ledger in common."""

    def __init__(self, scenes: list[Scene], throttle: Throttle, budget: Budget) -> None:
        self._scenes, self._throttle, self._budget = scenes, throttle, budget
        self._catalog = Catalog(scenes[0].url)
        self._store = SqlLedgerStore(self._catalog)
        self._lock = threading.Lock()
        self._examined = dict.fromkeys(range(len(scenes)), 0)
        self.most_used_bytes = 0

    @property
    def examined_bytes(self) -> int:
        with self._lock:
            return sum(self._examined.values())

    def copy(self, number: int) -> CopyProgress:
        here = self._scenes[number]
        plan_id = f"disk {number}"
        with self._scenes[number].store() as store:
            plan = store.open(here.plan_id, "planner").plan
        self._store.save(plan_id, plan_id, LedgerIdentity("s", "t"), plan)

        def report(now: CopyProgress) -> None:
            with self._lock:
                self._examined[number] = now.examined_bytes
                self.most_used_bytes = max(self.most_used_bytes, self._budget.used_bytes)

        with (
            open_disk(here.target, writable=True, fence=here.fence(), check=no_check) as target,
            open_disk(here.source, writable=False, fence=None, check=no_check) as source,
        ):

            def check() -> None:
                target[1]()
                source[1]()

            return copy(
                source[0],
                target[0],
                self._store.open(plan_id, "worker"),
                options=replace(here.options, throttle=self._throttle, budget=self._budget),
                check=check,
                report=report,
                clock=time.monotonic,
            )

    def close(self) -> None:
        self._catalog.close()


def test_several_disks_share_bandwidth_and_memory(scene: NewScene) -> None:
    scenes = [scene(seed) for seed in range(DISKS)]
    slow = 2 * MIB
    throttle = Throttle(slow, clock=time.monotonic, burst_s=0.05)
    limit_bytes = DISKS * 2 * 2 * scenes[0].options.request_bytes
    budget = Budget(limit_bytes)
    worker = Worker(scenes, throttle, budget)

    with ThreadPoolExecutor(DISKS) as threads:
        began = time.monotonic()
        copies = [threads.submit(worker.copy, number) for number in range(DISKS)]
        eventually(lambda: worker.examined_bytes > MIB)
        rate = worker.examined_bytes / (time.monotonic() - began)
        # Changed while they run: 13 MiB at the old rate would take another six seconds.
        throttle.set_limit(None)
        changed = time.monotonic()
        for done in copies:
            done.result()
        took_s = time.monotonic() - changed
    worker.close()

    assert rate < 1.5 * slow
    assert took_s < 4
    assert 0 < worker.most_used_bytes <= limit_bytes
    assert budget.used_bytes == 0
    assert all(one.equal() for one in scenes)
