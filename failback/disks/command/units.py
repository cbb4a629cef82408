"""Numbers as people write and read them."""

from __future__ import annotations

import argparse
import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def amount(text: str) -> int:
    """`64K`, `1.5G`, `1048576`: bytes, units are powers of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?(?:/s)?", text.strip(), re.IGNORECASE)
    count = int(float(found[1]) * 1024 ** _POWERS[found[2].upper()]) if found else 0
    if count <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount such as 512K, 50M or 1.5G")
    return count


def fraction(text: str) -> float:
    """`0.01`, or `1%`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found else -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 0.01 or 1%")
    return value


def seconds(text: str) -> float:
    """`2`, `0.5`."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not 0 < float(text) <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 3600")
    return float(text)


def size(count: float) -> str:
    """`0 B`, `1.50 GiB`, `210 MiB`."""
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:
        count, power = count / 1024, power + 1
    digits = 0 if power == 0 else 2 if count < 9.995 else 1 if count < 99.95 else 0
    return f"{count:.{digits}f} {_UNITS[power]}"


def span(seconds: float) -> str:
    """`0.4 s`, `38 s`, `4 min 10 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"
