"""The failure guide names every reason for which a run may stand in NEEDS_OPERATOR."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from failback import errors

GUIDE = Path(__file__).parents[2] / "docs" / "operations.md"

ENGINE = {"HookFailed", "WorkerTimeout", "Unknown"}
"""Codes that the workflow itself gives."""

NEVER_ASKED = {
    "FailbackError": "a base",
    "SiteError": "a base",
    "VmError": "a base",
    "CatalogError": "a base",
    "DiskError": "a base",
    "RunRefused": "the run ends with the findings",
    "ClaimHeld": "preflight refuses; a cleanup waits for the other run",
    "TrackingUnusable": "whole disks are compared instead",
    "LeaseLost": "the attempt that has taken over goes on",
    "Stopped": "it was asked for",
    "WindowClosed": "it goes on by itself when the window opens",
}


def rows() -> dict[str, tuple[str, str]]:
    """What each code means and what is to be done."""
    text = GUIDE.read_text(encoding="utf-8")
    table = text[text.index("| code | means | what to do |") :].split("\n\n")[0]
    found: dict[str, tuple[str, str]] = {}
    for line in table.splitlines()[2:]:
        codes, means, do = (cell.strip() for cell in line.strip("|").split(" | "))
        for code in codes.split(", "):
            assert code not in found, f"{code} stands there twice"
            found[code] = (means, do)
    return found


def test_every_code_that_may_ask_a_person_is_in_the_guide() -> None:
    ours = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.FailbackError)
    }
    assert NEVER_ASKED.keys() <= ours
    assert set(rows()) == (ours - NEVER_ASKED.keys()) | ENGINE


@pytest.mark.parametrize("code", sorted(rows()))
def test_the_guide_says_what_it_means_and_what_to_type(code: str) -> None:
    means, do = rows()[code]
    assert len(means) > 10
    assert re.search(r"`(retry|undo)\b|by itself", do), do
