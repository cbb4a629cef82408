"""The role: docs/vsphere-permissions.md, docs/vsphere-role.sh, the list that preflight asks for,
and what the methods that the driver calls declare to need, say the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from failback.preflight.privileges import PRIVILEGES, of_dr, of_production
from tests.unit.hypervisor.declared import needed_privileges

DOCS = Path(__file__).resolve().parents[3] / "docs"
SCRIPT = DOCS / "vsphere-role.sh"

# Stands for govc: notes its arguments, knows the roles that an earlier call made.
GOVC = """#!/bin/sh
printf '%s\\n' "$*" >>"$NOTES"
case "$1" in
  role.ls) grep -q "^role.create $2 " "$NOTES" ;;
esac
"""

ENVIRONMENT = {
    "FAILBACK_PRINCIPAL": "EXAMPLE\\failback",
    "FAILBACK_SITE": "production",
    "FAILBACK_VMS": "/DC 1/vm/a:/DC 1/vm/b",
    "FAILBACK_DATASTORES": "/DC 1/datastore/ds",
}


def run_script(folder: Path, **changes: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    govc, notes = folder / "govc", folder / "notes"
    govc.write_text(GOVC, encoding="utf-8")
    govc.chmod(0o700)
    settings = {k: v for k, v in (ENVIRONMENT | changes).items() if v}
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        env={"PATH": os.environ["PATH"], "GOVC": str(govc), "NOTES": str(notes), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done, notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []


def granted(calls: list[str], command: str, role: str) -> set[str]:
    """Privileges of the newest such call."""
    start = f"{command} {role} "
    return set([c for c in calls if c.startswith(start)][-1].removeprefix(start).split())


def test_the_table_is_the_list_of_preflight() -> None:
    rows = [
        tuple(cell.strip() for cell in line.split("|")[1:-1])
        for line in (DOCS / "vsphere-permissions.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| privilege")
    ]

    def yes(held: bool) -> str:
        return "yes" if held else "-"

    assert rows == [
        (p.id, p.why, str(p.on), yes(p.production), yes(p.dr), "by preflight" if p.checked else "-")
        for p in PRIVILEGES
    ]


def test_the_script_makes_both_roles_and_grants_one(tmp_path: Path) -> None:
    done, calls = run_script(tmp_path, FAILBACK_PLACES="/DC 1/network/lan")
    assert (done.returncode, done.stderr) == (0, "")
    for role, wanted in (("Failback production", of_production()), ("Failback DR", of_dr())):
        ids = {p.id for p in wanted if not p.id.startswith("System.")}
        assert granted(calls, "role.create", role) == ids
    start = f"permissions.set -principal {ENVIRONMENT['FAILBACK_PRINCIPAL']} -role"
    assert [c for c in calls if c.startswith("permissions.set")] == [
        f"{start} Failback production -propagate=false /",
        *(
            f"{start} Failback production -propagate=true {path}"
            for path in ("/DC 1/vm/a", "/DC 1/vm/b", "/DC 1/datastore/ds", "/DC 1/network/lan")
        ),
    ]


def test_the_script_again_updates_the_roles(tmp_path: Path) -> None:
    run_script(tmp_path)
    done, calls = run_script(tmp_path, FAILBACK_SITE="dr")
    assert done.returncode == 0
    assert len([c for c in calls if c.startswith("role.create")]) == 2
    assert granted(calls, "role.update", "Failback DR") == granted(
        calls, "role.create", "Failback DR"
    )
    assert calls[-1].endswith("-role Failback DR -propagate=true /DC 1/datastore/ds")


@pytest.mark.parametrize("missing", ENVIRONMENT)
def test_the_script_names_what_it_needs_before_it_does_anything(
    tmp_path: Path, missing: str
) -> None:
    done, calls = run_script(tmp_path, **{missing: ""})
    assert done.returncode != 0
    assert missing in done.stderr
    assert calls == []


def test_another_site_role_is_refused(tmp_path: Path) -> None:
    done, calls = run_script(tmp_path, FAILBACK_SITE="both")
    assert (done.returncode, calls) == (2, [])


def test_the_role_allows_every_method_that_the_driver_calls() -> None:
    """By the privileges that pyVmomi's tables say the methods need."""
    needed = needed_privileges()
    assert needed["PowerOnVM_Task"] == "VirtualMachine.Interact.PowerOn"
    held = {p.id for p in of_production()}
    assert {m: p for m, p in needed.items() if p not in held} == {}
