"""The command line of nbdkit's VDDK plugin, which reaches a disk through its ESXi host or vCenter.

Limits of that way, from the vendor's documentation and the plugin's source: offsets and lengths are
multiples of 512 bytes, a request is at most 2 MiB, and an export has one connection. The plugin
advertises none of this, so a filter does, and our client keeps to it. Our requests are whole blocks
of 64 KiB; virtual disks are whole sectors; we never open a second connection. All disks of a host
together have about 48 MiB of buffers, hence the copier's budget.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from failback.errors import SettingsInvalid

MAX_REQUEST_BYTES = 2 * 1024 * 1024
ALIGNMENT_BYTES = 512
COMPRESSIONS = ("none", "zlib", "fastlz", "skipz")
LIMITS = (
    f"blocksize-minimum={ALIGNMENT_BYTES}",
    "blocksize-preferred=1048576",
    f"blocksize-maximum={MAX_REQUEST_BYTES}",
    "blocksize-error-policy=error",
)
_MOREF = re.compile(r"[A-Za-z]+-?[A-Za-z0-9-]*")


@dataclass(frozen=True)
class VddkSite:
    """How the disks of one vCenter or ESXi host are reached."""

    libdir: Path
    """Where VMware's library was unpacked; contains lib64/libvixDiskLib.so."""
    server: str
    user: str
    password_file: Path
    """Only its name stands on the command line; the plugin reads the first line."""
    thumbprint: str
    """Of the server's certificate, as the library wants it: pairs of hexadecimal digits."""
    port: int | None = None
    transports: str = ""
    """Colon-separated in order of preference, such as hotadd:nbdssl; empty: the library's choice"""
    compression: str = "none"
    """Between host and mover, for slow links; nbdssl and nbd only."""
    plugin: str = "vddk"
    """Name of the plugin, or the path of its .so."""
    program: str = "nbdkit"


@dataclass(frozen=True)
class VddkCommand:
    """nbdkit for one disk of one VM; takes the place of an exporter's command.

    The path that an exporter is given is not used: the disk is named as vSphere names it.
    """

    site: VddkSite
    vm: str
    """moref of the VM."""
    file: str
    """`[datastore] folder/name.vmdk`."""
    snapshot: str | None = None
    """moref of a snapshot, whose content can only be read."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, path: Path, *, writable: bool) -> list[str]:
        """Raises SettingsInvalid for names that the plugin would take for something else."""
        site = self.site
        if writable and self.snapshot is not None:
            raise ValueError("a snapshot is never written")
        for moref in (self.vm, self.snapshot):
            if moref is not None and not _MOREF.fullmatch(moref):
                raise SettingsInvalid(
                    f"{moref!r} is no reference of a VM or snapshot.", "Read the VM again."
                )
        return [
            site.program,
            "--single",
            *([] if writable else ["--readonly"]),
            "--filter=blocksize-policy",
            site.plugin,
            f"libdir={site.libdir.absolute()}",
            f"server={site.server}",
            *([] if site.port is None else [f"port={site.port}"]),
            f"user={site.user}",
            f"password=+{site.password_file.absolute()}",
            f"thumbprint={site.thumbprint}",
            f"vm=moref={self.vm}",
            *([] if self.snapshot is None else [f"snapshot={self.snapshot}"]),
            *([f"transports={site.transports}"] if site.transports else []),
            *([f"compression={site.compression}"] if site.compression != "none" else []),
            f"file={self.file}",
            *LIMITS,
        ]


def require_vddk(site: VddkSite) -> None:
    """SettingsInvalid where the library is not on this machine."""
    found = list((site.libdir / "lib64").glob("libvixDiskLib.so*"))
    if not found:
        raise SettingsInvalid(
            f"There is no lib64/libvixDiskLib.so in {site.libdir}.",
            "Unpack VMware's Virtual Disk Development Kit there, or correct vddk.libdir.",
        )
