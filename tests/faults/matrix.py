"""What was seen: for each fault how it ended. docs/faults.md says the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.faults.mover import Ending
from tests.helpers.disks import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "faults.md"


class Outcome(StrEnum):
    """There is no fourth: nothing ends silently."""

    DONE = "done"
    """The attempt made the disks equal in spite of the fault."""
    RETRIED = "retried"
    """The attempt ended with an error that Temporal retries; the next one made them equal."""
    MENDED = "mended"
    """The attempt ended with an error that says what to mend; after that the next made them
    equal."""


@dataclass(frozen=True)
class Row:
    """One fault; `offset` as it was told, None if the error has no place on the disk."""

    fault: str
    outcome: Outcome
    code: str = ""
    offset: int | None = None

    @property
    def document(self) -> tuple[str, str, str, str]:
        """The row as the document has it: offsets differ from run to run."""
        return (
            self.fault,
            self.outcome.value,
            self.code or "-",
            "-" if self.offset is None else "told",
        )


@dataclass
class Matrix:
    """The rows of a session."""

    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, fault: str, ending: Ending | None = None) -> None:
        """An ending that was followed by an attempt that made the disks equal.

        None: the mover was killed, and Temporal notices by its missing heartbeat."""
        if ending is None:
            row = Row(fault, Outcome.RETRIED, "killed")
        elif ending.done:
            row = Row(fault, Outcome.DONE)
        else:
            assert ending.what, f"{fault}: {ending}"
            assert ending.remedy, f"{fault}: {ending}"
            offset = ending.evidence.get("offset")
            if ending.code in ("LeaseLost", "Stopped"):
                offset = None  # nothing about the disk, though it may be told
            assert offset is None or isinstance(offset, int)
            outcome = Outcome.RETRIED if ending.retryable else Outcome.MENDED
            row = Row(fault, outcome, ending.code, offset)
        before = self.rows.setdefault(fault, row)
        assert before.document == row.document, f"{fault} ends once so and once so"

    def lines(self) -> list[str]:
        """A table for people."""
        head = ("fault", "outcome", "code", "offset")
        body = [
            (
                row.fault,
                row.outcome.value,
                row.code or "-",
                "-" if row.offset is None else str(row.offset),
            )
            for row in self.rows.values()
        ]
        widths = [max(len(line[column]) for line in (head, *body)) for column in range(4)]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in (head, *body)
        ]


def documented(path: Path = DOCUMENT) -> dict[str, tuple[str, ...]]:
    """Rows of the document's table, by fault."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    return {row[0]: row[:4] for row in cells}
