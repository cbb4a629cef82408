"""Binds every operation to the method that performs it, with the adapters of the settings."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from activities.carry import CarryActivities
from activities.catalog import CatalogActivities
from activities.cleanup import CleanupActivities
from activities.creation import CreationActivities
from activities.difference import DifferenceActivities
from activities.disks import Disks
from activities.edge import bind, now
from activities.gathering import Gathering
from activities.hooks import HookActivities
from activities.inventory import InventoryActivities
from activities.limits import LimitActivities
from activities.power import PowerActivities
from activities.preview import PreviewActivities
from activities.rebase import RebaseActivities
from activities.reconcile import ReconcileActivities
from activities.room import Reserve
from activities.snapshots import SnapshotActivities
from activities.transfer import TransferActivities
from activities.verify import VerifyActivities
from activities.watch import WatchActivities
from failback.catalog import schema
from failback.catalog.ledger import SqlLedgerStore
from failback.catalog.repository import Catalog
from failback.contracts.plan import Tuning
from failback.disks.blockio import Clock, Sleep
from failback.disks.budget import Budget
from failback.disks.copier import CopyOptions
from failback.disks.kinds import DatastoreAccess
from failback.disks.ledger import LedgerStore
from failback.disks.remote.address import host_and_port
from failback.disks.remote.service import MoverService
from failback.disks.supervisor import boot_id
from failback.disks.throttle import Throttle
from failback.disks.tls import TlsFiles
from failback.hooks.calls import Calls
from failback.hypervisor.ports import Sites
from failback.hypervisor.vsphere.keeping import Keeper
from failback.hypervisor.vsphere.sites import VsphereSites
from failback.settings import Settings
from failback.settings_disks import MoverSettings
from workflows import operations as op


@dataclass(frozen=True)
class Activities:
    """The bound activities of one worker process."""

    control: Sequence[Callable[..., Any]]
    mover: Sequence[Callable[..., Any]]
    close: Callable[[], None]


@dataclass(frozen=True)
class Rooms:
    """What the activities are made of: ports and numbers; tests put doubles here."""

    sites: Sites
    catalog: Catalog
    disks: Disks
    ledger: LedgerStore
    tuning: Tuning
    segment_bytes: int
    options: CopyOptions
    verify_fraction: float = 0.01
    ledger_retention: timedelta = timedelta(days=30)
    calls: Calls = field(default_factory=Calls)
    """The hooks of the settings."""
    clock: Clock = time.monotonic
    wall: Callable[[], datetime] = now
    sleep: Sleep = time.sleep
    random: random.Random = field(default_factory=random.SystemRandom)


def build(settings: Settings) -> Activities:
    """Adapters out of settings; raises SettingsInvalid, CatalogUnavailable, StateConflict."""
    schema.migrate(settings.catalog_url)
    catalog = Catalog(settings.catalog_url)
    catalog.register_mover_host(host_id())
    sites = VsphereSites([site.connection(name) for name, site in settings.sites.items()])
    bandwidth = settings.transfer.bandwidth_bytes_per_s
    throttle = Throttle(float(bandwidth) if bandwidth else None, clock=time.monotonic)
    access = {name: site.access() for name, site in settings.sites.items()}
    tuning = settings.tuning()
    rooms = Rooms(
        sites=sites,
        catalog=catalog,
        disks=Disks(
            access,
            catalog,
            settings.worker.state_dir,
            tuning.heartbeat_timeout,
            throttle,
            sites=sites,
            reserve=Reserve(settings.transfer.reserve_bytes, settings.transfer.reserve_percent),
        ),
        ledger=SqlLedgerStore(catalog),
        tuning=tuning,
        segment_bytes=settings.transfer.segment_bytes,
        options=CopyOptions(
            flush_interval_s=settings.transfer.flush_interval_s,
            budget=Budget(settings.transfer.memory_bytes),
        ),
        verify_fraction=settings.transfer.verify_fraction,
        ledger_retention=settings.ledger_retention,
        calls=settings.calls(),
    )

    keeper = Keeper([sites.site(name) for name in settings.sites])
    services = [serve_disks(settings.sites[name].mover, access[name]) for name in settings.sites]

    def close() -> None:
        for service in services:
            if service is not None:
                service.close()
        keeper.close()
        sites.close()
        catalog.close()

    return Activities(control=control(rooms), mover=mover(rooms), close=close)


def serve_disks(mover: MoverSettings | None, access: DatastoreAccess) -> MoverService | None:
    """The service by which another site's movers read a site's disks, if the settings have it."""
    if mover is None or mover.listen is None:
        return None
    files = TlsFiles.in_folder(mover.tls_dir)
    return MoverService(host_and_port(mover.listen), files, access.lend, peers=mover.peers)


def control(rooms: Rooms) -> list[Callable[..., Any]]:
    """Activities that talk to sites and the catalog."""
    catalog = rooms.catalog
    gathering = Gathering(rooms.sites, catalog, rooms.disks, rooms.tuning, rooms.calls)
    inventory = InventoryActivities(rooms.sites, catalog, gathering)
    previews = PreviewActivities(catalog, gathering)
    power = PowerActivities(rooms.sites, catalog, rooms.disks, rooms.sleep, rooms.wall)
    watch = WatchActivities(
        rooms.sites, catalog, rooms.calls, rooms.disks.reserve, rooms.sleep, rooms.wall
    )
    hooks = HookActivities(rooms.calls, catalog)
    snapshots = SnapshotActivities(rooms.sites, catalog, rooms.disks, rooms.sleep, rooms.wall)
    cleanup = CleanupActivities(rooms.sites, catalog)
    rebase = RebaseActivities(rooms.sites, catalog, rooms.disks)
    reconcile = ReconcileActivities(rooms.sites, catalog)
    creation = CreationActivities(rooms.sites, catalog)
    difference = DifferenceActivities(rooms.sites, rooms.disks, rooms.ledger, rooms.segment_bytes)
    records = CatalogActivities(rooms.sites, catalog, rooms.ledger_retention)
    return [
        bind(op.PREFLIGHT, inventory.preflight, catalog, recorded=False),
        bind(op.LOOK_AHEAD, previews.look_ahead, catalog, recorded=False, leased=False),
        bind(op.CHECK_DRIFT, inventory.check_drift, catalog),
        bind(op.PROBE, inventory.probe, catalog, recorded=False, leased=False),
        bind(op.INSPECT_RUN, reconcile.inspect_run, catalog, recorded=False, leased=False),
        bind(op.POWER_OFF, power.power_off, catalog),
        bind(op.POWER_ON, power.power_on, catalog),
        bind(op.WATCH_DECISION, watch.watch_decision, catalog, recorded=False, leased=False),
        bind(op.CREATE_TARGET, creation.create_target, catalog),
        bind(op.DELETE_TARGET, creation.delete_target, catalog),
        bind(op.COPY_CONFIGURATION, creation.copy_configuration, catalog),
        bind(op.REGISTER_TARGET, creation.register_target, catalog),
        bind(op.REPLACE_SOURCE, records.replace_source, catalog),
        bind(op.PROTECT_TARGET, snapshots.protect_target, catalog),
        bind(op.CARRY_OVER, CarryActivities(rooms.sites, catalog).carry_over, catalog),
        bind(op.REBASE_TARGET, rebase.rebase_target, catalog),
        bind(op.SNAPSHOT_REPLICA, snapshots.snapshot_replica, catalog),
        bind(op.REMOVE_SNAPSHOT, snapshots.remove_snapshot, catalog),
        bind(op.SETTLE, snapshots.settle, catalog),
        bind(op.RESTORE_REPLICA, snapshots.restore_replica, catalog),
        bind(op.RESTORE_TARGET, snapshots.restore_target, catalog),
        # Nobody waits for it: it is tried until it is done.
        bind(op.CLEAN_TARGET, cleanup.clean_target, catalog, attended=False),
        bind(op.CALCULATE_DIFFERENCE, difference.calculate_difference, catalog),
        bind(op.SET_REPLICA_STATE, records.set_replica_state, catalog),
        # It writes its own record: before preflight there is no run to write to.
        bind(op.RUN_HOOK, hooks.run_hook, catalog, recorded=False),
        bind(op.SET_LIMITS, LimitActivities(catalog).set_limits, catalog),
        bind(op.CLOSE_RUN, records.close_run, catalog, recorded=False),
    ]


def mover(rooms: Rooms) -> list[Callable[..., Any]]:
    """Activities that open disks."""
    transfer = TransferActivities(
        rooms.sites, rooms.disks, rooms.ledger, rooms.options, rooms.clock
    )
    verify = VerifyActivities(
        rooms.sites,
        rooms.disks,
        rooms.ledger,
        rooms.catalog,
        rooms.options,
        rooms.segment_bytes,
        rooms.verify_fraction,
        rooms.random,
        rooms.clock,
    )
    return [
        bind(op.TRANSPORT_CHANGES, transfer.transport_changes, rooms.catalog),
        bind(op.VERIFY, verify.verify, rooms.catalog),
    ]


def host_id() -> str:
    """`<machine id>/<boot id>`: the fence is a lock of one kernel, so a catalog in a file has one
    mover host."""
    machine = Path("/etc/machine-id")
    known = machine.read_text().strip() if machine.exists() else ""
    return f"{known or socket.gethostname()}/{boot_id()}"
