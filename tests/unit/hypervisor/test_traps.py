"""docs/vsphere-traps.md names tests that exist; and traps of the client library itself."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from failback.errors import PrivilegeMissing
from failback.hypervisor.connection import SiteConnection
from failback.hypervisor.vsphere.api import ref, vim
from failback.hypervisor.vsphere.properties import read_object
from failback.hypervisor.vsphere.session import Login, Session
from failback.hypervisor.vsphere.views import VIEW_PATHS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "vsphere-traps.md"
DRIVER = ROOT / "failback" / "hypervisor" / "vsphere"


def rows() -> list[list[str]]:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ") and not line.startswith("| trap |")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


def test_every_trap_names_a_test_that_exists_or_a_reason() -> None:
    assert len(rows()) > 60
    for trap, told_by, answer, proof in rows():
        assert trap
        assert told_by
        assert answer
        named = re.findall(r"`(tests/[^`:]+)::([^`]+)`", proof)
        assert named or proof.startswith("none: "), trap
        for file, function in named:
            assert (ROOT / file).is_file(), f"{trap}: {file}"
            assert function in functions(ROOT / file), f"{trap}: {file}::{function}"


def imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_nothing_of_the_samples_is_used() -> None:
    """pyVim has SmartConnect, WaitForTask and the session that sends everything again."""
    for path in DRIVER.glob("*.py"):
        used = imports(path)
        assert not {name for name in used if name.split(".")[0] == "pyVim"}, path.name
        # The library itself is known in one place.
        assert path.name == "api.py" or not {n for n in used if n.startswith("pyVmomi")}, path.name


def test_only_leaves_are_read() -> None:
    whole = {"runtime", "summary", "config", "guest", "snapshot", "layoutEx", "capability"}
    assert not whole & set(VIEW_PATHS)
    for path in DRIVER.glob("*.py"):
        texts = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Tuple)
            for node in node.elts
            if isinstance(node, ast.Constant)
        }
        assert not texts & {"runtime", "summary", "info"}, path.name


class Answering(Session):
    """A session that is logged in, at a site that answers every read with this."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(
            SiteConnection(
                name="dr", url="https://dr.example", username="u", password_file=Path("none")
            )
        )
        self.answers, self.logins = list(answers), 0

    def _log_in(self) -> Login:
        self.logins += 1
        stub = SimpleNamespace(
            InvokeMethod=lambda *args: self.answers.pop(0), close=lambda: None, version=""
        )
        content = SimpleNamespace(propertyCollector=ref("VirtualMachine", "x"))
        return Login(cast("Any", stub), content, "key", "uuid")


def entry(values: dict[str, Any], **missing: Any) -> Any:
    return SimpleNamespace(
        token=None,
        objects=[
            SimpleNamespace(
                obj=ref("VirtualMachine", "vm-1"),
                propSet=[SimpleNamespace(name=n, val=v) for n, v in values.items()],
                missingSet=[SimpleNamespace(path=p, fault=f) for p, f in missing.items()],
            )
        ],
    )


def read(*answers: Any) -> tuple[Any, Answering]:
    session = Answering()
    session.read = cast("Any", lambda *args, **named: answers[0])  # type: ignore[method-assign]
    return read_object(session, ref("VirtualMachine", "vm-1"), ("name",)), session


def test_an_unset_property_is_none_and_one_that_is_refused_an_error() -> None:
    found, _ = read(entry({"name": "web"}))
    assert (found.get("name"), found.get("snapshot.currentSnapshot")) == ("web", None)
    refused = vim.fault.NoPermission(privilegeId="System.Read")
    with pytest.raises(PrivilegeMissing, match=r"lacks System\.Read"):
        read(entry({}, name=refused))


def test_an_expired_session_shows_in_the_missing_properties() -> None:
    """HTTP 200, NotAuthenticated for each property: a new login, then the values."""
    expired = entry({}, name=vim.fault.NotAuthenticated())
    session = Answering(expired, entry({"name": "web"}))
    answer = session.read(vim.ServiceInstance("ServiceInstance"), "CurrentTime")
    assert answer.objects[0].propSet[0].val == "web"
    assert session.logins == 2
