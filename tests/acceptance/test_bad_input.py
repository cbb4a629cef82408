"""Every refusal on the command line: exit status 2, a clear sentence, and nothing changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from failback.contracts.words import Phase
from tests.acceptance.conftest import Stage
from tests.acceptance.scene import MIB, Scene, world

pytestmark = pytest.mark.acceptance

Spoil = Callable[[Scene], Path | None]


def settings_with(scene: Scene, name: str, **sites: dict[str, Any]) -> Path:
    """Another settings file beside the scene's own."""
    path = scene.stack.folder / f"{name}.toml"
    path.write_text(scene.stack.settings_text(**sites), encoding="utf-8")
    return path


def wrong_password(scene: Scene) -> Path:
    password = scene.stack.folder / "wrong.password"
    password.write_text("not it\n")
    password.chmod(0o600)
    return settings_with(scene, "wrong-password", dr={"password_file": str(password)})


def wrong_thumbprint(scene: Scene) -> Path:
    tls = {"thumbprint_sha256": ":".join(["ab"] * 32)}
    return settings_with(scene, "wrong-thumbprint", production={"tls": tls})


def system_trust_only(scene: Scene) -> Path:
    # The practice site's authority is not among the system's.
    text = scene.stack.settings_text()
    path = scene.stack.folder / "untrusted.toml"
    kept = [line for line in text.splitlines() if not line.startswith("tls")]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path


def site_down(scene: Scene) -> None:
    scene.lab.post("/sites/dr/down")


def failed_back_already(scene: Scene) -> None:
    scene.stack.worker()
    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.commit()
    scene.before = scene.vms()


def nothing(scene: Scene) -> None:
    """The world itself is what is wrong."""


SMALLER = {"disks": [{"size_bytes": MIB // 2, "seed": 7}]}
ON = {"power": "on"}


@pytest.mark.parametrize(
    ("made", "spoil", "said"),
    [
        (world(MIB, target=SMALLER), nothing, ["TARGET_SMALLER", "--grow-target"]),
        (
            world(MIB, MIB, target={"disks": [{"size_bytes": MIB, "seed": 7}]}),
            nothing,
            ["DISK_WITHOUT_PARTNER", "--leave-behind scsi0:1"],
        ),
        (world(MIB, target={"disks": []}), nothing, ["DISKS_DO_NOT_PAIR", "mapped"]),
        (world(MIB, target=ON), nothing, ["TARGET_RUNS", "--accept-target-overwrite"]),
        (world(MIB), failed_back_already, ["REPLICA_STATE", "not in FAILOVER"]),
        (world(MIB), wrong_password, ["LOGIN_REFUSED", "dr"]),
        (world(MIB), site_down, ["SITE_UNREACHABLE", "dr"]),
        (world(MIB), system_trust_only, ["CERTIFICATE_UNTRUSTED"]),
        (world(MIB), wrong_thumbprint, ["CERTIFICATE_UNTRUSTED", "production"]),
    ],
    ids=[
        *("target smaller", "replica disk without partner", "disks do not pair", "target runs"),
        *("not in failover", "wrong password", "unreachable", "unknown authority"),
        "wrong thumbprint",
    ],
)
def test_a_start_that_cannot_be_is_refused(
    stage: Stage, made: dict[str, Any], spoil: Spoil, said: list[str]
) -> None:
    scene = stage(made)
    settings = spoil(scene)
    for worker in scene.stack.workers:
        worker.kill()
    scene.stack.worker(settings)

    refused = scene.stack.cli("start", scene.key)

    text = refused.stdout + refused.stderr
    assert refused.returncode == 2, text
    flat = " ".join(text.split())
    assert all(word in flat for word in said), text
    assert "Traceback" not in text
    scene.lab.post("/sites/dr/up")
    assert scene.vms() == scene.before
    assert scene.claims() == ()


def refused_by(done: subprocess.CompletedProcess[str], *said: str) -> None:
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, text
    assert all(word in text for word in said), text
    assert "Traceback" not in text


def test_unknown_replicas_and_bad_keys_are_refused(stage: Stage) -> None:
    scene = stage(world(MIB))
    scene.stack.worker()

    refused_by(scene.stack.cli("start", "nobody"), "REPLICA_UNKNOWN", "nobody", "replica list")
    refused_by(scene.stack.cli("start", "Not A Key"), "'Not A Key' is not a replica key")
    refused_by(scene.stack.cli("status", "no-one"), "no-one")
    refused_by(scene.stack.cli("commit", "no-one"), "no-one")
    refused_by(
        scene.stack.cli("replica", "add", "x", "--replica", "dr:none", "--source", "production:no"),
        "none",
    )

    assert scene.vms() == scene.before
    assert scene.claims() == ()


def test_requests_at_the_wrong_time_are_refused(stage: Stage) -> None:
    scene = stage(world(4 * MIB), transfer={"bandwidth_bytes_per_s": MIB})
    scene.stack.worker()
    assert scene.start().accepted
    scene.written_segments(1)

    refused_by(scene.stack.cli("commit", scene.key), "commit is not possible in phase SYNCING")
    refused_by(scene.stack.cli("retry", scene.key), "only when the run needs an operator")
    refused_by(scene.stack.cli("start", scene.key), "open")
    scene.until(Phase.AWAITING_DECISION)
    scene.committed(scene.commit())
    refused_by(scene.stack.cli("undo", scene.key, "--yes"), "ended")


def test_a_wrong_settings_file_is_refused_with_its_line(stage: Stage) -> None:
    scene = stage(world(MIB))
    broken = scene.stack.folder / "broken.toml"
    broken.write_text("[worker]\nmovers = 4\nmoverz = 5\n[transfer]\nsegment_bytes = 'big'\n")

    refused_by(
        scene.stack.cli("replica", "list", settings=broken),
        *("broken.toml", "line 3", "moverz", "movers"),
    )
    worker = scene.stack.worker(broken, ready=False)

    assert worker.wait() == 2
    assert "line 5" in worker.output
    assert "Traceback" not in worker.output
