"""Exporters that offer less than usual serve too, and trouble that passes costs only an attempt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from failback.disks.exporter import NbdkitCommand
from tests.faults.matrix import Matrix
from tests.faults.scene import METHODS, SIZE, Scene
from tests.helpers.disks import MIB

NewScene = Callable[..., Scene]


@pytest.mark.parametrize("method", METHODS)
def test_a_mover_makes_the_target_equal_and_leaves_nothing_running(
    scene: NewScene, method: str
) -> None:
    here = scene(1, method)

    ending = here.finish()

    assert ending.progress is not None
    assert ending.progress.remaining_bytes == 0
    with here.store() as store:
        assert store.is_complete(here.plan_id)


def test_errors_that_go_away_cost_only_an_attempt(scene: NewScene, matrix: Matrix) -> None:
    here = scene(7)
    trigger = here.root / "trigger"
    trigger.touch()
    failing = NbdkitCommand(
        filters=["error"], parameters=["error=EIO", "error-rate=100%", f"error-file={trigger}"]
    )
    ending = here.attempt(to_target=failing)
    assert ending.code in ("DiskReadFailed", "DiskWriteFailed")

    trigger.unlink()
    here.finish(to_target=failing)

    matrix.add("every request fails for a while", ending)


@pytest.mark.parametrize("filters", [["noextents"], ["nozero"], ["noextents", "nozero"]])
def test_exporters_without_extents_or_zeroing_serve_too(
    scene: NewScene, filters: list[str]
) -> None:
    scene(8).finish(to_target=NbdkitCommand(filters=filters))


def test_block_size_limits_of_an_exporter_hold(scene: NewScene) -> None:
    here = scene(9, size=SIZE - SIZE % MIB + 512)

    here.finish(
        to_target=NbdkitCommand(
            filters=["blocksize-policy"],
            parameters=[
                "blocksize-minimum=512",
                "blocksize-preferred=65536",
                "blocksize-maximum=65536",
                "blocksize-error-policy=error",
            ],
        )
    )
