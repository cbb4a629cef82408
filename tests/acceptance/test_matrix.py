"""The crash matrix: the worker dies at every moment of every step, in both directions.

One run is killed once in each of its steps, so that every step is also gone on with by another
worker than the one that began it. What is checked at the end is bytes, inventory and catalog.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from failback.contracts.requests import Request
from failback.contracts.words import Destination, Outcome, Phase, ReplicaState, StepName
from tests.acceptance.deeds import NVRAM, deeds, nvram, steps_of
from tests.acceptance.killing import Killer, Moment, noted
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage
from tests.acceptance.test_places import (
    NEW,
    RESTORED,
    digests,
    job_of,
    members,
    same_content,
)
from tests.helpers.nursery import Nursery
from tests.helpers.stack import start_nursery
from workflows.steps import REBASE, undo_list

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

ROUNDS = int(os.environ.get("MATRIX_ROUNDS") or 3)
QUICK = {"heartbeat_timeout_s": 2.0}
MANUAL = {"mode": "manual", "resync_interval": "PT1S"}
SNAPSHOT = "CreateSnapshot_Task"
Step = StepName

NO_CELLS = {
    Step.AWAIT_DECISION: "it only watches, and is asked again",
    Step.HOOK: "what a hook does is its own",
    Step.ADJUST: "beside the steps: limits are written again",
    Step.RESTORE_TRACKING: "no list has it",
}
ELSEWHERE = {
    Step.REBASE_TARGET: "test_growth.py",
    Step.REBASE_CARRY_BACK: "the operation of undo_carry_over",
    Step.REBASE_CARRY_OVER: "the operation of carry_over",
}


@dataclass(frozen=True)
class Chain:
    """Steps of one run in which the worker dies, one after the other."""

    destination: Destination
    steps: tuple[StepName, ...]

    @property
    def forward(self) -> bool:
        return self.steps[0] in steps_of(self.destination)[0]

    @property
    def at_the_gate(self) -> bool:
        """Its run waits between the passes, and is undone there if it is undone."""
        return not AT_THE_GATE.isdisjoint(self.steps)

    @property
    def carries(self) -> bool:
        """A disk that was added to the replica comes along."""
        return self.destination is not Destination.NEW

    @property
    def disks(self) -> int:
        return 3 if self.carries else 2


AT_THE_GATE = frozenset(
    {
        Step.READY_TO_SWITCH,
        Step.RESYNC_FREEZE,
        Step.RESYNC_CALCULATE,
        Step.RESYNC_TRANSPORT,
        Step.RESYNC_UNFREEZE,
        Step.UNDO_READY_TO_SWITCH,
        Step.UNDO_FREEZE_REPLICA,
    }
)
"""Steps that have something to do only there: at the decision there is no read snapshot, and the
state is already given back."""


def chains(destination: Destination, only: Sequence[StepName] | None = None) -> dict[str, Chain]:
    """Every cell of a destination, or those of some steps, in few runs."""
    forward, back = (
        [step for step in side if only is None or step in only] for side in steps_of(destination)
    )
    middle = forward.index(Step.RESYNC_UNFREEZE) + 1 if Step.RESYNC_UNFREEZE in forward else 0
    parts = {
        "to-the-gate": forward[:middle],
        "from-the-gate": forward[middle:],
        "undo": [step for step in back if step not in AT_THE_GATE],
        "undo-at-the-gate": [step for step in back if step in AT_THE_GATE],
    }
    return {
        f"{destination}-{name}": Chain(destination, tuple(part))
        for name, part in parts.items()
        if part
    }


DIFFERENT = {
    Destination.ORIGINAL: None,
    Destination.RECOVERED: [
        Step.POWER_OFF_SOURCE,
        Step.REPLACE_SOURCE,
        Step.COMMIT,
        Step.UNDO_REPLACE_SOURCE,
    ],
    Destination.NEW: [
        Step.POWER_OFF_SOURCE,
        Step.CREATE_TARGET,
        Step.COPY_CONFIGURATION,
        Step.REGISTER_TARGET,
        Step.COMMIT,
        Step.CLEAN_TARGET,
        Step.UNDO_REGISTER_TARGET,
        Step.UNDO_CREATE_TARGET,
    ],
}
"""Cells that differ from those of `original`."""
QUICKLY = {k: v for d, only in DIFFERENT.items() for k, v in chains(d, only).items()}
ALL = {k: v for d in Destination for k, v in chains(d).items()}


def cells(some: dict[str, Chain]) -> set[tuple[Destination, StepName]]:
    return {(chain.destination, step) for chain in some.values() for step in chain.steps}


def every(destination: Destination) -> set[StepName]:
    return {step for side in steps_of(destination) for step in side}


def test_every_step_has_its_cells() -> None:
    assert cells(ALL) == {(d, step) for d in Destination for step in every(d)}
    quickly = cells(QUICKLY)
    original = every(Destination.ORIGINAL)
    assert {(Destination.ORIGINAL, step) for step in original} <= quickly
    for destination in Destination:
        assert {(destination, step) for step in every(destination) - original} <= quickly
        assert every(destination) <= set(deeds(destination))
    assert {step.name for step in REBASE} == set(ELSEWHERE)
    walked = {step for d in Destination for step in every(d)}
    # Whoever adds a step says here where it dies, or why it need not.
    assert walked | set(ELSEWHERE) | set(NO_CELLS) == set(StepName)
    assert not walked & (set(NO_CELLS) | set(ELSEWHERE))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where the workers of this file come from."""
    made = start_nursery()
    yield made
    made.close()


