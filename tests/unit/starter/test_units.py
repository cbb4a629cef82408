"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from starter import units
from tests.unit.starter.doubles import NOW, ago


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1536, "1.50 KiB"),
        (210 * 2**20, "210 MiB"),
        (20 * 2**30, "20.0 GiB"),
        (64 * 2**40, "64.0 TiB"),
        (5000 * 2**50, "5000 PiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert units.size(count) == text


def test_ratio_has_one_unit() -> None:
    assert units.ratio(2**29, 20 * 2**30) == "0.50/20.0 GiB"


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (-3, "0.0 s"),
        (0.42, "0.4 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (250, "4 min 10 s"),
        (timedelta(hours=2, minutes=5), "2 h 05 min"),
        (timedelta(days=3, hours=4), "3 d 4 h"),
    ],
)
def test_span(duration: float | timedelta, text: str) -> None:
    assert units.span(duration) == text


def test_clock_shows_the_date_of_another_day() -> None:
    assert units.clock(ago(60), NOW) == "11:59:00"
    assert units.clock(ago(86400), NOW) == "2026-02-28 12:00:00"
    assert units.clock(None) == ""


@pytest.mark.parametrize("text", ["It failed", "It failed."])
def test_sentence_ends_once(text: str) -> None:
    assert units.sentence(text) == "It failed."
