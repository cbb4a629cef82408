"""A site that comes back; test_away.py saw it go."""

from __future__ import annotations

import pytest

from failback.contracts.words import Phase
from tests.acceptance.outage import Outage
from tests.acceptance.scene import SOURCE

pytestmark = pytest.mark.acceptance


def test_a_run_goes_on_by_itself_when_its_site_is_back(outage: Outage) -> None:
    scene = outage.scene
    # Nobody says retry: the run asks the site every half minute.
    status = scene.until(Phase.AWAITING_DECISION, timeout_s=60)
    assert status.requests == () and status.operator is None
    made = scene.vm(SOURCE)["snapshots"]
    assert [(one["name"], one["children"]) for one in made] == [
        (f"failback/{status.run_id}/target", [])
    ]
    scene.committed(scene.commit())
