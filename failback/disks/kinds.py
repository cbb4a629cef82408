"""The ways to a disk, and the one that the settings of a site choose.

flat    a server (nbdkit) on the flat file below a mounted datastore
file    the same file, read by the mover itself and written by a process of its own: the fastest
nbd     somebody else's NBD server
vddk    VMware's library, through nbdkit

However a disk is reached, what changes it passes through a process under a supervisor, so that
`fence.prove_dead` means the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from failback.disks.address import NbdAddress, open_address, parse_address
from failback.disks.blockio import BlockIO, Check
from failback.disks.exporter import Command
from failback.disks.fence import Fence
from failback.disks.flat import resolve_flat
from failback.disks.opening import NBDKIT, open_disk, open_local
from failback.disks.relay import RelayCommand
from failback.disks.vddk import VddkCommand, VddkSite, require_vddk
from failback.errors import SettingsInvalid

DiskKind = Literal["flat", "file", "nbd", "vddk"]
Opened = tuple[BlockIO, Callable[[], None]]
"""The disk, and what keeps it open (see opening.py)."""

_NAME = re.compile(r"\[(?P<datastore>[^\]\[]+)\] ?(?P<path>.+)")


@dataclass(frozen=True)
class DatastoreAccess:
    """How a mover reaches the disks of one site."""

    datastores: Mapping[str, Path] = field(default_factory=dict)
    """Where the mover sees each datastore; for flat and file."""
    chain_members_complete: bool = False
    kind: DiskKind = "flat"
    address: str = ""
    """For nbd: an address with {datastore} and {path} in it."""
    tls_certificates: Path | None = None
    vddk: VddkSite | None = None

    def require(self, file: str) -> None:
        """Raise now what opening the disk would raise for its name; opens nothing."""
        if self.kind == "nbd":
            address_of(self.address, file)
        elif self.kind == "vddk":
            require_vddk(self._vddk())
        else:
            self._flat(file)

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
    ) -> AbstractContextManager[Opened]:
        """The disk as a BlockIO, and its `renew`; the arguments and errors of open_disk.

        Args:
            file: `[datastore] folder/name.vmdk`.
            vm, snapshot: references of the VM, and of the snapshot to read or None; for vddk.
            command: the exporter of flat.
        """
        if writable and fence is None:
            raise ValueError("a disk is never written without a fence")
        opener = open_disk
        match self.kind:
            case "flat":
                path = self._flat(file)
            case "file":
                path = self._flat(file)
                return open_local(
                    path, writable=writable, fence=fence, check=check, name=name, lease_s=lease_s
                )
            case "nbd":
                address = address_of(self.address, file)
                if not writable and not address.secure:
                    return _direct(address, name)
                path, command = Path(file), RelayCommand(address, self.tls_certificates)
            case "vddk":
                path, command = Path(file), VddkCommand(self._vddk(), vm, file, snapshot)
        return opener(
            path,
            writable=writable,
            fence=fence,
            check=check,
            name=name,
            lease_s=lease_s,
            command=command,
        )

    def _flat(self, file: str) -> Path:
        return resolve_flat(
            self.datastores, file, chain_members_complete=self.chain_members_complete
        )

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
def _direct(address: NbdAddress, name: str) -> Iterator[Opened]:
    """A disk that is only read needs no process that could be killed."""
    with closing(open_address(address, writable=False, name=name)) as disk:
        yield disk, lambda: None
