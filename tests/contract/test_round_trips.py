"""How often a site is asked: what a run costs on a line with a long delay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import ReplicaState
from failback.hypervisor.vsphere.sites import VsphereSites
from failback.preflight.checks import check
from failback.preflight.collect import Ask, collect
from tests.helpers.lab import LabHandle, start_lab

PAIRS = 100
ONE_VM = 6
"""Round trips that a preflight of one VM may take at each vCenter; of 100 VMs three times that."""


def world() -> dict[str, Any]:
    vms = [{"name": f"vm{number}", "disks": [{"size_bytes": 65536}]} for number in range(PAIRS)]
    return {
        "sites": [
            {"name": "production", "datastore": "ds-production", "vms": vms},
            {"name": "dr", "datastore": "ds-dr", "vms": vms},
        ]
    }


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHandle]:
    with start_lab(world(), tmp_path_factory.mktemp("crowd")) as lab:
        yield lab


def identity(lab: LabHandle, site: str, name: str) -> VmIdentity:
    """As the catalog has it: nothing is looked up by name in a preflight."""
    manifest = lab.manifest["sites"][site]
    vm = manifest["vms"][name]
    return VmIdentity(
        site=site,
        vcenter_uuid=manifest["instance_uuid"],
        moref=vm["moref"],
        name=name,
        instance_uuid=vm["instance_uuid"],
        bios_uuid=vm["bios_uuid"],
        path=vm["path"],
    )


@pytest.mark.parametrize(("pairs", "most"), [(1, ONE_VM), (PAIRS, 3 * ONE_VM)])
def test_preflight(crowd: LabHandle, pairs: int, most: int) -> None:
    asks = [
        Ask(
            StartRequest(replica=f"vm{number}"),
            ReplicaState.FAILOVER,
            identity(crowd, "dr", f"vm{number}"),
            identity(crowd, "production", f"vm{number}"),
        )
        for number in range(pairs)
    ]
    with VsphereSites(crowd.connection(name) for name in crowd.sites) as sites:
        for name in crowd.sites:
            sites.site(name).ping()  # a worker logs in once, not once per run
        before = {name: sum(crowd.control.calls(name).values()) for name in crowd.sites}

        evidence = collect(sites, asks, lambda: None)

        for name in crowd.sites:
            assert 0 < sum(crowd.control.calls(name).values()) - before[name] <= most
    assert [len(one.pairs()) for one in evidence] == [1] * pairs
    assert not [f for one in evidence for f in check(one) if f.code.startswith("PRIVILEGE")]
