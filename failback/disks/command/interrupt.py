"""Ctrl-C and SIGTERM: the first stops at a checkpoint, the second at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

from failback.errors import Stopped


class Interrupt:
    """While this is entered, a signal is remembered for `check` where `patient`, else it raises
    KeyboardInterrupt."""

    def __init__(self) -> None:
        self.patient = False
        self.asked = False

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Stopped after the first signal."""
        if self.asked:
            raise Stopped("Interrupted.", "Nothing was written; begin again.")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self.patient:
            raise KeyboardInterrupt
