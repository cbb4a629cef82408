"""From a disk as a step names it to bytes: which file, behind which fence, under which lease."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from activities.edge import Attempt, disk_lease, now
from activities.limits import Conditions, RunThrottles
from activities.places import host_of, meanwhile, moved_to
from activities.room import LOOK_S, Reserve, RoomWatch
from failback.catalog.repository import Catalog
from failback.contracts.operations import DiskCall
from failback.contracts.vm import Disk, DiskOpening, VmIdentity
from failback.contracts.words import Method
from failback.disks.blockio import BlockIO, Clock
from failback.disks.copier import CopyOptions
from failback.disks.exporter import NbdkitCommand
from failback.disks.fence import Fence, prove_dead
from failback.disks.hosts import HostBudgets
from failback.disks.kinds import DatastoreAccess, Opened
from failback.disks.label import read_label
from failback.disks.throttle import Throttle
from failback.errors import DiskMoved, SettingsInvalid
from failback.hypervisor.ports import Sites

Check = Callable[[], None]

LOOKED_AT_ANY_TIME = frozenset({"flat", "file", "nbd"})
"""Kinds that can read a disk beside a running VM; the others wait for a snapshot."""


@dataclass(frozen=True)
class Pair:
    """Both sides of one disk, open; `check` keeps them open and is called from the copy's loop."""

    source: BlockIO
    target: BlockIO
    check: Check

    def under(self, conditions: Conditions) -> Pair:
        """The same pair, with `check` also raising what the conditions raise."""

        def check() -> None:
            self.check()
            conditions.check()

        return replace(self, check=check)


