"""The ways to a disk, and the one that the settings of a site choose.

flat    a server (nbdkit) on the flat file below a mounted datastore
file    the same file, read by the mover itself and written by a process of its own: the fastest
nbd     somebody else's NBD server
vddk    VMware's library, through nbdkit
mover   another mover near the disk, which digests it there; for reading only

However a disk is reached, what changes it passes through a process under a supervisor, so that
`fence.prove_dead` means the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import quote

from failback.disks.address import NbdAddress, files_of, open_address, parse_address
from failback.disks.blockio import BlockIO, Check
from failback.disks.exporter import Command
from failback.disks.fence import Fence
from failback.disks.file import FileDisk
from failback.disks.flat import resolve_flat
from failback.disks.hosts import HostBudgets, LimitedDisk, place
from failback.disks.mounts import require_writable
from failback.disks.opening import NBDKIT, open_disk, open_local
from failback.disks.relay import RelayCommand, name_as_nbdkit_does
from failback.disks.remote.disk import MoverSite
from failback.disks.vddk import VddkCommand, VddkSite, require_loads, require_vddk
from failback.errors import SettingsInvalid

MIB = 1024 * 1024

DiskKind = Literal["flat", "file", "nbd", "vddk", "mover"]
Opened = tuple[BlockIO, Callable[[], None]]
"""The disk, and what keeps it open (see opening.py)."""

_NAME = re.compile(r"\[(?P<datastore>[^\]\[]+)\] ?(?P<path>.+)")


@dataclass(frozen=True)
class Pace:
    """Requests under way at once, and their size in bytes."""

    window: int
    request_bytes: int = MIB

    def beside(self, other: Pace) -> Pace:
        """For a pair of disks: as many as the slower way needs, none larger than both bear."""
        return Pace(max(self.window, other.window), min(self.request_bytes, other.request_bytes))


PACES: Mapping[str, Pace] = {
    # A few keep a local server busy and stay in the processor's caches.
    "flat": Pace(4),
    "file": Pace(4, 2 * MIB),
    # Over a network they hide its latency.
    "nbd": Pace(16),
    "mover": Pace(16),
    # An ESXi host has about 48 MiB of buffers for all that read from it.
    "vddk": Pace(8),
}


@dataclass(frozen=True)
class DatastoreAccess:
    """How a mover reaches the disks of one site."""

    datastores: Mapping[str, Path] = field(default_factory=dict)
    """Where the mover sees each datastore; for flat and file."""
    chain_members_complete: bool = False
    kind: DiskKind = "flat"
    address: str = ""
    """For nbd: an address with {datastore} and {path} in it."""
    tls_dir: Path | None = None
    """For nbd: PEM files, see tls.py."""
    vddk: VddkSite | None = None
    mover: MoverSite | None = None

    @property
    def pace(self) -> Pace:
        """What is worth having under way at once on the way to this site's disks."""
        return PACES[self.kind]

    def require(self, file: str) -> None:
        """Raise now what opening the disk would raise for its name."""
        if self.kind == "nbd":
            address_of(self.address, file)
        elif self.kind == "vddk":
            require_vddk(self._vddk())
            require_loads(self._vddk())
        elif self.kind == "mover":
            # Only its own mover can tell, so this asks it.
            self._mover().open(file, file).close()
        else:
            self._flat(file)

    def require_place(self, datastore: str) -> None:
        """As `require`, for a disk that is still to be made on this datastore."""
        if self.kind in ("flat", "file") and not Path(self.datastores.get(datastore, "")).is_dir():
            raise SettingsInvalid(
                f"The datastore {datastore!r} is not in the settings of the site, or not mounted.",
                "Add where it is mounted, or choose another datastore.",
            )
        if self.kind == "vddk":
            require_vddk(self._vddk())

    def open(
        self,
        file: str,
        *,
        vm: str,
        snapshot: str | None,
        writable: bool,
        fence: Fence | None,
        check: Check,
        name: str,
        lease_s: float,
        command: Command = NBDKIT,
        host: str = "",
        hosts: HostBudgets | None = None,
    ) -> AbstractContextManager[Opened]:
        """The disk as a BlockIO, and its `renew`; the arguments and errors of open_disk.

        A vddk disk that is not where its name says raises DiskMoved.

        Args:
            file: `[datastore] folder/name.vmdk`.
            vm, snapshot: references of the VM, and of the snapshot to read or None; for vddk.
            command: the exporter of flat.
            host: the ESXi host of the VM, for vddk; empty if it is not known.
            hosts: what all transfers of this worker may ask of each host; None: no limit.
        """
        if writable and fence is None:
            raise ValueError("a disk is never written without a fence")
        match self.kind:
            case "flat":
                path = self._flat(file, writable=writable)
            case "file":
                path = self._flat(file, writable=writable)
                return open_local(
                    path, writable=writable, fence=fence, check=check, name=name, lease_s=lease_s
                )
            case "nbd":
                address = address_of(self.address, file)
                if not writable:
                    return _direct(address, name, self.tls_dir)
                return _relayed(
                    address, self.tls_dir, fence=fence, check=check, name=name, lease_s=lease_s
                )
            case "vddk":
                return _by_vddk(
                    VddkCommand(self._vddk(), vm, file, snapshot),
                    writable=writable,
                    fence=fence,
                    check=check,
                    name=name,
                    lease_s=lease_s,
                    host=host,
                    hosts=hosts,
                )
            case "mover":
                if writable:
                    raise SettingsInvalid(
                        f"{name} is reached through another mover, which only reads.",
                        "Run the worker of this site where its disks can be written.",
                    )
                return _lent(self._mover(), file, name)
        return open_disk(
            path,
            writable=writable,
            fence=fence,
            check=check,
            name=name,
            lease_s=lease_s,
            command=command,
        )

    def lend(self, file: str) -> AbstractContextManager[BlockIO]:
        """The disk as this site's mover service opens it for others: without any right to write."""
        if self.kind not in ("flat", "file"):
            raise SettingsInvalid(
                f"The mover service cannot open disks of the kind {self.kind}.",
                "Mount the datastores and use the kind flat or file there.",
            )
        return closing(FileDisk(self._flat(file), file, writable=False))

    def _mover(self) -> MoverSite:
        if self.mover is None:
            raise SettingsInvalid(
                "A site of the kind mover has no address of its mover.",
                "Add mover.address; see docs/settings.md.",
            )
        return self.mover

    def _flat(self, file: str, *, writable: bool = False) -> Path:
        path = resolve_flat(
            self.datastores, file, chain_members_complete=self.chain_members_complete
        )
        if writable:
            require_writable(path, file)
        return path

    def _vddk(self) -> VddkSite:
        if self.vddk is None:
            raise SettingsInvalid(
                "A site of the kind vddk has no table vddk.", "Add it; see docs/settings.md."
            )
        return self.vddk


