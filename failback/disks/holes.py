"""What both disks say reads as zeroes, asked a little ahead of the copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from failback.disks.blockio import Answer, BlockIO
from failback.disks.plan import Extent
from failback.disks.requests import Requests

Zeroes = tuple[Extent, ...]


class Holes:
    """Asks the disks about segments ahead of time; who cannot tell has no zeroes.

    Only the zero bit counts: a hole of a chained disk may show its parent's bytes.

    Args:
        segments: (index, extents) in ascending order.
        ask_target: False if the target's content does not matter.
    """

    def __init__(
        self,
        requests: Requests,
        source: BlockIO,
        target: BlockIO,
        segments: Iterator[tuple[int, tuple[Extent, ...]]],
        *,
        enabled: bool,
        ask_target: bool = True,
    ) -> None:
        self._requests = requests
        self._asked = (
            source if enabled and source.maps_zeroes else None,
            target if enabled and ask_target and target.maps_zeroes else None,
        )
        self._segments = segments
        self._ahead: list[_Known] = []

    def in_order(
        self, ahead: int = 2
    ) -> Iterator[tuple[int, tuple[Extent, ...], Zeroes, Zeroes] | None]:
        """(index, extents, the source's zeroes, the target's); None while an answer is awaited.

        The requests' `turn` brings the answers."""
        while True:
            while len(self._ahead) < ahead and (segment := next(self._segments, None)) is not None:
                self._ahead.append(self._ask(*segment))
            if not self._ahead:
                return
            while self._ahead[0].awaited:
                yield None
            known = self._ahead.pop(0)
            yield known.index, known.extents, known.zeroes[0], known.zeroes[1]

    def _ask(self, index: int, extents: Sequence[Extent]) -> _Known:
        known = _Known(index, tuple(extents))
        span = Extent(extents[0].offset, extents[-1].end - extents[0].offset)
        for side, disk in enumerate(self._asked):
            if disk is not None:
                known.awaited += 1
                self._requests.map(disk, span, known.hear(side))
        return known


class _Known:
    def __init__(self, index: int, extents: tuple[Extent, ...]) -> None:
        self.index, self.extents = index, extents
        self.awaited = 0
        self.zeroes: list[Zeroes] = [(), ()]

    def hear(self, side: int) -> Callable[[Answer], None]:
        def answered(answer: Answer) -> None:
            self.zeroes[side] = answer.zeroes
            self.awaited -= 1

        return answered
