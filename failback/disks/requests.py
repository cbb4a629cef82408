"""Open requests of one or more disks, driven by one thread: retries, errors, stalls and checks."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from failback.disks.blockio import Answer, Answering, BlockIO, Check, Clock, Waiter
from failback.disks.faults import Op, disk_error, worth_retrying
from failback.disks.plan import Extent
from failback.disks.together import Together
from failback.errors import Stopped, TransferStalled

Then = Callable[[Answer], None]

_PAUSE_S = 1.0
"""What one turn may take beyond its wait. More is a pause of ours or a jump of the clock, and says
nothing about the disk."""


@dataclass(slots=True)
class _Open:
    op: Op
    disk: Answering
    extent: Extent
    send: Callable[[int], None]
    then: Then
    retried: bool = False


class Requests:
    """Submits requests and calls back when they are answered.

    A failed request is sent once more; then its error is raised, typed and with its offset.

    Args:
        check: called at least every `check_interval_s` while `turn` is called in a loop.
        stall_timeout_s: TransferStalled when no answer came for so long while one is due.
    """

    def __init__(
        self,
        *disks: Answering,
        check: Check,
        clock: Clock,
        stall_timeout_s: float,
        check_interval_s: float,
    ) -> None:
        self._waiter = Waiter(*disks)
        self._check = check
        self._clock = clock
        self._stall_timeout_s = stall_timeout_s
        self._check_interval_s = check_interval_s
        self._tags = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._answers: deque[tuple[Answering, Answer]] = deque()
        self._checked_at = self._looked_at = clock()
        self._waited_s = 0.0
        self.winding_down = False
        """After Stopped: `check` may say it again without effect, so that writes can finish."""

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def changing(self) -> int:
        """Open requests that are not reads: what a stop must wait for."""
        return sum(one.op.changes or one.op is Op.FLUSH for one in self._open.values())

    def read(self, disk: BlockIO, offset: int, view: memoryview, then: Then) -> None:
        def send(tag: int) -> None:
            disk.submit_read(tag, offset, view)

        self._submit(_Open(Op.READ, disk, Extent(offset, view.nbytes), send, then))

    def write(self, disk: BlockIO, offset: int, view: memoryview, then: Then) -> None:
        def send(tag: int) -> None:
            disk.submit_write(tag, offset, view)

        self._submit(_Open(Op.WRITE, disk, Extent(offset, view.nbytes), send, then))

    def zero(self, disk: BlockIO, extent: Extent, then: Then) -> None:
        def send(tag: int) -> None:
            disk.submit_zero(tag, extent.offset, extent.length)

        self._submit(_Open(Op.ZERO, disk, extent, send, then))

    def map(self, disk: BlockIO, extent: Extent, then: Then) -> None:
        """An answer with an errno knows of no zeroes."""

        def send(tag: int) -> None:
            disk.submit_map(tag, extent.offset, extent.length)

        self._submit(_Open(Op.MAP, disk, extent, send, then))

    def flush(self, disk: BlockIO, then: Then) -> None:
        self._submit(_Open(Op.FLUSH, disk, Extent(0, 0), disk.submit_flush, then))

    def compare(
        self, together: Together, offset: int, mine: memoryview, theirs: memoryview, then: Then
    ) -> None:
        """An answer with an errno tells nothing but that reading apart would tell more."""

        def send(tag: int) -> None:
            together.submit(tag, offset, mine, theirs)

        self._submit(_Open(Op.COMPARE, together, Extent(offset, mine.nbytes), send, then))

    def check(self) -> None:
        """Call `check` now; Stopped passes without effect once winding down."""
        self._checked_at = self._clock()
        try:
            self._check()
        except Stopped:
            if not self.winding_down:
                raise

    def turn(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for an answer and call back for all that came.

        An exception out of `check` or a callback leaves the other answers for the next turn."""
        if self._clock() - self._checked_at >= self._check_interval_s:
            self.check()
        if not self._answers:
            wait_s = max(0.0, min(timeout_s, self._check_interval_s))
            self._answers.extend(self._waiter.poll(wait_s))
            self._count_wait(wait_s)
        while self._answers:
            _, answer = self._answers.popleft()
            self._dispatch(answer)

    def _submit(self, request: _Open) -> None:
        if not self._open:
            self._waited_s, self._looked_at = 0.0, self._clock()
        tag = next(self._tags)
        self._open[tag] = request
        request.send(tag)

    def _dispatch(self, answer: Answer) -> None:
        request = self._open.pop(answer.tag)
        if answer.errno == 0 or request.op in (Op.MAP, Op.COMPARE):
            request.then(answer)
        elif not request.retried and worth_retrying(request.op, answer.errno):
            request.retried = True
            self._submit(request)
        else:
            extent = request.extent
            raise disk_error(
                request.op, answer.errno, request.disk.name, extent.offset, extent.length
            )

    def _count_wait(self, wait_s: float) -> None:
        now = self._clock()
        elapsed_s, self._looked_at = now - self._looked_at, now
        if self._answers:
            self._waited_s = 0.0
            return
        self._waited_s += min(max(0.0, elapsed_s), wait_s + _PAUSE_S)
        if not self._open or self._waited_s <= self._stall_timeout_s:
            return
        oldest = self._open[min(self._open)]
        raise TransferStalled(
            f"{oldest.disk.name} did not answer a {oldest.op} at offset {oldest.extent.offset}"
            f" for {self._waited_s:.0f} s.",
            "Check the datastore and the network to it; the next attempt continues here.",
            offset=oldest.extent.offset,
        )
