"""Which parts of a segment need no reading because both disks say that they read as zeroes."""

from __future__ import annotations

from collections.abc import Sequence

from failback.disks.blockio import Answer, BlockIO
from failback.disks.plan import Extent, intersect
from failback.disks.requests import Requests


class SharedHoles:
    """Asks both disks about segments ahead of time; knows nothing if one of them cannot tell.

    Only the zero bit counts: a hole of a chained disk may show its parent's bytes."""

    def __init__(
        self, requests: Requests, source: BlockIO, target: BlockIO, *, enabled: bool
    ) -> None:
        self._requests = requests
        self._disks = (source, target) if source.maps_zeroes and target.maps_zeroes else ()
        if not enabled:
            self._disks = ()
        self._answers: dict[int, list[tuple[Extent, ...]]] = {}

    def ask(self, index: int, extents: Sequence[Extent]) -> None:
        """Ask about a segment, once; the requests' `turn` brings the answers."""
        if index in self._answers:
            return
        answers = self._answers[index] = []
        span = Extent(extents[0].offset, extents[-1].end - extents[0].offset)

        def answered(answer: Answer) -> None:
            answers.append(answer.zeroes)

        for disk in self._disks:
            self._requests.map(disk, span, answered)

    def known(self, index: int) -> bool:
        return len(self._answers[index]) == len(self._disks)

    def take(self, index: int) -> tuple[Extent, ...]:
        """What reads as zeroes on both disks; forgets the segment."""
        answers = self._answers.pop(index)
        return intersect(*answers) if len(answers) == 2 else ()
