"""Values on the command line: durations and places."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

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
