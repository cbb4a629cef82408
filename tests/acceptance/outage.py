"""A site goes away in the middle of a run. The run asks for it every half minute, so its two tests
stand in files that run early and late, and other tests use the time between."""

from __future__ import annotations

from dataclasses import dataclass

from failback.contracts.status import OperatorCall
from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

SHORT = {"step_patience_s": 2.0, "switch_patience_s": 2.0}


@dataclass(frozen=True)
class Outage:
    """A run that stopped because production was away; production is back now."""

    scene: Scene
    stopped: OperatorCall


def happen(stage: Stage) -> Outage:
    """Take production away while the target is about to be protected, and give it back."""
    scene = stage(world(MIB), transfer=SHORT)
    gate = scene.lab.fault("hold-before", method="CreateSnapshot_Task", site="production")
    scene.stack.worker()
    assert scene.start().accepted
    until("protect_target waits", lambda: scene.lab.get(f"/faults/{gate}")["holding"] > 0)
    scene.lab.post("/sites/production/down")
    scene.lab.post(f"/faults/{gate}/release")
    call = scene.until(Phase.NEEDS_OPERATOR).operator
    scene.lab.post("/sites/production/up")
    assert call is not None
    return Outage(scene, call)
