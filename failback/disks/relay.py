"""A process between a mover and an NBD server of the user's, so that it can be killed.

What a frozen mover has not handed over dies with this process. What the server has received
already it may still do a moment later: only the server could prevent that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from failback.disks.address import NbdAddress
from failback.disks.tls import TlsFiles


@dataclass(frozen=True)
class RelayCommand:
    """nbdkit's nbd plugin as an exporter; the path that an exporter is given is not used.

    Args:
        tls_certificates: folder made by `name_as_nbdkit_does`; never None for an address with TLS.
    """

    address: NbdAddress
    tls_certificates: Path | None = None
    program: str = "nbdkit"
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.address.secure and self.tls_certificates is None:
            raise ValueError(f"{self.address} needs certificates")

    def argv(self, path: Path, *, writable: bool) -> list[str]:
        to = self.address
        where = (
            [f"socket={to.socket_path}"]
            if to.socket_path
            else [f"hostname={to.host}", f"port={to.port}"]
        )
        tls = []
        if to.secure and self.tls_certificates is not None:
            tls = ["tls=require", f"tls-certificates={self.tls_certificates.absolute()}"]
        return [
            self.program,
            "--single",
            *([] if writable else ["--readonly"]),
            "nbd",
            *where,
            f"export={to.export}",
            *tls,
        ]


def name_as_nbdkit_does(files: TlsFiles, folder: Path) -> None:
    """Links to our PEM files in a private folder, under the names that nbdkit looks for."""
    for name, file in (
        ("ca-cert.pem", files.ca),
        ("client-cert.pem", files.certificate),
        ("client-key.pem", files.key),
    ):
        (folder / name).symlink_to(file.absolute())
