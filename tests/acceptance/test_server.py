"""What the run stands on goes away and comes back: the Temporal server, a site."""

from __future__ import annotations

from pathlib import Path

import pytest

from failback.contracts.words import Phase, StepName
from tests.acceptance.conftest import Stage
from tests.acceptance.scene import MIB, SOURCE, world
from tests.helpers.stack import TemporalServer, until

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


def test_a_site_that_goes_away_stops_the_run_and_its_return_lets_it_go_on_by_itself(
    stage: Stage,
) -> None:
    short = {"step_patience_s": 2.0, "switch_patience_s": 2.0}
    scene = stage(world(MIB), transfer=short)
    # Preflight is over and the next call to production is held, then finds nobody.
    gate = scene.lab.fault("hold-before", method="CreateSnapshot_Task", site="production")
    scene.stack.worker()
    assert scene.start().accepted
    until("protect_target waits", lambda: scene.lab.get(f"/faults/{gate}")["holding"] > 0)
    scene.lab.post("/sites/production/down")
    scene.lab.post(f"/faults/{gate}/release")

    status = scene.until(Phase.NEEDS_OPERATOR)
    call = status.operator
    assert call is not None
    assert (call.code, call.step) == ("SiteUnreachable", StepName.PROTECT_TARGET)
    assert call.probing and "production" in call.message
    scene.lab.post("/sites/production/up")

    # Nobody says retry: the run asks the site every half minute.
    status = scene.until(Phase.AWAITING_DECISION, timeout_s=60)
    assert status.requests == () and status.operator is None
    made = scene.vm(SOURCE)["snapshots"]
    assert [(one["name"], one["children"]) for one in made] == [
        (f"failback/{status.run_id}/target", [])
    ]
    scene.committed(scene.commit())
