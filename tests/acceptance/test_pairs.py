"""Which disk goes to which: mapped pairs, and pairs that are none."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from failback.contracts.start import DiskMapping
from failback.contracts.words import Outcome, Phase
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage

pytestmark = pytest.mark.acceptance


def label(flat: Path, guid: uuid.UUID) -> None:
    """Give the disk a GPT header."""
    with flat.open("r+b") as file:
        file.seek(512)
        file.write(b"EFI PART".ljust(56, b"\0") + guid.bytes_le + bytes(20))


def exchanged(scene: Scene) -> None:
    """Each disk of the target holds what the other disk of the replica held."""
    off, on = scene.events(REPLICA, "power-off")[-1], scene.events(SOURCE, "power-on")[-1]
    shas = [disk["sha256"] for disk in off["disks"]]
    assert [disk["sha256"] for disk in on["disks"]] == shas[::-1]


def test_disks_that_do_not_sit_at_the_same_address(stage: Stage) -> None:
    scene = stage(world(4 * MIB, 4 * MIB))
    scene.stack.worker()
    one, two = "scsi0:0", "scsi0:1"
    swap = (DiskMapping(replica=one, target=two), DiskMapping(replica=two, target=one))

    assert scene.start(disk_map=swap).accepted
    scene.until(Phase.AWAITING_DECISION)
    exchanged(scene)
    assert scene.commit().outcome is Outcome.COMMITTED


def test_disks_with_other_names_are_refused_until_accepted(stage: Stage) -> None:
    scene = stage(world(4 * MIB, 4 * MIB))
    scene.stack.worker()
    same = uuid.uuid4()
    for place, names in ((REPLICA, (same, uuid.uuid4())), (SOURCE, (same, uuid.uuid4()))):
        for flat, name in zip(scene.files(place), names, strict=True):
            label(flat, name)
    scene.digests = scene.target_digests()

    refused = scene.start()

    assert not refused.accepted
    assert [finding.code for finding in refused.findings] == ["DISK_MISMATCH"]
    assert "scsi0:1" in refused.findings[0].message
    assert scene.target_digests() == scene.digests
    assert scene.vms() == scene.before
    assert scene.start(accept_pair=("scsi0:1",)).accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.committed(scene.commit())


def test_a_target_that_was_registered_again_is_found_again(stage: Stage) -> None:
    scene = stage(world(4 * MIB))
    scene.stack.worker()
    site, name = SOURCE
    scene.lab.post(f"/sites/{site}/vms/{name}/reregister")

    refused = scene.start()
    assert [finding.code for finding in refused.findings] == ["VM_NOT_FOUND"]
    assert "failback replica find-again" in refused.findings[0].remedy
    old = scene.detail().replica.source
    for told in (f"recorded as {old} before", "as it was"):
        done = scene.stack.cli("replica", "find-again", scene.key)
        assert (done.returncode, told in done.stdout) == (0, True), done.stdout + done.stderr
    assert scene.detail().replica.source.moref != old.moref

    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.committed(scene.commit())
