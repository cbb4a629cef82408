"""Two movers on this machine, joined by real TLS over loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from failback.disks.copier import CopyOptions, copy
from failback.disks.file import FileDisk
from failback.disks.ledger import PassLedger
from failback.disks.plan import TransferPlan
from failback.disks.progress import CopyProgress
from failback.disks.remote.disk import MoverAddress, RemoteDisk, open_remote
from failback.disks.remote.scout import over_link, scouting
from failback.disks.remote.service import MoverService, below
from failback.disks.tls import TlsClient, TlsFiles
from tests.helpers.disks import QUICK, no_check, no_report
from tests.helpers.tls import Authority

NAME = "dr.test"


@dataclass
class TwoSites:
    """A source file behind a mover service, and a target file here."""

    root: Path
    service: MoverService
    client: TlsFiles
    authority: Authority

    @property
    def source(self) -> Path:
        return self.root / "source.img"

    @property
    def target(self) -> Path:
        return self.root / "target.img"

    def address(self, *, port: int = 0, files: TlsFiles | None = None) -> MoverAddress:
        tls = TlsClient((files or self.client).client(), NAME)
        return MoverAddress("127.0.0.1", port or self.service.port, tls)

    def open(self, *, address: MoverAddress | None = None, io_timeout_s: float = 20) -> RemoteDisk:
        return open_remote(
            address or self.address(),
            str(self.source),
            "replica disk",
            capacity_bytes=self.source.stat().st_size,
            io_timeout_s=io_timeout_s,
        )

    def copy(
        self,
        ledger: PassLedger,
        *,
        options: CopyOptions = QUICK,
        address: MoverAddress | None = None,
    ) -> CopyProgress:
        """One attempt of the target's mover."""
        remote, target = self.open(address=address), FileDisk(self.target, writable=True)
        try:
            return copy(
                remote,
                target,
                ledger,
                options=over_link(options),
                check=no_check,
                report=no_report,
                clock=time.monotonic,
                scout=scouting(remote, target, ledger.plan.segment_bytes),
            )
        finally:
            remote.close()
            target.close()

    def plan(self, segment_bytes: int = 256 * 1024) -> TransferPlan:
        return TransferPlan(self.source.stat().st_size, segment_bytes)


@contextmanager
def two_sites(root: Path, *, peers: tuple[str, ...] = ()) -> Iterator[TwoSites]:
    """Both movers; the service ends with the block."""
    authority = Authority(root / "tls")
    server, client = authority.issue("server", NAME), authority.issue("client", "mover.test")
    service = MoverService(("127.0.0.1", 0), server, below([root]), peers=peers)
    try:
        yield TwoSites(root, service, client, authority)
    finally:
        service.close()
