"""The suite for a real vCenter, run against the lab: it passes, and touches nothing unmarked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from failback.hypervisor.vsphere.sites import VsphereSites
from tests.contract.backends import Beats
from tests.contract.conftest import SITE
from tests.helpers.lab import LabHandle
from tests.vcenter.conftest import ATTRIBUTE

ROOT = Path(__file__).resolve().parents[2]
MARK = "may be changed by tests"


def run_suite(lab: LabHandle, *flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
    connection = lab.connection(SITE)
    variables = {
        "URL": connection.url,
        "USER": connection.username,
        "PASSWORD_FILE": str(connection.password_file),
        "CA_FILE": str(connection.ca_file),
        "VM": "off",
        "MARK": MARK,
    }
    environment = {f"FAILBACK_VCENTER_{k}": v for k, v in (variables | changes).items() if v}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags),
            "tests/vcenter",
        ],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def changes_of(lab: LabHandle) -> list[str]:
    """Calls that change something."""
    calls = lab.control.calls(SITE)
    return sorted(name for name in calls if name.endswith("_Task") or name == "SetField")


def test_a_marked_vm_passes_and_is_left_as_it_was(lab: LabHandle) -> None:
    with VsphereSites([lab.connection(SITE)]) as sites:
        site = sites.site(SITE)
        vm = site.find("off")
        site.set_attribute(vm, ATTRIBUTE, MARK, Beats())
        before = site.read([vm])[0]
        done = run_suite(lab, "-m", "vcenter")
        assert done.returncode == 0, done.stdout
        assert "9 passed" in done.stdout
        after = site.read([vm])[0]
        untold = {"disks", "ever_ran"}  # a log file and other change ids are left behind
        assert before.model_dump(exclude=untold) == after.model_dump(exclude=untold)
        assert [d.file for d in before.disks] == [d.file for d in after.disks]


def test_an_unmarked_vm_is_not_touched(lab: LabHandle) -> None:
    before = changes_of(lab)
    done = run_suite(lab, "-m", "vcenter", VM="on")
    assert done.returncode == 1
    assert "is not touched: its attribute failback.test is ''" in done.stdout
    assert "1 passed" in done.stdout  # who the site is
    assert changes_of(lab) == before


def test_it_is_not_run_unasked_and_names_what_is_missing(lab: LabHandle) -> None:
    done = run_suite(lab)
    assert "deselected" in done.stdout
    assert done.returncode == 5  # pytest: nothing ran
    done = run_suite(lab, "-m", "vcenter", MARK="")
    assert done.returncode == 1
    assert "Set FAILBACK_VCENTER_MARK" in done.stdout
