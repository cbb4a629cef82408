"""The Temporal server dies in the middle of a run and comes back with its database."""

from __future__ import annotations

from pathlib import Path

import pytest

from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import TemporalServer

pytestmark = pytest.mark.acceptance


def test_a_run_survives_the_death_of_the_temporal_server_in_the_middle_of_a_pass(
    stage: Stage, tmp_path: Path
) -> None:
    own = TemporalServer(tmp_path / "own server")
    own.start()
    try:
        scene = stage(
            world(3 * MIB, MIB), address=own.address, transfer={"bandwidth_bytes_per_s": 2 * MIB}
        )
        scene.stack.worker()
        assert scene.start().accepted
        scene.written_segments(3)
        own.kill()
        done, _ = scene.ledger()
        # The pass goes on without the server: bytes need a worker, not a server.
        scene.written_segments(done + 2)
        own.start()

        scene.until(Phase.AWAITING_DECISION)
        scene.committed(scene.commit())
    finally:
        own.kill()
