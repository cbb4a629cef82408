"""Whether a VM is known to be off, and who answers where no site can tell."""

from __future__ import annotations

from failback.contracts.vm import VmIdentity, VmView
from failback.contracts.words import PowerState
from failback.errors import (
    FailbackError,
    SiteUnreachable,
    VmChanged,
    VmDisconnected,
    VmNotFound,
)
from failback.hypervisor.ports import Sites

NOBODY_KNOWS = (SiteUnreachable, VmNotFound, VmChanged)
"""What reading a VM raises where it may run all the same: its site or host is away, or its
reference names nothing or another VM by now, and it may be registered under a new one."""


def told(view: VmView) -> VmView:
    """The view, if its power state is known and more than a memory: of a VM that is disconnected,
    inaccessible, orphaned or invalid the inventory shows what its host said last. Errors:
    VmDisconnected."""
    connected = view.connection_state == "connected"
    if connected and view.power is not PowerState.UNKNOWN:
        return view
    what = "of an unknown power state" if connected else view.connection_state
    vm = view.identity
    raise VmDisconnected(
        f"{vm} is {what}, so nobody can say whether it runs.",
        "Bring its host or its datastore back.",
    )


def power_of(sites: Sites, vm: VmIdentity) -> PowerState:
    """The VM's power state as it is now. Errors: NOBODY_KNOWS."""
    return told(sites.site(vm.site).read([vm])[0]).power


def attested(vm: VmIdentity, names: tuple[str, ...]) -> bool:
    """Whether a person declared this VM to be off. Workflows send references; names and morefs by
    themselves come from runs that began under earlier code."""
    return not {vm.ref, vm.name, vm.moref}.isdisjoint(names)


def require_attested(
    error: FailbackError, vm: VmIdentity, names: tuple[str, ...], why: str = ""
) -> None:
    """Go on without the site's word only if a person declared this VM to be off; else the error,
    with what may be answered.

    Args:
        why: what it keeps from being done; begins the sentence.
    """
    if attested(vm, names):
        return
    if isinstance(error, SiteUnreachable):
        see = f"{error.remedy} If it is gone for good and {vm.name} is certainly off,"
    else:
        # One that was registered anew has another reference, and may run under it.
        see = f"See that no VM with the disks of {vm.name} runs, then"
    remedy = f"{see} send attest_off with {vm.ref!r}.".lstrip()
    raise type(error)(f"{why}{error.what}", remedy, **error.evidence) from error.__cause__
