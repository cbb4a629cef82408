"""A comparison is a copy whose writes are only noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from failback.disks.blockio import Answer, BlockIO
from failback.disks.ledger import SegmentRecord, SegmentSet, SegmentTotals
from failback.disks.plan import Extent, TransferPlan
from failback.disks.together import LocalFile


class Unwritten:
    """A target that answers every change at once and does nothing; implements BlockIO."""

    fileno: Callable[[], int]
    """Only where the disk has one, as the copier asks."""

    def __init__(self, disk: BlockIO) -> None:
        self._disk = disk
        self._answers: list[Answer] = []
        self._wake: Callable[[], None] = lambda: None
        if isinstance(disk, LocalFile):
            self.fileno = disk.fileno

    @property
    def name(self) -> str:
        return self._disk.name

    @property
    def capacity_bytes(self) -> int:
        return self._disk.capacity_bytes

    @property
    def max_request_bytes(self) -> int:
        return self._disk.max_request_bytes

    @property
    def maps_zeroes(self) -> bool:
        return self._disk.maps_zeroes

    def submit_read(self, tag: int, offset: int, into: memoryview) -> None:
        self._disk.submit_read(tag, offset, into)

    def submit_map(self, tag: int, offset: int, length: int) -> None:
        self._disk.submit_map(tag, offset, length)

    def submit_write(self, tag: int, offset: int, data: memoryview) -> None:
        self._pretend(tag)

    def submit_zero(self, tag: int, offset: int, length: int) -> None:
        self._pretend(tag)

    def submit_flush(self, tag: int) -> None:
        self._pretend(tag)

    def poll(self, timeout_s: float) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers + self._disk.poll(0 if answers else timeout_s)

    def on_answer(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._disk.on_answer(wake)

    def interest(self) -> tuple[int, int] | None:
        return self._disk.interest()

    def close(self) -> None:
        self._disk.close()

    def _pretend(self, tag: int) -> None:
        self._answers.append(Answer(tag))
        self._wake()


class PassOnce:
    """A PassLedger that remembers only sums and tells the extents it hears of."""

    def __init__(
        self, plan: TransferPlan, differs: Callable[[Extent], None] = lambda _: None
    ) -> None:
        self.plan = plan
        self._differs = differs
        self._totals = SegmentTotals()

    def finished(self) -> SegmentSet:
        return SegmentSet()

    def totals(self) -> SegmentTotals:
        return self._totals

    def records(self) -> Iterator[SegmentRecord]:
        return iter(())

    def commit(self, records: Sequence[SegmentRecord]) -> None:
        was = self._totals
        for record in sorted(records, key=lambda record: record.index):
            was = SegmentTotals(
                was.segments + 1,
                was.examined_bytes + record.examined_bytes,
                was.different_bytes + record.different_bytes,
                was.written_bytes + record.written_bytes,
                was.zeroed_bytes + record.zeroed_bytes,
            )
            for extent in record.written:
                self._differs(extent)
        self._totals = was

    def complete(self) -> None:
        """Nothing outlives the command."""
