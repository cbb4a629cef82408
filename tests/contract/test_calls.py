"""Calls that each operation costs beside waiting: on a line to a far site each adds its delay."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from failback.hypervisor.vsphere.sites import VsphereSite, VsphereSites
from failback.hypervisor.vsphere.tasks import Polling
from tests.contract.backends import MIB, Beats
from tests.contract.conftest import SITE
from tests.helpers.lab import LabHandle

NAME, MARK = "failback/run/x", "run"
READ = "RetrievePropertiesEx"


@dataclass
class Naps:
    """Pauses between two looks; each look after the first costs one read."""

    count: int = 0

    def __call__(self, seconds: float) -> None:
        self.count += 1
        time.sleep(seconds)


@dataclass
class Bench:
    lab: LabHandle
    site: VsphereSite
    naps: Naps
    beats: Beats = field(default_factory=Beats)

    def cost(self, act: Callable[[], object]) -> tuple[int, Counter[str]]:
        """Reads beside waiting, and every other call."""
        before, naps = Counter(self.lab.control.calls(SITE)), self.naps.count
        act()
        calls = Counter(self.lab.control.calls(SITE)) - before
        reads = calls.pop(READ, 0) - (self.naps.count - naps)
        return reads, calls


@pytest.fixture
def bench(lab: LabHandle) -> Iterator[Bench]:
    naps = Naps()
    with VsphereSites([lab.connection(SITE)], Polling(first_s=0.01, sleep=naps)) as sites:
        yield Bench(lab, sites.site(SITE), naps)


def test_each_operation_costs_a_few_calls(bench: Bench) -> None:
    """Doing a thing, and finding it done already: reads at most, and exactly these others."""
    site, beats = bench.site, bench.beats
    vm = site.find("off")
    made: list[str] = []
    steps: list[tuple[int, dict[str, int], Callable[[], object]]] = [
        (2, {}, lambda: site.find("off")),
        (1, {"FindByInventoryPath": 1}, lambda: site.find("/DC0/vm/off")),
        (1, {}, lambda: site.find(vm.moref)),
        (1, {"FindAllByUuid": 2}, lambda: site.find_again(vm)),
        (1, {}, lambda: site.read([vm])),
        (1, {"QueryEvents": 1}, lambda: site.power_mark(vm)),
        (0, {}, lambda: site.keep_alive()),
        (0, {}, lambda: site.about()),
        (4, {"PowerOnVM_Task": 1}, lambda: site.power_on(vm, beats)),
        (2, {}, lambda: site.power_on(vm, beats)),
        (4, {"PowerOffVM_Task": 1}, lambda: site.power_off(vm, beats)),
        (2, {}, lambda: site.power_off(vm, beats)),
        (1, {}, lambda: site.shut_down_guest(vm, beats)),
        (1, {}, lambda: site.answer_question(vm, "msg.uuid.altered", "1", beats)),
        (5, {"ReconfigVM_Task": 1}, lambda: site.set_change_tracking(vm, True, beats)),
        (2, {}, lambda: site.set_change_tracking(vm, True, beats)),
        (5, {"ReconfigVM_Task": 1}, lambda: site.grow_disk(vm, 2000, 2 * MIB, beats)),
        (2, {}, lambda: site.grow_disk(vm, 2000, 2 * MIB, beats)),
        (
            5,
            {"CreateSnapshot_Task": 1},
            lambda: made.append(site.create_snapshot(vm, NAME, MARK, beats)),
        ),
        (3, {}, lambda: site.create_snapshot(vm, NAME, MARK, beats)),
        (2, {}, lambda: site.snapshot_disks(vm, made[0])),
        (
            3,
            {"RevertToSnapshot_Task": 1},
            lambda: site.revert_to_snapshot(vm, made[0], MARK, beats),
        ),
        (6, {"RemoveSnapshot_Task": 1}, lambda: site.remove_snapshot(vm, NAME, MARK, beats)),
        (1, {}, lambda: site.remove_snapshot(vm, NAME, MARK, beats)),
        (
            1,
            {"AddCustomFieldDef": 1, "SetField": 1},
            lambda: site.set_attribute(vm, "failback.state", "x", beats),
        ),
        (1, {}, lambda: site.set_attribute(vm, "failback.state", "x", beats)),
        (1, {"SetField": 1}, lambda: site.set_attribute(vm, "failback.state", "y", beats)),
        (1, {}, lambda: site.get_attribute(vm, "failback.state")),
        (2, {}, lambda: site.clear_mark(vm, MARK, beats)),
    ]
    for number, (reads, others, act) in enumerate(steps):
        seen, calls = bench.cost(act)
        assert (seen <= reads, dict(calls)) == (True, others), (number, seen, others)
