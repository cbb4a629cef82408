"""A disk with a volatile cache loses power: what the ledger calls done is on the disk.

nbdkit's cache filter is such a disk, and SIGKILL of its process is the power cut.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from failback.disks.exporter import NbdkitCommand
from tests.faults.kills import kill_many
from tests.faults.matrix import Matrix
from tests.faults.scene import METHODS, Scene

NewScene = Callable[..., Scene]
VOLATILE = NbdkitCommand(filters=["cache"], parameters=["cache=writeback"])
POWER = ("both", "both", "exporter")
"""The host with everything on it, or the storage alone."""


@pytest.mark.parametrize("method", METHODS)
def test_no_segment_that_is_called_done_is_lost(
    scene: NewScene, matrix: Matrix, method: str
) -> None:
    tally = kill_many(scene(2, method), 3, victims=POWER, to_target=VOLATILE)

    assert tally.wrong == []
    matrix.add("the power fails under a volatile cache")


def test_the_check_catches_a_commit_before_the_flush(scene: NewScene) -> None:
    tally = kill_many(scene(3), 3, victims=("both",), to_target=VOLATILE, late_flush=True)

    assert tally.wrong
