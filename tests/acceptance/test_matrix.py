"""The crash matrix: the worker dies at every moment of every step, in both directions.

One run is killed once in each of its steps, so that every step is also gone on with by another
worker than the one that began it. What is checked at the end is bytes, inventory and catalog.
"""

from __future__ import annotations

from typing import Any

import pytest

from failback.contracts.words import Destination, Outcome, StepName
from tests.acceptance.killing import Killer, Moment, printed
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage
from tests.acceptance.test_places import NEW, RESTORED, TEMPORARY, digests, same_content, there
from workflows.steps import LISTS, SETTLE, UNDO_CLOSE, undo_list

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

SNAPSHOT = "CreateSnapshot_Task"
QUICK = {"heartbeat_timeout_s": 2.0}
UNRECORDED = {UNDO_CLOSE.name}
"""The closing transaction is the record: it has no row beside it."""
SKIPPED = {StepName.CARRY_OVER, StepName.UNDO_CARRY_OVER}
"""Steps that these requests do not ask for."""


def forward(destination: Destination) -> list[StepName]:
    """Every step of a list that these runs take."""
    return [step.name for step in LISTS[destination] if step.name not in SKIPPED]


def back(destination: Destination) -> list[StepName]:
    """Every compensation of a run that awaited its decision."""
    steps = undo_list(forward(destination), destination)
    return [s.name for s in steps if s.name not in SKIPPED | UNRECORDED]


ONLY_THERE = {
    Destination.ORIGINAL: forward(Destination.ORIGINAL),
    Destination.RECOVERED: [StepName.POWER_OFF_SOURCE, StepName.REPLACE_SOURCE],
    Destination.NEW: [
        StepName.CREATE_TARGET,
        StepName.COPY_CONFIGURATION,
        StepName.REGISTER_TARGET,
    ],
}
"""Cells that differ from those of `original`."""
BACK_THERE = {
    Destination.ORIGINAL: back(Destination.ORIGINAL),
    Destination.RECOVERED: [StepName.UNDO_REPLACE_SOURCE],
    Destination.NEW: [StepName.UNDO_REGISTER_TARGET, StepName.UNDO_CREATE_TARGET],
}


def test_every_step_of_every_destination_is_in_the_matrix() -> None:
    cells = {name for names in (*ONLY_THERE.values(), *BACK_THERE.values()) for name in names}
    every = {name for d in Destination for name in (*forward(d), *back(d))}
    assert every == cells | {SETTLE.name}
    assert len(every) > 20


def start(stage: Stage, destination: Destination) -> tuple[Scene, dict[str, Any]]:
    """A scene with a worker, and the request."""
    made = world(2 * MIB, MIB, target={"power": "on"})
    if destination is Destination.RECOVERED:
        disks = [{"size_bytes": size, "seed": 40 + n} for n, size in enumerate((2 * MIB, MIB))]
        made["sites"][0]["vms"].append({"name": RESTORED[1], "power": "off", "disks": disks})
    scene = stage(made, worker=QUICK)
    request: dict[str, Any] = {"destination": destination, "accept_target_overwrite": True}
    if destination is Destination.RECOVERED:
        request["recovered"] = ":".join(RESTORED)
    if destination is Destination.NEW:
        request["new_vm"] = {"name": NEW[1]}
    return scene, request


def commits(stage: Stage, destination: Destination, steps: list[StepName], when: Moment) -> None:
    """Kill once in each of these steps on the way to the decision; then commit."""
    scene, request = start(stage, destination)
    killer = Killer(scene, order=forward(destination))
    scene.stack.worker()
    assert scene.start(**request).accepted
    killer.kill_at(steps, when)
    killer.decided()
    print(printed(killer.cells))

    status = scene.commit()

    assert status.outcome is Outcome.COMMITTED and status.operator is None
    if destination is Destination.ORIGINAL:
        scene.committed(status)
        # Nothing was asked for twice: what had been done was found again.
        assert (scene.calls(SOURCE, SNAPSHOT), scene.calls(REPLICA, SNAPSHOT)) == (1, 2)
        # Once when the lab began, because the target ran, and once by the run.
        assert len(scene.events(SOURCE, "power-on")) == 2
        return
    target = NEW if destination is Destination.NEW else RESTORED
    same_content(scene, target)
    assert scene.vm(target)["snapshots"] == []
    assert scene.detail().replica.source.name == target[1]
    assert [s["name"] for s in scene.vm(REPLICA)["snapshots"]] == [
        f"failback/{status.run_id}/protective"
    ]
    assert scene.claims() == ()


def undoes(stage: Stage, destination: Destination, steps: list[StepName], when: Moment) -> None:
    """Kill once in each of these compensations."""
    scene, request = start(stage, destination)
    restored = digests(scene, RESTORED) if destination is Destination.RECOVERED else []
    killer = Killer(scene, order=back(destination))
    scene.stack.worker()
    assert scene.start(**request).accepted
    killer.decided()
    assert scene.ask_undo().accepted
    killer.kill_at(steps, when)
    print(printed(killer.cells))

    status = scene.ended(60)

    assert status.outcome is Outcome.UNDONE and status.operator is None
    assert scene.target_digests() == scene.digests
    # Whatever ran in place of the replica stays off: it was overwritten, or replaced.
    scene.before["web01"]["power"] = "poweredOff"
    assert scene.vms() == scene.before
    assert scene.claims() == () and scene.detail().restore_points == ()
    if destination is Destination.RECOVERED:
        assert digests(scene, RESTORED) == restored
    if destination is Destination.NEW:
        assert not there(scene, NEW) and not there(scene, TEMPORARY)


CHAINS = {
    "original-1": (Destination.ORIGINAL, forward(Destination.ORIGINAL)[:7]),
    "original-2": (Destination.ORIGINAL, forward(Destination.ORIGINAL)[7:]),
    "recovered": (Destination.RECOVERED, ONLY_THERE[Destination.RECOVERED]),
    "new": (Destination.NEW, ONLY_THERE[Destination.NEW]),
}
BACK_CHAINS = {
    "original": (Destination.ORIGINAL, BACK_THERE[Destination.ORIGINAL]),
    "recovered": (Destination.RECOVERED, BACK_THERE[Destination.RECOVERED]),
    "new": (Destination.NEW, BACK_THERE[Destination.NEW]),
}


MOMENTS = pytest.mark.parametrize("when", list(Moment), ids=lambda when: when.name.lower())


@MOMENTS
@pytest.mark.parametrize("chain", CHAINS)
def test_killed_on_the_way_it_commits(stage: Stage, chain: str, when: Moment) -> None:
    commits(stage, *CHAINS[chain], when)


@MOMENTS
@pytest.mark.parametrize("chain", BACK_CHAINS)
def test_killed_on_the_way_back_it_undoes(stage: Stage, chain: str, when: Moment) -> None:
    undoes(stage, *BACK_CHAINS[chain], when)


@pytest.mark.soak
@MOMENTS
@pytest.mark.parametrize("destination", list(Destination))
def test_every_cell_on_the_way_to_a_commit(
    stage: Stage, destination: Destination, when: Moment
) -> None:
    commits(stage, destination, forward(destination), when)


@pytest.mark.soak
@MOMENTS
@pytest.mark.parametrize("destination", list(Destination))
def test_every_cell_on_the_way_back(stage: Stage, destination: Destination, when: Moment) -> None:
    undoes(stage, destination, back(destination), when)
