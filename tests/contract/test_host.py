"""An ESXi host without a vCenter, as a stock simulator plays it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.words import PowerState
from failback.hypervisor.vsphere.sites import VsphereSite, VsphereSites
from tests.contract.backends import Beats
from tests.contract.conftest import QUICK, SITE, WORLD
from tests.helpers.lab import start_referee


@pytest.fixture
def host(tmp_path: Path) -> Iterator[VsphereSite]:
    world: dict[str, Any] = copy.deepcopy(WORLD)
    world["sites"][0]["host"] = True
    with (
        start_referee(world, tmp_path) as handle,
        VsphereSites([handle.connection(SITE, oldest_api=(6, 5))], QUICK) as sites,
    ):
        yield sites.site(SITE)


def test_its_hardware_names_it(host: VsphereSite) -> None:
    about = host.about()
    assert "ESXi" in host.ping()
    assert not about.vcenter
    assert about.uuid.startswith("host:")
    assert about.uuid != f"host:{SITE}"
    assert host.find("off").vcenter_uuid == about.uuid


def test_a_vm_goes_through_what_a_run_does(host: VsphereSite, beats: Beats) -> None:
    vm = host.find("off")
    assert host.missing_privileges([vm], ["System.Read"]) == {vm.moref: ()}
    snapshot = host.create_snapshot(vm, "failback/r/x", "r", beats)
    assert host.create_snapshot(vm, "failback/r/x", "r", beats) == snapshot
    for value in ("incomplete r", "incomplete r", ""):
        host.set_attribute(vm, "failback.state", value, beats)
        assert host.get_attribute(vm, "failback.state") == value
    for _ in range(2):
        host.power_on(vm, beats)
        assert host.read([vm])[0].power is PowerState.ON
    for _ in range(2):
        host.power_off(vm, beats)
    host.revert_to_snapshot(vm, snapshot, "r", beats)
    assert host.remove_snapshot(vm, "failback/r/x", "r", beats) is True
    assert host.remove_snapshot(vm, "failback/r/x", "r", beats) is False
    # This simulator's hosts tell no events: a doubt, never a guess.
    assert host.power_mark(vm) is None
