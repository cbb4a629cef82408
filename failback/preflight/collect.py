"""Reading the evidence: one pass per site, however many replicas are asked about.

Round trips per vCenter: one for all VMs, one for the privileges on replicas, one for those on
targets; two more only where free space is tight (refresh each such datastore, read again).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity, VmView
from failback.contracts.words import ReplicaState
from failback.hypervisor.ports import Beat, Sites
from failback.preflight.checks.places import tight
from failback.preflight.evidence import Evidence
from failback.preflight.privileges import checked_on_vm, of_dr, of_production

MOST_REFRESHES = 8
"""Per site and pass: a refresh is a round trip, and what is not refreshed is still checked."""


@dataclass(frozen=True)
class Ask:
    """One replica that is to go back, and what is known of it without asking a site."""

    request: StartRequest
    state: ReplicaState
    replica: VmIdentity
    target: VmIdentity
    running_jobs: tuple[str, ...] = ()
    wish: VmView | None = None
    """The target where it is still to be made; its identity has no moref."""


def collect(
    sites: Sites, asks: Sequence[Ask], beat: Beat, now: datetime | None = None
) -> list[Evidence]:
    """Evidence of all, in order. Errors of the sites: one VM that is gone fails the whole pass."""
    views = _read(sites, asks, beat)
    lacking = _missing_privileges(sites, asks, beat)
    evidence = [
        Evidence(
            request=ask.request,
            state=ask.state,
            replica=views[ask.replica],
            target=ask.wish or views[ask.target],
            running_jobs=ask.running_jobs,
            missing_privileges={
                str(ask.replica): lacking["dr", ask.replica],
                str(ask.target): lacking.get(("production", ask.target), ()),
            },
            now=now,
        )
        for ask in asks
    ]
    return _with_fresh_room(sites, asks, evidence, beat)


def _with_fresh_room(
    sites: Sites, asks: Sequence[Ask], evidence: list[Evidence], beat: Beat
) -> list[Evidence]:
    stores: dict[str, list[str]] = {}
    for one in evidence:
        for site, store in tight(one):
            if store.moref not in stores.setdefault(site, []):
                stores[site].append(store.moref)
    if not stores:
        return evidence
    for site, morefs in stores.items():
        beat()
        sites.site(site).refresh_datastores(morefs[:MOST_REFRESHES])
    views = _read(sites, [a for a in asks if {a.replica.site, a.target.site} & set(stores)], beat)
    return [
        replace(
            one,
            replica=views.get(ask.replica, one.replica),
            target=views.get(ask.target, one.target),
        )
        for ask, one in zip(asks, evidence, strict=True)
    ]


def _by_site(asks: Sequence[Ask]) -> dict[str, list[VmIdentity]]:
    found: dict[str, list[VmIdentity]] = {}
    for ask in asks:
        for vm in (ask.replica, ask.target):
            if vm.moref:
                found.setdefault(vm.site, []).append(vm)
    return {site: list(dict.fromkeys(vms)) for site, vms in found.items()}


def _read(sites: Sites, asks: Sequence[Ask], beat: Beat) -> dict[VmIdentity, VmView]:
    views: dict[VmIdentity, VmView] = {}
    for name, vms in _by_site(asks).items():
        beat()
        views |= dict(zip(vms, sites.site(name).read(vms), strict=True))
    return views


def _missing_privileges(
    sites: Sites, asks: Sequence[Ask], beat: Beat
) -> dict[tuple[str, VmIdentity], tuple[str, ...]]:
    found: dict[tuple[str, VmIdentity], tuple[str, ...]] = {}
    parts = (
        ("dr", of_dr(), [ask.replica for ask in asks]),
        ("production", of_production(), [ask.target for ask in asks if ask.target.moref]),
    )
    for part, privileges, everyone in parts:
        for name in dict.fromkeys(vm.site for vm in everyone):
            vms = [vm for vm in dict.fromkeys(everyone) if vm.site == name]
            beat()
            lacking = sites.site(name).missing_privileges(vms, checked_on_vm(privileges))
            found |= {(part, vm): lacking[vm.moref] for vm in vms}
    return found
