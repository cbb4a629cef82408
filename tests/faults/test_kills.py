"""Movers, exporters and supervisors killed at random moments; resumed, the disks are equal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.kills import kill_many
from tests.faults.scene import KILLED, Scene

NewScene = Callable[..., Scene]


@pytest.mark.parametrize("method", KILLED)
def test_kills_at_random_moments_end_in_equality(scene: NewScene, method: str) -> None:
    tally = kill_many(scene(1, method), 5)

    assert tally.wrong == []
    assert tally.kills >= 5
