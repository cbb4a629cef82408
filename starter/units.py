"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Bytes with a binary unit and three digits: `0 B`, `1.50 GiB`, `210 MiB`."""
    power = _power(count)
    return f"{_digits(count, power)} {UNITS[power]}"


def ratio(part: float, whole: float) -> str:
    """Part and whole in the unit of the whole: `9.47/20.0 GiB`."""
    power = _power(whole)
    return f"{_digits(part, power)}/{size(whole)}"


def _power(count: float) -> int:
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1024, power + 1
    return power


def _digits(count: float, power: int) -> str:
    value = count / 1024**power
    digits = 0 if power == 0 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}"


def span(duration: timedelta | float) -> str:
    """A duration in its largest units: `0.4 s`, `38 s`, `4 min 10 s`, `2 h 05 min`, `3 d 4 h`."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def clock(moment: datetime | None, now: datetime | None = None) -> str:
    """Time of day in UTC; with the date when it is another day than `now`."""
    if moment is None:
        return ""
    there = moment.astimezone(UTC)
    if now is not None and there.date() != now.astimezone(UTC).date():
        return f"{there:%Y-%m-%d %H:%M:%S}"
    return f"{there:%H:%M:%S}"


def sentence(text: str) -> str:
    """The text with an end: messages from elsewhere come with and without a full stop."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."
