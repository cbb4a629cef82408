"""pyVmomi's types, as untyped names: the one place where `Any` enters the driver on purpose.

Its stubs describe methods only in part, so what goes in and out is checked where we read it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from pyVmomi import SoapAdapter, VmomiSupport
from pyVmomi import vim as _vim
from pyVmomi import vmodl as _vmodl

vim: Any = _vim
vmodl: Any = _vmodl
SoapStubAdapter: Any = SoapAdapter.SoapStubAdapter
VERSIONS: Any = VmomiSupport.GetServiceVersions
"""API versions of a namespace, newest first."""
VERSION_IDS: Any = VmomiSupport.versionIdMap
"""Version -> the id a site offers it by."""

Ref = Any
"""A managed object; the session binds it to its stub for the length of one call."""


def ref(kind: str, moid: str) -> Ref:
    """A reference, for instance `ref("VirtualMachine", "vm-7")` or `ref("vm.Snapshot", ...)`."""
    return attrgetter(kind)(vim)(moid)


def moref(ref: Ref) -> str:
    """Id of a managed object."""
    return str(ref._moId)
