"""Extent lists in files, as other tools and people make them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from failback.disks.plan import Extent, union
from failback.errors import SettingsInvalid

_FORM = 'Expected is a JSON array of {"offset": BYTES, "length": BYTES}.'


def read_all(names: Sequence[str], capacity_bytes: int) -> tuple[Extent, ...]:
    """What is in at least one of the files."""
    return union(*(read_extents(name, capacity_bytes) for name in names))


def read_extents(name: str, capacity_bytes: int) -> tuple[Extent, ...]:
    """The extents of a file, or of standard input for `-`; SettingsInvalid with the entry's number.

    More keys than these two are allowed and not looked at."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        found = json.loads(text)
    except OSError as error:
        raise SettingsInvalid(
            f"The extents {name} cannot be read ({error.strerror}).", _FORM
        ) from (error)
    except ValueError as error:
        raise SettingsInvalid(f"The extents {name} are not JSON ({error}).", _FORM) from None
    if isinstance(found, dict):
        found = found.get("extents")
    if not isinstance(found, list):
        raise SettingsInvalid(f"The extents {name} are not an array.", _FORM)
    return tuple(_extents(name, found, capacity_bytes))


def _extents(name: str, found: list[object], capacity_bytes: int) -> Iterator[Extent]:
    for number, entry in enumerate(found):
        values = [entry.get(key) for key in ("offset", "length")] if isinstance(entry, dict) else []
        match values:
            case [int(offset), int(length)] if not any(isinstance(one, bool) for one in values):
                if offset < 0 or length < 0 or offset + length > capacity_bytes:
                    raise SettingsInvalid(
                        f"Extent {number} of {name} ({offset}, {length}) lies outside the disk of"
                        f" {capacity_bytes} bytes.",
                        "Make the list anew: it belongs to another disk.",
                    )
                yield Extent(offset, length)
            case _:
                raise SettingsInvalid(f"Entry {number} of {name} is no extent.", _FORM)
