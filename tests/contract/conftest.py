"""The back ends that every contract test runs against."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.placement import Placement
from failback.hypervisor.vsphere.sites import VsphereSites
from failback.hypervisor.vsphere.tasks import Polling
from tests.contract.backends import MIB, Backend, Beats, LabBackend, double
from tests.contract.differences import DOUBLE, LAB, OLD, PLAIN
from tests.helpers.lab import LabHandle, start_lab, start_referee

SITE = "one"
QUICK = Polling(first_s=0.01, most_s=0.2, lost_look_s=0.5, held_s=0.5)
"""A lab on this machine answers at once; what it has not begun by then it never will."""

WORLD: dict[str, Any] = {
    "sites": [
        {
            "name": SITE,
            "vms": [
                {
                    "name": "off",
                    "power": "off",
                    "tools": True,
                    "disks": [{"size_bytes": MIB, "seed": 1}, {"size_bytes": MIB}],
                },
                {
                    "name": "on",
                    "power": "on",
                    "tools": True,
                    "disks": [{"size_bytes": MIB, "seed": 2}, {"size_bytes": MIB}],
                },
            ],
        }
    ]
}


@pytest.fixture
def beats() -> Beats:
    return Beats()


class Starting:
    """Sites of the same world, each used once; the next one starts while a test runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(2)
        self._next: dict[str, Future[LabHandle]] = {}

    def take(self, name: str) -> LabHandle:
        """One that nobody has used; the caller ends it."""
        ready = self._next.pop(name, None) or self._pool.submit(self._start, name)
        self._next[name] = self._pool.submit(self._start, name)
        return ready.result()

    def close(self) -> None:
        for started in self._next.values():
            started.result().stop()
        self._pool.shutdown()

    def _start(self, name: str) -> LabHandle:
        folder = self._folder / str(next(self._numbers))
        if name == OLD:
            return start_referee(WORLD, folder)
        return start_lab(WORLD, folder, *(["--plain"] if name == PLAIN else []))


@pytest.fixture(scope="session")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starting]:
    made = Starting(tmp_path_factory.mktemp("sites"))
    yield made
    made.close()


@pytest.fixture
def lab(starting: Starting) -> Iterator[LabHandle]:
    """A lab with its extensions, one site, two VMs."""
    with starting.take(LAB) as handle:
        yield handle


@pytest.fixture(params=[LAB, PLAIN, OLD, DOUBLE])
def backend(request: pytest.FixtureRequest, starting: Starting) -> Iterator[Backend]:
    if request.param == DOUBLE:
        yield double()
        return
    # A stock simulator calls itself older than it is.
    old: dict[str, Any] = {"oldest_api": (6, 5)} if request.param == OLD else {}
    with (
        starting.take(request.param) as handle,
        VsphereSites([handle.connection(SITE, **old)], QUICK) as sites,
    ):
        site = sites.site(SITE)
        # The older simulator has a host of its own beside the cluster, and two datastores: what
        # there is more than one of must be named.
        named = Placement(cluster="DC0_C0", datastore="LocalDS_0")
        place = named if request.param == OLD else Placement()
        yield LabBackend(request.param, site, site.find("off"), site.find("on"), handle, place)
