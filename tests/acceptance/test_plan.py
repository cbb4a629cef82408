"""A plan changes nothing, and a start with its hash insists on the world it was made in."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from failback.contracts.preview import Preview
from failback.contracts.start import NewVm, StartRequest
from failback.contracts.words import CarryOver, Destination, Outcome, Phase, StepName
from failback.hypervisor.vsphere.sites import VsphereSites
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage

pytestmark = pytest.mark.acceptance

MUTATIONS = {
    *("CreateSnapshot_Task", "ReconfigVM_Task", "PowerOffVM_Task", "ShutdownGuest"),
    *("setCustomValue", "SetField", "CreateVM_Task", "PowerOnVM_Task", "AddCustomFieldDef"),
}


def changes(scene: Scene) -> dict[str, int]:
    """Calls so far that change something, at both sites."""
    calls = [scene.lab.calls(place[0]) for place in (SOURCE, REPLICA)]
    return {name: sum(one.get(name, 0) for one in calls) for name in MUTATIONS}


def preview(scene: Scene, **options: Any) -> Preview:
    """Without a process."""
    return scene.wait(scene.client.preview(StartRequest(replica=scene.key, **options)))


def test_a_plan_is_kept_or_the_start_names_what_changed(stage: Stage) -> None:
    made = world(2 * MIB, MIB)
    disks = [{"size_bytes": size, "seed": 40} for size in (2 * MIB, MIB)]
    made["sites"][0]["vms"].append({"name": "web01-restored", "power": "off", "disks": disks})
    scene = stage(made)
    scene.stack.worker()
    before = changes(scene)

    done = scene.stack.cli("plan", scene.key, "--json")
    first = Preview.model_validate(json.loads(done.stdout))

    assert done.returncode == 0 and first.accepted
    assert [disk.examined_bytes for disk in first.disks] == [2 * MIB, MIB]
    assert StepName.TRANSPORT_CHANGES_2 in {step.name for step in first.steps if step.downtime}
    assert first.plan is not None and first.plan.replica.name == REPLICA[1]
    # The replica serves meanwhile: that alone is no drift.
    scene.lab.post(f"/sites/dr/vms/{REPLICA[1]}/guest/write", disk=0, offset=0, text="newer")
    assert preview(scene).plan_hash == first.plan_hash
    for destination in (Destination.RECOVERED, Destination.NEW):
        other = preview(
            scene,
            destination=destination,
            recovered="production:web01-restored",
            new_vm=NewVm(name="web01-home"),
        )
        assert other.accepted, other.findings
        assert other.destination is destination and other.plan_hash
    assert scene.claims() == () and scene.detail().runs == ()
    assert scene.vms() == scene.before and changes(scene) == before

    scene.lab.post(f"/sites/production/vms/{SOURCE[1]}/snapshot", name="mine", description="")
    refused = scene.start(plan_hash=first.plan_hash)

    assert not refused.accepted
    (drifted,) = (one for one in refused.findings if one.code == "PLAN_DRIFTED")
    assert "the target VM's disks; the target VM's snapshots" in drifted.message
    assert scene.claims() == () and changes(scene) == before

    again = scene.stack.cli("plan", scene.key, "--no-power-on")
    assert again.returncode == 0, again.stderr
    for text in ("FOREIGN_SNAPSHOTS", "Nothing was changed.", "hooks"):
        assert text in again.stdout
    line = again.stdout.strip().splitlines()[-1].split()
    assert line[:5] == ["failback", "start", scene.key, "--no-power-on", "--plan-hash"]
    typed = scene.stack.cli(*line[1:])
    assert typed.returncode == 0, typed.stdout
    held = preview(scene)
    assert not held.accepted and "CLAIM_HELD" in {finding.code for finding in held.findings}


def one_disk() -> dict[str, Any]:
    """The target has the first of two disks only."""
    return {"disks": [{"size_bytes": MIB, "seed": 7}]}


def hardware(scene: Scene, place: tuple[str, str]) -> tuple[int, int, list[str], int]:
    """CPUs, memory, the networks of the cards, and how many disks there are."""
    with closing(VsphereSites([scene.stack.lab.connection(place[0])])) as sites:
        site = sites.site(place[0])
        view = site.read([site.find(place[1])])[0]
    return view.cpus, view.memory_mb, [nic.network for nic in view.nics], len(view.disks)


def test_what_was_added_to_the_replica_comes_along_when_asked_and_goes_with_undo(
    stage: Stage,
) -> None:
    scene = stage(world(MIB, MIB, target=one_disk(), replica={"cpus": 4, "memory_mb": 2048}))
    with closing(VsphereSites([scene.stack.lab.connection("dr")])) as sites:
        site = sites.site("dr")
        vm = site.find(REPLICA[1])
        (card,) = site.read([vm])[0].nics
        site.add_nic(vm, card, [card.key], lambda: None)
    before, after = hardware(scene, SOURCE), (4, 2048, [card.network] * 2, 2)
    assert before[2:] == ([card.network], 1)
    scene.before = scene.vms()
    scene.stack.worker()
    asked = StartRequest(replica=scene.key, carry_over=tuple(CarryOver))
    files = sorted(scene.files(SOURCE)[0].parent.iterdir())

    planned = scene.wait(scene.client.preview(asked))
    assert [finding.code for finding in planned.findings] == ["CARRIED_OVER"]
    (step,) = (step for step in planned.steps if step.name is StepName.CARRY_OVER)
    assert "4 CPUs, 2048 MB of memory, 1 more network cards, 1 more disks" in step.what
    assert hardware(scene, SOURCE) == before

    assert scene.wait(scene.client.start(asked)).accepted
    scene.until(Phase.AWAITING_DECISION)
    assert hardware(scene, SOURCE) == after
    scene.undone(scene.undo())
    assert hardware(scene, SOURCE) == before
    assert [path for path in scene.files(SOURCE)[0].parent.iterdir() if path not in files] == []

    assert scene.wait(scene.client.start(asked)).accepted
    scene.until(Phase.AWAITING_DECISION)
    assert scene.commit().outcome is Outcome.COMMITTED
    scene.same_content()
    assert hardware(scene, SOURCE) == after
