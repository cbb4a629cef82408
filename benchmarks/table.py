"""Rounds of contestants, interleaved, and the rows that are made of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Tell = Callable[[str], None]
Contestant = Callable[[], float]
"""Prepares its disks, then returns the seconds that the work itself took."""
Times = Mapping[str, Sequence[float]]
"""Seconds by contestant, one per round."""

NARROW = (0.90, 1.10)
"""Between these a best of a few says little: the median of the ratios of all rounds decides."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    measure: str
    seen: str
    bar: str = ""
    met: bool | None = None
    """None where there is no bar."""
    detail: str = ""


def rounds(contestants: Mapping[str, Contestant], count: int, tell: Tell) -> Times:
    """Run each once per round, each round beginning with another one."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(count):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            seconds = contestants[name]()
            times[name].append(seconds)
            tell(f"  round {number + 1} of {count}: {name} {seconds:.2f} s")
    return times


def ratio_row(
    measure: str,
    times: Times,
    ours: str,
    theirs: str,
    bar: float,
    *,
    at_least: bool = False,
    faster: bool = False,
) -> Row:
    """Our time over theirs.

    Args:
        at_least: the bar is a lower one.
        faster: compare speeds instead: their time over ours.
    """
    above, below = (theirs, ours) if faster else (ours, theirs)
    ratios = [a / b for a, b in zip(times[above], times[below], strict=True)]
    if NARROW[0] <= bar <= NARROW[1]:
        value = statistics.median(ratios)
        kind = f"median of {len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f}"
    else:
        value = min(times[above]) / min(times[below])
        kind = f"best of {len(ratios)}: {min(times[ours]):.2f} s / {min(times[theirs]):.2f} s"
    met = value >= bar if at_least else value <= bar
    return Row(measure, f"{value:.2f}", f"{'>=' if at_least else '<='} {bar:g}", met, kind)


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows, aligned."""
    cells = [("measure", "seen", "bar", "met", "how")] + [
        (row.measure, row.seen, row.bar, {True: "yes", False: "NO", None: "-"}[row.met], row.detail)
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    for line in cells:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
