"""A replica's snapshot and a target behind a fake host, and a mover between them.

`python -m tests.vddk.scene ROOT` runs one attempt of a mover that a test may kill.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from failback.disks.blockio import BlockIO
from failback.disks.copier import CopyOptions, copy
from failback.disks.fence import Fence
from failback.disks.kinds import DatastoreAccess
from failback.disks.plan import TransferPlan
from failback.disks.progress import CopyProgress
from tests.helpers.disks import MIB, FileLedger, changed, content, no_check, no_report
from tests.vddk.fake import FakeHost

Opened = tuple[BlockIO, Callable[[], None]]

SIZE = 12 * MIB + 3 * 512
SEGMENT = 256 * 1024
SOURCE, TARGET = "[dr ds] web/web.vmdk", "[prod] web 1/it's=odd, name.vmdk"
SNAPSHOT = "snapshot-7"
OPTIONS = CopyOptions(flush_interval_s=0.05, stall_timeout_s=60.0)


@dataclass(frozen=True)
class Scene:
    """A replica's snapshot and a target's leaf behind one host."""

    root: Path
    host: FakeHost
    size: int = SIZE

    @property
    def files(self) -> tuple[Path, Path]:
        return self.root / "source.img", self.root / "target.img"

    @property
    def fence(self) -> Fence:
        return Fence(self.root / "state", "disk", "test")

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.json"

    def fill(self, *, share: float = 0.4) -> bytes:
        """The source's bytes; the target differs, and the frozen disk is not the current one."""
        rng = random.Random(1)
        original = content(rng, self.size)
        source, target = self.files
        source.write_bytes(original)
        target.write_bytes(changed(rng, original, share=share))
        self.host.serve(SOURCE, source, snapshot=SNAPSHOT)
        self.host.serve(TARGET, target)
        return original

    @contextmanager
    def open(self, *, writable: bool, check: Callable[[], None] = no_check) -> Iterator[Opened]:
        access = DatastoreAccess(kind="vddk", vddk=self.host.site)
        with access.open(
            TARGET if writable else SOURCE,
            vm="vm-16",
            snapshot=None if writable else SNAPSHOT,
            writable=writable,
            fence=self.fence if writable else None,
            check=check,
            name="disk",
            lease_s=20.0,
        ) as opened:
            yield opened

    def run(
        self, options: CopyOptions = OPTIONS, report: Callable[[CopyProgress], None] = no_report
    ) -> CopyProgress:
        renewals: list[Callable[[], None]] = []

        def check() -> None:
            for renew in renewals:
                renew()

        with self.open(writable=True, check=check) as target:
            renewals.append(target[1])
            with self.open(writable=False, check=check) as source:
                renewals.append(source[1])
                ledger = FileLedger(self.ledger, TransferPlan(self.size, SEGMENT))
                return copy(
                    source[0],
                    target[0],
                    ledger,
                    options=options,
                    check=check,
                    report=report,
                    clock=time.monotonic,
                )


def main() -> int:
    """One attempt, until it is done or killed."""
    root = Path(sys.argv[1])
    Scene(root, FakeHost.at(root / "host")).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
