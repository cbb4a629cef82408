"""The back ends that every contract test runs against."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabHandle]:
    """A lab with its extensions, one site, two VMs."""
    with start_lab(WORLD, tmp_path) as handle:
        yield handle


@pytest.fixture(params=[LAB, PLAIN, OLD, DOUBLE])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == DOUBLE:
        yield double()
        return
    # A stock simulator calls itself older than it is.
    old: dict[str, Any] = {"oldest_api": (6, 5)} if request.param == OLD else {}
    with (
        _start(request.param, tmp_path) as handle,
        VsphereSites([handle.connection(SITE, **old)], QUICK) as sites,
    ):
        site = sites.site(SITE)
        # The older simulator has a host of its own beside the cluster, and two datastores: what
        # there is more than one of must be named.
        named = Placement(cluster="DC0_C0", datastore="LocalDS_0")
        place = named if request.param == OLD else Placement()
        yield LabBackend(request.param, site, site.find("off"), site.find("on"), handle, place)


def _start(name: str, folder: Path) -> LabHandle:
    if name == OLD:
        return start_referee(WORLD, folder)
    return start_lab(WORLD, folder, *(["--plain"] if name == PLAIN else []))
