"""The crash matrix as a table at the end of a test session, whoever ran its cells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

PROPERTY = "crash matrix"
COLUMNS = ("before", "applied", "after")


@dataclass(eq=False)
class Table:
    """Steps by moments, for each destination; a plugin of the process that reports."""

    cells: dict[tuple[str, str], dict[str, Counter[str]]] = field(default_factory=dict)
    failed: set[tuple[str, str, str]] = field(default_factory=set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Reports of other processes come here too, with what the tests have written in them."""
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name != PROPERTY:
                continue
            destination, step, moment, seen = str(value).split("|")
            row = self.cells.setdefault((destination, step), {})
            if not report.passed:
                seen = f"{seen} (FAILED)"
            row.setdefault(moment, Counter())[seen] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The matrix, for people."""
        if self.cells:
            terminalreporter.section("crash matrix: steps x moments, and what was seen")
            for line in self.lines():
                terminalreporter.write_line(line)

    def lines(self) -> list[str]:
        """A table for people."""
        body = [
            (destination, step, *(_told(row.get(moment)) for moment in COLUMNS))
            for (destination, step), row in self.cells.items()
        ]
        body.sort(key=lambda line: line[0])
        head = ("destination", "step", *COLUMNS)
        widths = [max(len(line[at]) for line in (head, *body)) for at in range(len(head))]
        cells = sum(len(row) for row in self.cells.values())
        return [
            *(
                "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
                for line in (head, *body)
            ),
            f"{cells} cells",
        ]


def _told(seen: Counter[str] | None) -> str:
    if seen is None:
        return "-"
    return "; ".join(f"{what} ({n}x)" if n > 1 else what for what, n in seen.items())
