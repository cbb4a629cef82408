"""The command line of nbdkit's VDDK plugin, which reaches a disk through its ESXi host or vCenter.

Limits of that way, from the vendor's documentation and the plugin's source: offsets and lengths are
multiples of 512 bytes, a request is at most 2 MiB, and an export has one connection. The plugin
advertises none of this, so a filter does, and our client keeps to it. Our requests are whole blocks
of 64 KiB; virtual disks are whole sectors; we never open a second connection. All disks of a host
together have about 48 MiB of buffers, hence the budget of each host (see hosts.py).

The password reaches the plugin as the name of a file that only we may read. The plugin would write
it to a temporary file if it had to start itself again with another search path for libraries, so
that path is set from the beginning.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from failback.disks import vddk_errors
from failback.disks.hosts import HostLimits
from failback.errors import FailbackError, SettingsInvalid

MAX_REQUEST_BYTES = 2 * 1024 * 1024
ALIGNMENT_BYTES = 512
COMPRESSIONS = ("none", "zlib", "fastlz", "skipz")
LIMITS = (
    f"blocksize-minimum={ALIGNMENT_BYTES}",
    "blocksize-preferred=1048576",
    f"blocksize-maximum={MAX_REQUEST_BYTES}",
    "blocksize-error-policy=error",
)
SONAMES = tuple(f"libvixDiskLib.so.{major}" for major in (8, 7, 6))
"""What the plugin looks for, in its order."""

_MOREF = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_PROBE_S = 30.0


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
    config: Path | None = None
    """VDDK's own file of settings."""
    limits: HostLimits = field(default_factory=HostLimits)
    """What the transfers of one worker may ask of one host at once."""
    open_timeout_s: float = 180.0
    """For starting the library, logging in and opening the disk."""

    @property
    def search_path(self) -> Path:
        """Where the plugin and the library's own libraries are looked for."""
        return self.libdir.resolve() / "lib64"


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

    @property
    def environment(self) -> Mapping[str, str]:
        """So that the plugin need not run itself again, see above."""
        return {"LD_LIBRARY_PATH": str(self.site.search_path)}

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
            *([] if site.config is None else [f"config={site.config.absolute()}"]),
            f"file={self.file}",
            *LIMITS,
        ]

    def explain(self, said: str, name: str) -> FailbackError | None:
        """What the plugin's and the library's messages mean; None where they are not known."""
        return _explain(self.site, said, name, self.file)

    def without_secrets(self, said: str) -> str:
        """The messages without the password, should the library ever say it."""
        try:
            return said.replace(read_password(self.site), "***")
        except SettingsInvalid:
            return "what it said is left out, because the password file cannot be read"


def require_vddk(site: VddkSite) -> None:
    """SettingsInvalid where the library or the password is not as the plugin needs it."""
    if not any((site.libdir / "lib64" / name).exists() for name in SONAMES):
        found = sorted(path.name for path in (site.libdir / "lib64").glob("libvixDiskLib.so*"))
        raise SettingsInvalid(
            f"There is no {SONAMES[0]}, .7 or .6 in {site.libdir / 'lib64'}"
            f" (found: {', '.join(found) or 'nothing'}).",
            "Unpack VMware's Virtual Disk Development Kit, 6.7 to 8, there, or correct libdir.",
        )
    read_password(site)


@lru_cache(maxsize=16)
def require_loads(site: VddkSite) -> None:
    """SettingsInvalid where nbdkit does not load plugin and library; asks once for each site."""
    try:
        done = subprocess.run(
            [site.program, site.plugin, f"libdir={site.libdir.absolute()}", "--dump-plugin"],
            env={**os.environ, "LD_LIBRARY_PATH": str(site.search_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsInvalid(
            f"{site.program} does not run ({type(error).__name__}).", "Install nbdkit."
        ) from error
    if done.returncode != 0:
        said = done.stdout + done.stderr
        raise _explain(site, said, "", "") or SettingsInvalid(
            f"nbdkit does not load its vddk plugin: {' '.join(said.split())[-300:]}.",
            vddk_errors.GUIDE.capitalize(),
        )
    if "vddk_library_version=" not in done.stdout:
        raise SettingsInvalid(
            f"VMware's library cannot be loaded from {site.libdir}.",
            f"Unpack VDDK 6.7 to 8 for this machine's processor there; {vddk_errors.GUIDE}",
        )


def _explain(site: VddkSite, said: str, name: str, file: str) -> FailbackError | None:
    disk = vddk_errors.Disk(name, file, site.server, site.user, str(site.libdir))
    return vddk_errors.explain(disk, said)


def read_password(site: VddkSite) -> str:
    """The password as the plugin reads it; SettingsInvalid where it would read another or others
    may read it too."""
    path = site.password_file
    try:
        mode = path.stat().st_mode
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"The password file {path} cannot be read ({type(error).__name__}).",
            "Correct password_file or its permissions.",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise SettingsInvalid(f"Others may read {path}.", f"Run `chmod 600 {path}`.")
    password = text.removesuffix("\n")
    # The plugin takes the first line as it is, and knows only this line break.
    if not password or "\n" in password or "\r" in password:
        raise SettingsInvalid(
            f"{path} does not hold exactly one line with a Unix line break.",
            "Write the password alone into it.",
        )
    return password