# --- what is there ---


def start(stage: Stage, chain: Chain) -> tuple[Scene, dict[str, Any]]:
    """A scene, and the request of a run."""
    sizes = (2 * MIB, MIB)
    made = world(*sizes, target={"power": "on"})
    vms, (replica,) = made["sites"][0]["vms"], made["sites"][1]["vms"]
    request: dict[str, Any] = {
        "destination": chain.destination,
        "accept_target_overwrite": True,
        "switch": MANUAL if chain.at_the_gate else "auto",
    }
    if chain.carries:
        replica["disks"].append({"size_bytes": MIB, "seed": 72})
        request["carry_over"] = ("disks",)
    if chain.destination is Destination.RECOVERED:
        disks = [{"size_bytes": size, "seed": 40 + n} for n, size in enumerate(sizes)]
        vms.append({"name": RESTORED[1], "power": "on", "disks": disks})
        request["recovered"] = ":".join(RESTORED)
    if chain.destination is Destination.NEW:
        request["new_vm"] = {"name": NEW[1]}
    scene = stage(made, worker=QUICK)
    if chain.destination is Destination.NEW:
        beside = scene.files(REPLICA)[0].parent / f"{REPLICA[1]}.nvram"
        beside.write_bytes(NVRAM)
    job_of(scene)
    return scene, request


def everything(scene: Scene) -> dict[tuple[str, str], dict[str, Any]]:
    """Every VM of both sites as far as a run may change it; a stray one is one too many."""
    sites = scene.lab.get("/state")["sites"]
    return {
        (site, name): {
            "power": vm["power"],
            "disks": [(d["key"], d["file"], d["capacity_bytes"]) for d in vm["disks"]],
            "snapshots": vm["snapshots"],
            "tracking": vm["tracking"],
            "marks": {key: value for key, value in vm["custom_values"].items() if value},
            "hardware": (vm["cpus"], vm["memory_mb"]),
            "files": sorted(file for file in vm["files"] if file.endswith((".vmdk", ".nvram"))),
        }
        for site in sites
        for name, vm in sites[site]["vms"].items()
    }


def catalog(
    scene: Scene, outcome: Outcome, state: ReplicaState, stopped: Sequence[StepName] = ()
) -> None:
    """What both ends have in common in the catalog; some steps may have been stopped by an undo."""
    detail = scene.detail()
    assert (detail.replica.state, detail.replica.held_by) == (state, None)
    (run,) = detail.runs
    assert (run.outcome, run.phase) == (outcome, Phase.CLOSED)
    assert run.ended_at is not None and (run.committed_at is None) is (outcome is Outcome.UNDONE)
    assert scene.claims() == ()
    with scene.catalog() as opened:
        assert [one.message for one in opened.alarms(run.run_id)] == []
        # Rows of parts of a step, such as the shutdown of a guest, only say that it was sent.
        steps = [step for step in opened.steps(run.run_id) if "/" not in step.step]
        assert {step.step for step in steps if step.finished_at is None} <= {*stopped}


