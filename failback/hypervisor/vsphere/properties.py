"""Reads of managed objects: leaf property paths, many objects in one round trip.

pyVmomi's attribute style costs one round trip per attribute and fails on unset ones; here an
absent property is None. Only stateless calls of the shared collector are used, no filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import Ref, moref, vim, vmodl
from failback.hypervisor.vsphere.session import Session

PAGE_OBJECTS = 500
RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Read:
    """Properties of one object."""

    ref: Ref
    values: Mapping[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        """Name of the object's type: `VirtualMachine`."""
        return type(self.ref).__name__.rpartition(".")[2]

    def get(self, path: str) -> Any:
        """The value at a leaf path, None when unset."""
        return self.values.get(path)


def read_objects(
    session: Session,
    objects: Sequence[Ref],
    paths: Mapping[str, Sequence[str]],
    select: Sequence[Any] = (),
    beat: Beat | None = None,
) -> list[Read]:
    """Read `paths` (by type name) of the objects and of those that `select` leads to.

    vSphere faults pass; ManagedObjectNotFound among them, whose `obj` says which object is gone.
    """
    collector = vmodl.query.PropertyCollector
    spec = collector.FilterSpec(
        objectSet=[collector.ObjectSpec(obj=obj, selectSet=list(select)) for obj in objects],
        propSet=[
            collector.PropertySpec(type=_type(kind), pathSet=list(leaves), all=False)
            for kind, leaves in paths.items()
        ],
    )
    for restart in range(RESTARTS):
        try:
            return _pages(session, spec, beat)
        except vmodl.fault.InvalidArgument:
            # A token of the pages dies with its session.
            if restart + 1 == RESTARTS:
                raise
    raise AssertionError("unreachable")


def read_object(
    session: Session, target: Ref, paths: Sequence[str], beat: Beat | None = None
) -> Read:
    """Read one object."""
    kind = type(target).__name__.removeprefix("vim.")
    found = read_objects(session, [target], {kind: paths}, beat=beat)
    return found[0] if found else Read(target, {})


def walk(kind: str, path: str, *then: str, name: str | None = None) -> Any:
    """Selection: from objects of this kind along `path`, then on by the named selections."""
    collector = vmodl.query.PropertyCollector
    return collector.TraversalSpec(
        name=name,
        type=_type(kind),
        path=path,
        skip=False,
        selectSet=[collector.SelectionSpec(name=next_name) for next_name in then],
    )


def _pages(session: Session, spec: Any, beat: Beat | None) -> list[Read]:
    collector = session.login(beat).content.propertyCollector
    options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=PAGE_OBJECTS)
    page = session.read(collector, "RetrievePropertiesEx", [spec], options, beat=beat)
    found: list[Read] = []
    while page is not None:  # None: nothing selected
        found += [_read(session, entry) for entry in page.objects or ()]
        if not page.token:
            break
        page = session.read(collector, "ContinueRetrievePropertiesEx", page.token, beat=beat)
    return found


def _read(session: Session, entry: Any) -> Read:
    for missing in entry.missingSet or ():
        # Not "unset": the site refused or failed to tell, and None would be a wrong answer.
        raise faults.typed(
            missing.fault, session.site, f"read {missing.path} of {moref(entry.obj)}"
        )
    return Read(entry.obj, {prop.name: prop.val for prop in entry.propSet or ()})


def _type(kind: str) -> Any:
    return attrgetter(kind)(vim)
