"""Several disks of one host at once: what the library sees under way stays within the budget."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from failback.disks.copier import CopyOptions, copy
from failback.disks.hosts import RESERVE_BYTES, HostBudgets, HostLimits
from failback.disks.kinds import DatastoreAccess
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import TransferPlan
from failback.disks.testing import MemoryDisk, MemoryLedgerStore, MemoryVolume
from failback.errors import Stopped
from tests.helpers.disks import MIB, eventually, no_report
from tests.vddk.conftest import MakeHost
from tests.vddk.fake import FakeHost

SIZE = 8 * MIB
DISKS = 4
LIMITS = HostLimits(DISKS * RESERVE_BYTES + MIB, DISKS)


class Copies:
    """Copies of disks of hosts, each in a thread, all under the same budgets."""

    def __init__(self, hosts: HostBudgets) -> None:
        self._hosts = hosts
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self.right: list[str] = []
        self.stopped: list[str] = []
        self.open: list[int] = []
        """Disks open on a host, as each of them saw it again and again."""

    def start(self, host: FakeHost, esxi: str, number: int) -> None:
        name = f"[ds] vm{number}/disk.vmdk"
        original = random.Random(number).randbytes(SIZE)
        path = host.root / f"disk{number}.img"
        path.write_bytes(original)
        host.serve(name, path)
        run = threading.Thread(target=self._copy, args=(host, esxi, name, original))
        self._threads.append(run)
        run.start()

    def _copy(self, host: FakeHost, esxi: str, name: str, original: bytes) -> None:
        access = DatastoreAccess(kind="vddk", vddk=host.site)
        volume = MemoryVolume(bytes(SIZE))
        store = MemoryLedgerStore()
        store.save("plan", name, LedgerIdentity("s", "t"), TransferPlan(SIZE, MIB))
        renewals: list[Callable[[], None]] = []

        def check() -> None:
            for renew in renewals:
                renew()
            self.open.append(self._hosts.of(host.site.server, esxi, host.site.limits).disks)
            if self._stop.is_set():
                raise Stopped("asked to", "")

        try:
            with access.open(
                name,
                vm="vm-1",
                snapshot=None,
                writable=False,
                fence=None,
                check=check,
                name=name,
                lease_s=60,
                host=esxi,
                hosts=self._hosts,
            ) as (disk, renew):
                renewals.append(renew)
                copy(
                    disk,
                    MemoryDisk(volume),
                    store.open("plan", name),
                    options=CopyOptions(window=8, request_bytes=MIB, stall_timeout_s=100.0),
                    check=check,
                    report=no_report,
                    clock=time.monotonic,
                )
        except Stopped:
            self.stopped.append(name)
            return
        if volume.content == original:
            self.right.append(name)

    def stop(self) -> None:
        self._stop.set()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()


def test_all_disks_of_a_host_together_stay_within_its_budget(make_host: MakeHost) -> None:
    host = make_host("host", LIMITS)
    copies = Copies(HostBudgets())
    host.hang(True)
    try:
        for number in range(DISKS + 1):
            copies.start(host, "esx1", number)
        # All of it is used while nothing is answered, and not a byte more at any time.
        eventually(lambda: host.peak_bytes() >= LIMITS.in_flight_bytes, 60)
    finally:
        host.hang(False)
        copies.wait()

    assert len(copies.right) == DISKS + 1
    assert host.peak_bytes() == LIMITS.in_flight_bytes
    assert max(copies.open) == DISKS


def test_a_host_that_hangs_is_not_felt_by_another(make_host: MakeHost) -> None:
    slow, other = make_host("slow", LIMITS), make_host("other", LIMITS)
    copies = Copies(HostBudgets())
    slow.hang(True)
    copies.start(slow, "esx1", 0)
    copies.start(slow, "esx1", 1)
    try:
        eventually(lambda: slow.count("begin") >= 4, 60)
        copies.start(other, "esx2", 2)
        eventually(lambda: copies.right == ["[ds] vm2/disk.vmdk"], 60)
        assert slow.peak_bytes() <= LIMITS.in_flight_bytes
        assert slow.count("end") == 0
    finally:
        slow.hang(False)
        copies.wait()
    assert len(copies.right) == 3


def test_a_disk_that_hangs_leaves_the_others_of_its_host_their_part(make_host: MakeHost) -> None:
    hanging = make_host("hanging", LIMITS)
    working = make_host("working", LIMITS)
    copies = Copies(HostBudgets())
    hanging.hang(True)
    # The same ESXi host for the budget; only one of its disks hangs.
    copies.start(hanging, "esx1", 0)
    try:
        eventually(lambda: hanging.count("begin") >= 3, 60)
        copies.start(working, "esx1", 1)
        copies.start(working, "esx1", 2)
        eventually(lambda: len(copies.right) == 2, 60)
        assert hanging.peak_bytes() + working.peak_bytes() <= LIMITS.in_flight_bytes
    finally:
        copies.stop()
        copies.wait()
        hanging.hang(False)
    assert copies.stopped == ["[ds] vm0/disk.vmdk"]
