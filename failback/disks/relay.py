"""A process between a mover and an NBD server of the user's, so that it can be killed.

What a frozen mover has not handed over dies with this process. What the server has received
already it may still do a moment later: only the server could prevent that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from failback.disks.address import NbdAddress


@dataclass(frozen=True)
class RelayCommand:
    """nbdkit's nbd plugin as an exporter; the path that an exporter is given is not used.

    Args:
        tls_certificates: folder with ca-cert.pem, and client-cert.pem and client-key.pem.
    """

    address: NbdAddress
    tls_certificates: Path | None = None
    program: str = "nbdkit"
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, path: Path, *, writable: bool) -> list[str]:
        to = self.address
        where = (
            [f"socket={to.socket_path}"]
            if to.socket_path
            else [f"hostname={to.host}", f"port={to.port}"]
        )
        tls = ["tls=require"] if to.secure else []
        if to.secure and self.tls_certificates is not None:
            tls.append(f"tls-certificates={self.tls_certificates.absolute()}")
        return [
            self.program,
            "--single",
            *([] if writable else ["--readonly"]),
            "nbd",
            *where,
            f"export={to.export}",
            *tls,
        ]