def committed(scene: Scene, chain: Chain, before: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Production runs with the replica's bytes; everything else is as before."""
    places = {Destination.ORIGINAL: SOURCE, Destination.RECOVERED: RESTORED, Destination.NEW: NEW}
    target, (run,) = places[chain.destination], scene.detail().runs
    same_content(scene, target)
    expected, now = {place: dict(vm) for place, vm in before.items()}, everything(scene)
    key = f"failback/{run.run_id}/protective"
    (kept,) = now[REPLICA]["snapshots"]
    assert (kept["name"], kept["children"], kept["current"]) == (key, [], True)
    # Its tracking is for the replication that begins now.
    for unlike in ("disks", "files"):
        expected[REPLICA][unlike] = now[REPLICA][unlike]
    expected[REPLICA] |= {"power": "poweredOff", "snapshots": [kept], "tracking": True}
    expected[SOURCE]["power"] = "poweredOff"
    if chain.destination is Destination.NEW:
        made = now[NEW]
        assert [disk[2] for disk in made["disks"]] == [disk[2] for disk in before[SOURCE]["disks"]]
        hardware = before[REPLICA]["hardware"]
        expected[NEW] = made | {"snapshots": [], "marks": {}, "hardware": hardware}
        assert nvram(scene, NEW) == NVRAM
    if chain.carries:
        *_, added = now[target]["disks"]
        assert run.run_id in added[1] and added[2] == MIB
        expected[target]["disks"] = [*before[target]["disks"], added]
        kept_files = {*before[target]["files"], *now[target]["files"]}
        assert all(run.run_id in file for file in kept_files - {*before[target]["files"]})
        expected[target]["files"] = sorted(kept_files)
    expected[target]["power"] = "poweredOn"
    assert now == expected
    if target != SOURCE:
        assert scene.target_digests() == scene.digests
    catalog(scene, Outcome.COMMITTED, ReplicaState.READY)
    detail = scene.detail()
    assert detail.replica.source.moref == scene.vm(target)["moref"]
    assert detail.replica.source.name == target[1]
    (point,) = detail.restore_points
    assert (point.name, point.snapshot, point.kind) == (key, kept["moref"], "protective")
    swapped = ([target[1]], [SOURCE[1]]) if target != SOURCE else ([SOURCE[1]], [])
    assert members(scene) == swapped
    with scene.catalog() as opened:
        assert opened.get_job("nightly").next_run == "full_compare"


def undone(
    scene: Scene,
    chain: Chain,
    before: dict[tuple[str, str], dict[str, Any]],
    restored: list[str],
) -> None:
    """Bytes, inventory and catalog as before; only what ran in place of the replica stays off."""
    expected = {place: dict(vm) for place, vm in before.items()}
    for place in (SOURCE, RESTORED):
        if place in expected:
            expected[place]["power"] = "poweredOff"
    assert everything(scene) == expected
    assert scene.target_digests() == scene.digests
    if restored:
        assert digests(scene, RESTORED) == restored
    stopped = (Step.RESYNC_CALCULATE,) if chain.at_the_gate else ()
    catalog(scene, Outcome.UNDONE, ReplicaState.FAILOVER, stopped)
    detail = scene.detail()
    assert detail.replica.source.moref == scene.vm(SOURCE)["moref"]
    assert detail.restore_points == ()
    assert members(scene) == ([SOURCE[1]], [])
    with scene.catalog() as opened:
        assert opened.get_job("nightly").next_run is None


# --- the runs ---


def killer_of(scene: Scene, chain: Chain, request: pytest.FixtureRequest) -> Killer:
    forward, back = steps_of(chain.destination)
    order = forward if chain.forward else back
    if chain.forward and not chain.at_the_gate:
        order = [step for step in order if step not in AT_THE_GATE]
    if not chain.forward and chain.at_the_gate:
        reached = forward[: forward.index(Step.READY_TO_SWITCH) + 1]
        order = [step.name for step in undo_list(reached, chain.destination)]
    return Killer(scene, chain.destination, order, noted(request), chain.disks)


def dies(
    stage: Stage, nursery: Nursery, chain: Chain, when: Moment, request: pytest.FixtureRequest
) -> None:
    """Kill once in each step of the chain, and see that the run ends as if nothing had been."""
    scene, asked = start(stage, chain)
    scene.stack.nursery = nursery
    before = everything(scene)
    killer = killer_of(scene, chain, request)
    (commits if chain.forward else undoes)(scene, killer, chain, when, asked, before)


def commits(
    scene: Scene,
    killer: Killer,
    chain: Chain,
    when: Moment,
    asked: dict[str, Any],
    before: dict[tuple[str, str], dict[str, Any]],
) -> None:
    """On the way to the decision and the commit."""
    last = (Step.COMMIT, Step.CLEAN_TARGET)
    way = [step for step in chain.steps if step not in last]
    end = [step for step in chain.steps if step in last]
    if way:
        killer.expect(way[0])
    scene.stack.worker()
    scene.begin(**asked)
    killer.kill_at(way, when)
    if chain.at_the_gate:
        answer = scene.wait(scene.client.switch_over(scene.key, Request(by="ann")))
        assert answer.accepted
    killer.decided()
    if end:
        killer.expect(end[0])
        killer.kill_at(end, when)
        # A cleanup beats less often than others: nobody waits for it.
        status = scene.cleaned(90)
    else:
        status = scene.commit()
    assert status.outcome is Outcome.COMMITTED and status.operator is None
    committed(scene, chain, before)
    if chain.destination is Destination.ORIGINAL:
        # Nothing was asked for twice: what had been done was found again.
        assert scene.calls(SOURCE, SNAPSHOT) == 1
        if not chain.at_the_gate:
            assert scene.calls(REPLICA, SNAPSHOT) == 2
        # Once when the lab began, because the target ran, and once by the run.
        assert len(scene.events(SOURCE, "power-on")) == 2
    if chain.destination is Destination.NEW:
        assert scene.calls(NEW, "CreateVM_Task") == 1


def undoes(
    scene: Scene,
    killer: Killer,
    chain: Chain,
    when: Moment,
    asked: dict[str, Any],
    before: dict[tuple[str, str], dict[str, Any]],
) -> None:
    """On the way back: from the decision, or from the gate while a read snapshot is there."""
    restored = digests(scene, RESTORED) if chain.destination is Destination.RECOVERED else []
    first = chain.steps[0]
    if chain.at_the_gate:
        killer.expect(Step.RESYNC_CALCULATE)
    scene.stack.worker()
    assert scene.start(**asked).accepted
    if chain.at_the_gate:
        killer.turn_back_at(Step.RESYNC_CALCULATE, Step.RESYNC_FREEZE, first)
    else:
        killer.decided()
        killer.expect(first)
        if first is not Step.SETTLE:
            assert scene.ask_undo().accepted
    killer.kill_at(chain.steps, when)
    status = scene.ended(90)
    assert status.outcome is Outcome.UNDONE and status.operator is None
    undone(scene, chain, before, restored)


MOMENTS = pytest.mark.parametrize("when", list(Moment), ids=lambda when: when.name.lower())


@MOMENTS
@pytest.mark.parametrize("chain", QUICKLY)
def test_killed_in_every_step_it_ends_as_if_nothing_had_been(
    stage: Stage, nursery: Nursery, chain: str, when: Moment, request: pytest.FixtureRequest
) -> None:
    dies(stage, nursery, QUICKLY[chain], when, request)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(ROUNDS))
@MOMENTS
@pytest.mark.parametrize("chain", ALL)
def test_every_cell(
    stage: Stage,
    nursery: Nursery,
    chain: str,
    when: Moment,
    turn: int,
    request: pytest.FixtureRequest,
) -> None:
    dies(stage, nursery, ALL[chain], when, request)
