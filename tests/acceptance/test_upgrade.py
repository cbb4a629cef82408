"""Worker deployments: the server gives a run to the next version when that is made current."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance


def make_current(scene: Scene, deployment: str, build: str) -> None:
    """As an administrator does, once the server knows the workers of that version."""

    def done() -> bool:
        return not scene.stack.temporal(
            *("worker", "deployment", "set-current-version", "--yes"),
            *("--deployment-name", deployment, "--build-id", build),
        ).returncode

    until(f"{build} is current", done)


def build_of(scene: Scene) -> str:
    """The version that took the run's last workflow task."""
    described = scene.stack.temporal(
        *("workflow", "describe", "--workflow-id", f"failback/{scene.key}", "--output", "json")
    )
    versioning = json.loads(described.stdout)["workflowExecutionInfo"]["versioningInfo"]
    return str(versioning["deploymentVersion"]["buildId"])


def test_a_run_moves_to_the_version_that_is_made_current(stage: Stage) -> None:
    slow = {"bandwidth_bytes_per_s": 2 * MIB}
    temporal = {"deployment": "failback-test", "build_id": "1.0"}
    scene = stage(world(3 * MIB), transfer=slow, temporal=temporal)
    newer = Path(scene.stack.folder) / "newer.toml"
    newer.write_text(scene.stack.settings.read_text().replace('"1.0"', '"2.0"'))
    old = scene.stack.worker()
    make_current(scene, "failback-test", "1.0")
    assert scene.start().accepted
    scene.written_segments(2)
    assert build_of(scene) == "1.0"

    new = scene.stack.worker(newer)
    make_current(scene, "failback-test", "2.0")
    old.send(signal.SIGTERM)
    assert old.wait() == 0
    scene.until(Phase.AWAITING_DECISION)

    assert build_of(scene) == "2.0"
    scene.committed(scene.commit())
    assert new.alive


def test_workers_of_a_version_that_is_not_current_get_nothing(stage: Stage) -> None:
    temporal = {"deployment": "failback-canary", "build_id": "1.0"}
    scene = stage(world(MIB), temporal=temporal)
    scene.stack.worker()
    answer = scene.stack.cli("start", scene.key, "--no-wait")
    assert answer.returncode == 0, answer.stderr
    assert scene.claims() == ()

    make_current(scene, "failback-canary", "1.0")
    scene.until(Phase.AWAITING_DECISION)