def address_of(template: str, file: str) -> NbdAddress:
    """The address of one disk; SettingsInvalid."""
    named = _NAME.fullmatch(file)
    if named is None:
        raise SettingsInvalid(
            f"{file!r} is no name of a disk.",
            'Expected is a name like "[datastore] folder/x.vmdk".',
        )
    return parse_address(
        template.replace("{datastore}", quote(named["datastore"], safe="")).replace(
            "{path}", quote(named["path"])
        )
    )


@contextmanager
def _lent(mover: MoverSite, file: str, name: str) -> Iterator[Opened]:
    """Whoever hangs here holds nothing there but a read-only descriptor."""
    with closing(mover.open(file, name)) as disk:
        yield disk, lambda: None


@contextmanager
def _direct(address: NbdAddress, name: str, tls_dir: Path | None) -> Iterator[Opened]:
    """A disk that is only read needs no process that could be killed."""
    with closing(open_address(address, writable=False, name=name, tls_dir=tls_dir)) as disk:
        yield disk, lambda: None


@contextmanager
def _by_vddk(
    command: VddkCommand,
    *,
    writable: bool,
    fence: Fence | None,
    check: Check,
    name: str,
    lease_s: float,
    host: str,
    hosts: HostBudgets | None,
) -> Iterator[Opened]:
    site = command.site
    require_vddk(site)
    with ExitStack() as stack:
        share = None
        if hosts is not None:
            # Left after the exporter is dead: until then the host may still work for it.
            budget = hosts.of(site.server, host, site.limits)
            share = stack.enter_context(place(budget, name=name, check=check))
        disk, renew = stack.enter_context(
            open_disk(
                Path(command.file),
                writable=writable,
                fence=fence,
                check=check,
                name=name,
                lease_s=lease_s,
                command=command,
                connect_timeout_s=site.open_timeout_s,
            )
        )
        yield disk if share is None else LimitedDisk(disk, share), renew


@contextmanager
def _relayed(
    address: NbdAddress,
    tls_dir: Path | None,
    *,
    fence: Fence | None,
    check: Check,
    name: str,
    lease_s: float,
) -> Iterator[Opened]:
    with ExitStack() as stack:
        folder = None
        if address.secure:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="failback-tls-")))
            name_as_nbdkit_does(files_of(address, tls_dir), folder)
        yield stack.enter_context(
            open_disk(
                Path(str(address)),
                writable=True,
                fence=fence,
                check=check,
                name=name,
                lease_s=lease_s,
                command=RelayCommand(address, folder),
            )
        )
