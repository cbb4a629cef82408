"""What the driver adds to the site's own work: seconds of a call that no task of the site took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import Row, Tell
from failback.contracts.shell import VmShell
from failback.hypervisor.vsphere.sites import VsphereSites
from tests.helpers.lab import start_lab

ROUNDS = 15
LIMIT_S = 0.050
SITE, MARK, NAME = "one", "bench", "failback/bench/x"

Step = tuple[str, Callable[[], object]]


def rows(folder: Path, tell: Tell) -> Iterator[Row]:
    """Overhead of every mutation, median of ROUNDS."""
    world: dict[str, Any] = {
        "sites": [
            {
                "name": SITE,
                "vms": [{"name": "vm", "disks": [{"size_bytes": 1 << 20}] * 2}],
                "fillers": 100,
            }
        ]
    }
    took: dict[str, list[float]] = {}
    with (
        start_lab(world, folder) as lab,
        VsphereSites([lab.connection(SITE)]) as sites,
    ):
        site = sites.site(SITE)
        vm = site.find("vm")
        for number in range(ROUNDS):
            for name, step in _steps(site, vm, number):
                before = float(lab.control.get("/calls")["task_wall_seconds"])
                began = time.monotonic()
                step()
                wall = time.monotonic() - began
                tasks = float(lab.control.get("/calls")["task_wall_seconds"]) - before
                took.setdefault(name, []).append(wall - tasks)
        tell(f"  {ROUNDS} rounds of {len(took)} operations")
    for name, seconds in took.items():
        middle = statistics.median(seconds)
        yield Row(
            f"driver, {name}: beside the task",
            f"{middle * 1000:.0f} ms",
            f"<= {LIMIT_S * 1000:.0f} ms",
            middle <= LIMIT_S,
            f"median of {len(seconds)}, {min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f} ms",
        )


def _steps(site: Any, vm: Any, number: int) -> Iterator[Step]:
    def beat() -> None:
        return None

    yield "power on", lambda: site.power_on(vm, beat)
    yield "power off", lambda: site.power_off(vm, beat)
    yield "tracking on", lambda: site.set_change_tracking(vm, True, beat)
    yield "create snapshot", lambda: site.create_snapshot(vm, NAME, MARK, beat)
    found = site.read([vm])[0].snapshots[0].moref
    yield "revert", lambda: site.revert_to_snapshot(vm, found, MARK, beat)
    yield "remove snapshot", lambda: site.remove_snapshot(vm, NAME, MARK, beat)
    yield "tracking off", lambda: site.set_change_tracking(vm, False, beat)
    disk = site.read([vm])[0].disks[0]
    yield "grow disk", lambda: site.grow_disk(vm, disk.key, disk.capacity_bytes + 65536, beat)
    yield "set attribute", lambda: site.set_attribute(vm, "failback.state", str(number), beat)
    shell = VmShell(name=f"shell-{number}", configuration=site.configuration(vm))
    made = []
    yield "create VM", lambda: made.append(site.create_vm(shell, MARK, beat))
    yield "rename VM", lambda: site.rename_vm(made[0], f"final-{number}", "", beat)
    yield "destroy VM", lambda: site.destroy_vm(made[0], MARK, beat)
