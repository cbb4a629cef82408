"""Limits that change in the middle of a run, and a hook and a probe of the worker's settings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.operations import SnapshotLook
from failback.contracts.policies import Limits
from failback.contracts.requests import Request
from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance

HOOK = """\
#!/bin/sh
cat > '{folder}'/told-"$FAILBACK_WHEN"
echo "password=geheim for $FAILBACK_TARGET_VM"
"""


def doing(scene: Scene) -> tuple[str, float]:
    """What the disk's mover is at, and how far, as status shows it."""
    view = scene.wait(scene.client.status(scene.key))
    now = view.progress.get("scsi0:0")
    return ("", 0.0) if now is None else (now.doing, now.examined_bytes / now.total_bytes)


def snapshots(scene: Scene) -> list[SnapshotLook]:
    """What status shows of the run's snapshots."""
    live = scene.wait(scene.client.status(scene.key)).live
    return [one for item in live if item.watched for one in item.watched.snapshots]


def adjust(scene: Scene, **limits: Any) -> None:
    answer = scene.wait(scene.client.adjust(scene.key, Request(limits=Limits(**limits), by="ann")))
    assert answer.accepted, answer.message


def room(scene: Scene, free_bytes: int) -> None:
    """Free room that the replica's datastore shows from now on."""
    scene.lab.post("/sites/dr/datastore", free_bytes=free_bytes)


def later_today() -> dict[str, str]:
    """A window that opens in two hours."""
    begin = datetime.now(UTC) + timedelta(hours=2)
    return {"begin": f"{begin:%H:%M}", "end": f"{begin + timedelta(hours=1):%H:%M}"}


def test_limits_are_adjusted_in_mid_run_and_hooks_are_called(stage: Stage, tmp_path: Path) -> None:
    script = tmp_path / "a hook"
    script.write_text(HOOK.format(folder=tmp_path))
    script.chmod(0o700)
    settings: dict[str, Any] = {"hooks.note": {"command": [str(script)]}}
    scene = stage(world(2 * MIB), **settings)
    scene.stack.worker()
    begun = scene.start(
        limits={"window": later_today()},
        hooks=[{"name": "note", "when": "after", "step": "power_on_target"}],
        finalize={"mode": "auto_commit", "probes": [{"kind": "command", "command": "note"}]},
    )
    assert begun.accepted, begun.findings

    until("the disk waits for its window", lambda: doing(scene)[0] == "window")
    assert scene.target_digests() == scene.digests
    room(scene, 4096)
    adjust(scene, bandwidth_bytes_per_s=1024, window=None)
    asked = scene.until(Phase.NEEDS_OPERATOR).operator
    assert asked is not None
    assert (asked.code, "datastore ds-dr has 0.00 GiB free" in asked.message) == (
        "NoRoomSoon",
        True,
    )
    room(scene, 1 << 40)
    assert scene.wait(scene.client.retry(scene.key, Request(by="ann"))).accepted
    # At this rate the disk would take half an hour.
    until("the disk is copied slowly", lambda: doing(scene)[0] == "transport")
    assert doing(scene)[1] < 1
    adjust(scene, bandwidth_bytes_per_s=None)

    status = scene.until(Phase.AWAITING_DECISION)
    (called,) = status.hooks
    assert (called.name, called.ok) == ("note", True)
    assert called.output == "password=[hidden] for web01"
    told = json.loads((tmp_path / "told-after").read_text())
    assert (told["run"], told["target_vm"]["name"]) == (status.run_id, "web01")
    until("the probe was asked", (tmp_path / "told-probe").exists)
    until("status shows the snapshots", lambda: len(snapshots(scene)) == 2)
    assert all(one.created_at and one.stored_bytes and one.free_bytes for one in snapshots(scene))
    scene.committed(scene.commit())
