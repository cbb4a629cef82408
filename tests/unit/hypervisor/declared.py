"""vSphere's own lists: every class of fault, and what each method declares."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

from pyVmomi import VmomiSupport

DRIVER = Path(__file__).resolve().parents[3] / "failback" / "hypervisor" / "vsphere"

# The tables are private to pyVmomi, and the only place where these lists are.
_SUPPORT: Any = VmomiSupport


def _kind(name: str) -> type[BaseException]:
    found: type[BaseException] = _SUPPORT.GetVmodlType(name)
    return found


@cache
def all_faults() -> list[type[BaseException]]:
    """Every class of fault that pyVmomi knows."""
    names = [n for n in _SUPPORT._dataDefMap if n.startswith(("vim.fault.", "vmodl.fault."))]
    kinds: list[Any] = [_kind(name) for name in sorted(names)]
    # Parts of faults, such as a list entry, are there under names of the same kind.
    return [kind for kind in kinds if issubclass(kind, BaseException)]


@cache
def declared_faults() -> dict[str, list[type[BaseException]]]:
    """Faults that the methods declare which the driver calls, by method."""
    texts = _texts()
    found: dict[str, list[type[BaseException]]] = {}
    for managed in _SUPPORT._managedDefMap.values():
        for method in managed[5] or ():
            if method[1] in texts and method[6]:
                found.setdefault(method[1], []).extend(_kind(name) for name in method[6])
    return found


@cache
def needed_privileges() -> dict[str, str]:
    """Privilege that each method needs which the driver calls, where it declares one."""
    texts = _texts()
    return {
        method[1]: str(method[5])
        for managed in _SUPPORT._managedDefMap.values()
        for method in managed[5] or ()
        if method[1] in texts and method[5]
    }


def _texts() -> set[str]:
    """Every string in the driver's source: the names of methods are among them."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in DRIVER.glob("*.py"))
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
