"""`failback replica add|find-again`: looks both VMs up at their sites and enters them."""

from __future__ import annotations

import argparse

from failback.catalog.schema import migrate
from failback.contracts.vm import VmIdentity
from failback.contracts.words import ReplicaState
from failback.errors import SettingsInvalid
from failback.hypervisor.ports import Sites
from failback.hypervisor.vsphere.sites import VsphereSites
from failback.settings import Settings
from starter.administration import catalog, record_json, settings
from starter.describe import checked_key
from starter.replicas import NEXT
from starter.shell import Shell


def add(args: argparse.Namespace, shell: Shell) -> int:
    """`failback replica add KEY --replica SITE:VM --source SITE:VM`."""
    key = checked_key(args.key)
    configured = settings(shell, args.settings)
    replica, source = find_both(configured, args.replica, args.source)
    state = ReplicaState.FAILOVER if args.in_failover else ReplicaState.READY
    # The first replica is often added before any worker has run.
    migrate(configured.catalog_url)
    with catalog(configured) as opened:
        record = opened.add_replica(key, replica, source, state)
        if args.in_failover and record.state is ReplicaState.READY:
            # It was there already, and adding it again leaves its state.
            record = opened.mark_failover(key)
    shell.give(record_json(record))
    shell.say(f"VM replica {key} is {record.replica}, of source VM {record.source}.")
    shell.say(f"Its state is {record.state.value}. {NEXT[record.state].format(key=key)}")
    return 0


def find_again(args: argparse.Namespace, shell: Shell) -> int:
    """`failback replica find-again KEY`."""
    key = checked_key(args.key)
    configured = settings(shell, args.settings)
    with catalog(configured) as opened:
        record = opened.get_replica(key)
        known = (record.replica, record.source)
        with _sites(configured, {vm.site for vm in known}) as sites:
            found = [sites.site(vm.site).find_again(vm) for vm in known]
        for old, new in zip(known, found, strict=True):
            opened.move_vm(old, new)
        record = opened.get_replica(key)
    shell.give(record_json(record))
    for old, new in zip(known, found, strict=True):
        told = "as it was" if old == new else f"recorded as {old} before"
        shell.say(f"{new}, {new.path}: {told}.")
    return 0


def find_both(
    configured: Settings, replica: tuple[str, str], source: tuple[str, str]
) -> tuple[VmIdentity, VmIdentity]:
    """Both VMs, each found exactly once: SiteError, VmNotFound, VmAmbiguous, SettingsInvalid."""
    with _sites(configured, {replica[0], source[0]}) as sites:
        return _find(sites, replica), _find(sites, source)


def _sites(configured: Settings, names: set[str]) -> VsphereSites:
    for name in sorted(names - set(configured.sites)):
        raise SettingsInvalid(
            f"The settings have no site {name}.",
            f"Known sites: {', '.join(sorted(configured.sites)) or 'none'}.",
        )
    # Only the sites that are asked: another one may be down, or its password file unreadable.
    return VsphereSites(configured.sites[name].connection(name) for name in sorted(names))


def _find(sites: Sites, place: tuple[str, str]) -> VmIdentity:
    site, vm = place
    return sites.site(site).find(vm)
