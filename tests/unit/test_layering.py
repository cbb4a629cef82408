"""The layers, by what a fresh interpreter really loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"sqlmodel", "sqlalchemy", "pyVmomi", "blake3", "alembic"}
PURE = {"engine", "steps", "state", "facts", "operations", "requests"}


def loaded(module: str) -> set[str]:
    """Top-level modules in a new interpreter after importing this one."""
    code = f"import sys, {module}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())


def modules(folder: str) -> list[str]:
    """All modules below a folder, without importing them. Left out: migration scripts, which only
    Alembic can run, and the supervisor, which is a program."""
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / folder).rglob("*.py")
        if path.name not in ("__init__.py", "supervisor.py") and "migrations" not in path.parts
    )


@pytest.mark.parametrize("module", modules("workflows"))
def test_workflows_load_nothing_heavy(module: str) -> None:
    seen = loaded(module)

    assert not seen & HEAVY
    assert "activities" not in seen
    if module.rpartition(".")[2] in PURE:
        assert "temporalio" not in seen


def test_contracts_load_only_pydantic_and_the_standard_library() -> None:
    allowed = {
        *("pydantic", "pydantic_core", "annotated_types", "typing_extensions"),
        *("typing_inspection", "failback"),
        # What `import pydantic` alone brings, plugins of the environment included.
        *loaded("pydantic"),
    }

    seen = loaded(", ".join(modules("failback/contracts")))

    assert not {name for name in seen - allowed - sys.stdlib_module_names if name[0] != "_"}


def test_the_product_never_loads_temporal() -> None:
    names = [name for name in modules("failback") if "__main__" not in name]

    assert "temporalio" not in loaded(", ".join(names))


def test_the_command_starts_without_temporal_and_without_the_database() -> None:
    assert not loaded("starter.cli") & {*HEAVY, "temporalio", "rich"}


def test_the_client_loads_neither_the_database_nor_vsphere() -> None:
    assert not loaded("starter.client, starter.plugin") & HEAVY


def test_nothing_in_disks_knows_a_vm_and_nothing_in_hypervisor_a_ledger() -> None:
    for path in (ROOT / "failback" / "disks").rglob("*.py"):
        assert "contracts.vm" not in path.read_text(), path
        assert "failback.hypervisor" not in path.read_text(), path
    for path in (ROOT / "failback" / "hypervisor").rglob("*.py"):
        assert "failback.disks" not in path.read_text(), path
        assert "failback.catalog" not in path.read_text(), path
