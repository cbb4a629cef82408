"""A real site, named by environment variables, and a guard that lets nothing unmarked be touched.

docs/vsphere-real.md tells an operator what to prepare.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.vm import VmIdentity, VmView
from failback.contracts.words import PowerState
from failback.hypervisor.connection import SiteConnection
from failback.hypervisor.vsphere.sites import VsphereSite, VsphereSites

ATTRIBUTE = "failback.test"
"""Custom attribute in which the operator says which VMs the suite may work on."""

READS = frozenset(
    {
        *("about", "ping", "find", "find_again", "read", "snapshot_disks", "power_mark"),
        *("missing_privileges", "changed_areas", "get_attribute", "settle", "name"),
    }
)
DEADLINE_S = 300


class Refused(Exception):
    """The VM does not carry the mark."""


class Guarded:
    """A site on which everything that is no read needs a VM that carries the mark right now."""

    def __init__(self, site: VsphereSite, mark: str) -> None:
        self._site, self._mark = site, mark

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._site, name)
        if name in READS:
            return found

        def only_marked(vm: VmIdentity, *args: Any) -> Any:
            self.require(vm)
            return found(vm, *args)

        return only_marked

    def require(self, vm: VmIdentity) -> None:
        """Raise Refused unless the VM carries the mark."""
        shown = self._site.get_attribute(vm, ATTRIBUTE)
        if shown != self._mark:
            raise Refused(
                f"{vm} is not touched: its attribute {ATTRIBUTE} is {shown!r}, "
                f"not {self._mark!r}. Set it if the VM may be changed by these tests."
            )


def _needed(name: str) -> str:
    value = os.environ.get(f"FAILBACK_VCENTER_{name}", "")
    if not value:
        pytest.fail(f"Set FAILBACK_VCENTER_{name}; docs/vsphere-real.md tells how.", pytrace=False)
    return value


def connection() -> SiteConnection:
    """The site that the environment names."""
    ca_file = os.environ.get("FAILBACK_VCENTER_CA_FILE")
    return SiteConnection(
        name="real",
        url=_needed("URL"),
        username=_needed("USER"),
        password_file=Path(_needed("PASSWORD_FILE")),
        ca_file=Path(ca_file) if ca_file else None,
        thumbprint_sha256=os.environ.get("FAILBACK_VCENTER_THUMBPRINT") or None,
        inventory_root=os.environ.get("FAILBACK_VCENTER_ROOT") or None,
    )


@pytest.fixture(scope="session")
def real() -> Iterator[Any]:
    """The site, behind the guard."""
    with VsphereSites([connection()]) as sites:
        yield Guarded(sites.site("real"), _needed("MARK"))


@pytest.fixture(scope="session")
def vm(real: Any) -> VmIdentity:
    """The VM of the tests: marked, off, without snapshots."""
    found: VmIdentity = real.find(_needed("VM"))
    real.require(found)
    view = view_of(real, found)
    if view.power is not PowerState.OFF or view.snapshots:
        pytest.fail(f"{found} must be off and without snapshots to begin with.", pytrace=False)
    return found


@pytest.fixture
def beat() -> Callable[[], None]:
    return lambda: None


def view_of(real: Any, vm: VmIdentity) -> VmView:
    """The VM as it is now."""
    view: VmView = real.read([vm])[0]
    return view


def until(seen: Callable[[], object]) -> None:
    """Wait for what a guest or a site does in its own time."""
    deadline = time.monotonic() + DEADLINE_S
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.5)