@dataclass(frozen=True)
class Disks:
    """Opens disks for movers, and proves writers dead for everybody else."""

    access: Mapping[str, DatastoreAccess]
    catalog: Catalog
    state_dir: Path
    heartbeat_timeout: timedelta
    throttle: Throttle | None = None
    command: NbdkitCommand = field(default_factory=NbdkitCommand)
    sites: Sites | None = None
    """Asked where the disks of the kind vddk are; None: they are where the plan says."""
    hosts: HostBudgets = field(default_factory=HostBudgets)
    """What all transfers of this worker ask of each ESXi host."""
    reserve: Reserve = field(default_factory=Reserve)
    room_interval_s: float = LOOK_S
    runs: RunThrottles = field(default_factory=RunThrottles)
    clock: Clock = time.monotonic
    wall: Callable[[], datetime] = now

    def require(self, site: str, file: str) -> None:
        """Raise now what opening a disk would raise for its name and the settings."""
        self._access(site).require(file)

    def require_place(self, site: str, datastore: str) -> None:
        """As `require`, for a disk that is still to be made."""
        self._access(site).require_place(datastore)

    @contextlib.contextmanager
    def conditions(self, call: DiskCall, attempt: Attempt) -> Iterator[Conditions]:
        """What holds while a disk is written: limits of its run and worker, room. Raises at once
        what `Conditions.check` would raise for the limits."""
        with contextlib.ExitStack() as stack:
            own = stack.enter_context(self.runs.of(call.run.run_id))
            room = None
            if self.sites is not None:
                room = stack.enter_context(
                    RoomWatch(self.sites, self.reserve, call, self.room_interval_s)
                )
            made = Conditions(
                self.catalog, call, own, self.throttle, room, attempt, self.clock, self.wall
            )
            made.check()
            yield made

    def options(self, call: DiskCall, options: CopyOptions, conditions: Conditions) -> CopyOptions:
        """With the pace of the ways to both sides, and the limits of bandwidth."""
        source, target = (self._access(side.site).pace for side in (call.source, call.target))
        pace = source.beside(target)
        return replace(
            options,
            window=pace.window,
            request_bytes=pace.request_bytes,
            throttle=conditions.throttle,
            # Only this run writes a disk that it made, and always the same frozen content in this
            # pass: what an earlier attempt left unfinished reads as the source or as zeroes.
            full=call.plan.method is Method.FULL,
            blank_target=call.plan.method is Method.FULL,
        )

    @contextlib.contextmanager
    def open_pair(self, call: DiskCall, attempt: Attempt, *, writable: bool) -> Iterator[Pair]:
        """Open source and target; the target behind its fence, after earlier writers are dead."""
        renewals: list[Callable[[], None]] = []

        def check() -> None:
            # Renewed before anything that may raise: a stop still flushes through both exporters.
            for renew in renewals:
                renew()
            attempt.beat()

        # Shorter than the heartbeat timeout: the exporter of an attempt that the server has given
        # up on is dead before the next attempt begins.
        lease_s = self.heartbeat_timeout.total_seconds() * 2 / 3
        if not writable:
            # Verify must not read while a late request of a dead attempt is still being written.
            prove_dead(self.fence(call.target, attempt.owner), check=attempt.beat)
        sides = (
            (call.target, writable, f"target disk {call.plan.address}"),
            (call.source, False, f"replica disk {call.plan.address}"),
        )
        # Asked before anything is open that would have to be kept open meanwhile.
        hosts = [self._host(opening) for opening, _, _ in sides]
        with contextlib.ExitStack() as stack:
            disks = []
            for (opening, write, name), host in zip(sides, hosts, strict=True):
                at = partial(
                    self._open,
                    opening,
                    name=name,
                    fence=self.fence(opening, attempt.owner) if write else None,
                    check=check,
                    lease_s=lease_s,
                    host=host,
                )
                disk, renew = self._enter(stack, call, opening, at, check)
                renewals.append(renew)
                disks.append(disk)
            yield Pair(source=disks[1], target=disks[0], check=check)

    def _open(
        self,
        opening: DiskOpening,
        file: str,
        *,
        name: str,
        fence: Fence | None,
        check: Check,
        lease_s: float,
        host: str,
    ) -> contextlib.AbstractContextManager[Opened]:
        return self._access(opening.site).open(
            file,
            vm=opening.vm_moref,
            snapshot=opening.snapshot,
            writable=fence is not None,
            fence=fence,
            check=check,
            name=f"{name} ({file})",
            lease_s=lease_s,
            command=self.command,
            host=host,
            hosts=self.hosts,
        )

    def _enter(
        self,
        stack: contextlib.ExitStack,
        call: DiskCall,
        opening: DiskOpening,
        at: Callable[..., contextlib.AbstractContextManager[Opened]],
        check: Check,
    ) -> Opened:
        """Open a disk under the name of the plan, or once under the name it has now."""
        try:
            return stack.enter_context(at(opening.file))
        except DiskMoved as moved:
            if self.sites is None:
                raise
            sites, old = self.sites, moved
        file = meanwhile(lambda: moved_to(sites, call, opening, old), check)
        # What moved a disk has often moved its VM too.
        host = meanwhile(lambda: self._host(opening), check)
        return stack.enter_context(at(file, host=host))

    def _host(self, opening: DiskOpening) -> str:
        if self.sites is None or self._access(opening.site).kind != "vddk":
            return ""
        return host_of(self.sites, opening)

    def label(self, vm: VmIdentity, disk: Disk, attempt: Attempt) -> str | None:
        """The name in the disk's partition table, as it is now; None where it has none, or where
        this way to the disk cannot read it while its VM runs. Errors as for opening and reading."""
        access = self._access(vm.site)
        if access.kind not in LOOKED_AT_ANY_TIME:
            return None
        with access.open(
            disk.file,
            vm=vm.moref,
            snapshot=None,
            writable=False,
            fence=None,
            check=attempt.beat,
            name=f"disk {disk.address} of {vm} ({disk.file})",
            lease_s=self.heartbeat_timeout.total_seconds() * 2 / 3,
            command=self.command,
        ) as (opened, _):
            return read_label(opened, disk.capacity_bytes, attempt.beat, self.clock)

    def prove_writers_dead(self, opening: DiskOpening, attempt: Attempt) -> None:
        """Return when no earlier attempt can write this disk any more.

        Taking the disk's lease stops an attempt that is alive but has not started its exporter yet;
        the fence proves that every exporter that was started is dead."""
        self.catalog.take_lease(disk_lease(opening), attempt.owner, attempt.turn)
        prove_dead(self.fence(opening, attempt.owner), check=attempt.beat)

    def _access(self, site: str) -> DatastoreAccess:
        access = self.access.get(site)
        if access is None:
            raise SettingsInvalid(
                f"The settings have no site {site!r}.", "Add it under [sites] with its datastores."
            )
        return access

    def fence(self, opening: DiskOpening, owner: str) -> Fence:
        """The fence of a disk: the same for every attempt, pass and run."""
        return Fence(self.state_dir, disk_lease(opening), owner)


def disk_id(run_id: str, opening: DiskOpening) -> str:
    """Groups the passes of one disk of one run in the ledger."""
    return f"{run_id}/{opening.site}/{opening.vm_moref}/{opening.disk_key}"
