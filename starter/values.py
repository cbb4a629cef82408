"""Values on the command line: durations and places."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta
from typing import Any

DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")


def duration(text: str) -> timedelta:
    """`15m`, `1h30m`, `90s`, `2d`; a bare number is seconds."""
    if text.isdigit():
        return timedelta(seconds=int(text))
    found = DURATION.fullmatch(text)
    if not text or not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 15m, 1h30m or 90s")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def place(text: str) -> tuple[str, str]:
    """`SITE:NAME_OR_PATH` as (site, VM); the VM part may contain colons."""
    site, colon, vm = text.partition(":")
    if not (site and colon and vm):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not SITE:NAME_OR_PATH, for instance dr:/DC/vm/web01 or dr:web01"
        )
    return site, vm


def days(text: str) -> float:
    """A number of days, 0 to 36500."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 36500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return number


RATE = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?(?:/s)?", re.IGNORECASE)
POWERS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def moment(text: str) -> datetime:
    """An aware time: ISO 8601; without an offset it is this machine's local time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time such as 2026-11-24T22:00+01:00 or '2026-11-24 22:00'"
        ) from None
    return found if found.tzinfo is not None else found.astimezone()


def rate(text: str) -> int | None:
    """Bytes per second: `100M`, `1.5G`, `500000`; `none` is no limit."""
    if text == "none":
        return None
    found = RATE.fullmatch(text)
    if not found or float(found[1]) * POWERS[found[2].upper()] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 100M, 1.5G or none")
    return int(float(found[1]) * POWERS[found[2].upper()])


def window(text: str) -> dict[str, str] | None:
    """`22:00-06:00`; `none` is at any time."""
    if text == "none":
        return None
    begin, dash, end = text.partition("-")
    if not dash or not all(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", t) for t in (begin, end)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a window such as 22:00-06:00 or none")
    return {"begin": begin, "end": end}


def pair(text: str) -> tuple[str, str]:
    """`LEFT=RIGHT`."""
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form LEFT=RIGHT")
    return left, right


def probe(text: str) -> dict[str, Any]:
    """`tcp:HOST:PORT`, a URL, `tools` or `command:NAME`."""
    kind, _, rest = text.partition(":")
    if kind in ("http", "https") and rest:
        return {"kind": "http", "address": text}
    if kind == "tcp" and rest.rpartition(":")[2].isdigit():
        return {"kind": "tcp", "address": rest}
    if kind == "command" and rest:
        return {"kind": "command", "command": rest}
    if text == "tools":
        return {"kind": "tools"}
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a probe: tcp:HOST:PORT, http://..., https://..., tools or command:NAME"
    )
