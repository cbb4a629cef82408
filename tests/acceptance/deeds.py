"""What each step does to the world, as it is seen from outside: the crash matrix asserts by it that
an operation had been applied when the worker died, or had not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from failback.contracts.words import Destination, ReplicaState, StepName
from tests.acceptance.scene import REPLICA, SOURCE, Scene
from tests.acceptance.test_places import NEW, RESTORED, TEMPORARY
from workflows import operations as op
from workflows import steps

Place = tuple[str, str]
NVRAM = b"boot entries"
"""Of the replica of a run that makes its target."""


def look(scene: Scene, place: Place) -> dict[str, Any] | None:
    """A VM as the lab sees it; None where there is none."""
    found: dict[str, Any] | None = scene.lab.get("/state")["sites"][place[0]]["vms"].get(place[1])
    return found


def target_of(scene: Scene, destination: Destination) -> Place:
    """Where the target is now: one that a run makes has two names."""
    if destination is Destination.ORIGINAL:
        return SOURCE
    if destination is Destination.RECOVERED:
        return RESTORED
    return NEW if look(scene, NEW) else TEMPORARY


@dataclass(frozen=True)
class Deed:
    """The operation of a step."""

    done: Callable[[Scene], bool] | None = None
    """Whether it is applied; None: the step only reads."""
    method: str = ""
    """The SOAP method by which it is applied (the last one that changes something)."""
    site: str = "production"
    moves: bool = False
    """It writes bytes, bit by bit: it is applied as soon as one segment is in the ledger."""
    one_transaction: bool = False
    """It is its own record: whoever was killed after it was applied was killed after it all."""


def steps_of(destination: Destination) -> tuple[list[StepName], list[StepName]]:
    """Every step that a run of this destination can take: on its way to the end of the cleanup,
    and back. Derived from the lists that the engine walks."""
    forward = [
        StepName.PREFLIGHT,
        *(step.name for step in steps.before_gate(destination)),
        StepName.READY_TO_SWITCH,
        *(step.name for step in steps.RESYNC),
        *(step.name for step in steps.after_gate(destination)[1:]),
        StepName.COMMIT,
        StepName.CLEAN_TARGET,
    ]
    return forward, [step.name for step in steps.undo_list(forward, destination)]


def operation_of() -> dict[StepName, str]:
    """The activity that performs each step."""
    found = {StepName.CLEAN_TARGET: op.CLEAN_TARGET.name}
    every = (step for one in steps.LISTS.values() for step in one)
    gate = (steps.PREFLIGHT, steps.READY_TO_SWITCH, *steps.RESYNC, *steps.REBASE, steps.COMMIT)
    for step in (*every, *gate, steps.SETTLE):
        found[step.name] = step.operation.name
        if step.undo is not None:
            found[step.undo.name] = step.undo.operation.name
    return found


def deeds(destination: Destination) -> dict[StepName, Deed]:
    """The operations of a destination. A step that is missing here has no cell."""

    def target(scene: Scene) -> dict[str, Any]:
        return look(scene, target_of(scene, destination)) or {}

    def power(place: Place | None, state: str) -> Callable[[Scene], bool]:
        return lambda scene: (
            ((look(scene, place) if place else target(scene)) or {}).get("power")
            == f"powered{state}"
        )

    def snapshots(place: Place | None, purpose: str, *, there: bool) -> Callable[[Scene], bool]:
        def seen(scene: Scene) -> bool:
            vm = (look(scene, place) if place else target(scene)) or {}
            found = [name for name in names(vm.get("snapshots", ())) if purpose in name]
            return bool(found) is there

        return seen

    def state(*wanted: ReplicaState) -> Callable[[Scene], bool]:
        return lambda scene: scene.detail().replica.state in wanted

    def source_is_target(scene: Scene) -> bool:
        return bool(scene.detail().replica.source.moref == target(scene)["moref"])

    def disks(count: int) -> Callable[[Scene], bool]:
        return lambda scene: len(target(scene)["disks"]) == count

    def planned(pass_no: int) -> Callable[[Scene], bool]:
        return lambda scene: ledger(scene, pass_no)[0] > 0

    def moved(pass_no: int) -> Callable[[Scene], bool]:
        return lambda scene: ledger(scene, pass_no)[1] > 0

    def has_nvram(scene: Scene) -> bool:
        return nvram(scene, target_of(scene, destination)) == NVRAM

    def outcome(scene: Scene) -> bool:
        return scene.detail().runs[0].outcome is not None

    def grown(scene: Scene) -> bool:
        (ours, *_), (theirs, *_) = target(scene)["disks"], (look(scene, REPLICA) or {})["disks"]
        large = bool(ours["capacity_bytes"] == theirs["capacity_bytes"])
        return large and snapshots(None, "target", there=True)(scene)

    def unmarked(scene: Scene) -> bool:
        # The first of the attributes that go: the call that is held is its.
        return not target(scene)["custom_values"].get("failback.job")

    def connected(scene: Scene) -> bool:
        return look(scene, NEW) is not None

    name = StepName
    shut_down, remove = "ShutdownGuest", "RemoveSnapshot_Task"
    freeze = Deed(snapshots(REPLICA, "", there=True), "CreateSnapshot_Task", "dr")
    unfreeze = Deed(snapshots(REPLICA, "", there=False), remove, "dr")
    reads = Deed()
    return {
        name.PREFLIGHT: Deed(lambda scene: bool(scene.claims())),
        name.POWER_OFF_SOURCE: Deed(power(SOURCE, "Off"), shut_down),
        name.POWER_OFF_TARGET: Deed(power(None, "Off"), shut_down),
        name.CREATE_TARGET: Deed(lambda scene: bool(target(scene)), "CreateVM_Task"),
        name.PROTECT_TARGET: Deed(snapshots(None, "target", there=True), "CreateSnapshot_Task"),
        name.CARRY_OVER: Deed(disks(3), "ReconfigVM_Task"),
        name.FREEZE_REPLICA: freeze,
        name.CALCULATE_DIFFERENCE: Deed(planned(1)),
        name.TRANSPORT_CHANGES: Deed(moved(1), moves=True),
        name.UNFREEZE_REPLICA: unfreeze,
        name.READY_TO_SWITCH: Deed(state(ReplicaState.READY_TO_SWITCH)),
        name.CHECK_DRIFT: reads,
        name.RESYNC_FREEZE: freeze,
        name.RESYNC_CALCULATE: Deed(planned(2)),
        name.RESYNC_TRANSPORT: Deed(moved(2), moves=True),
        name.RESYNC_UNFREEZE: unfreeze,
        name.REBASE_TARGET: Deed(grown, "CreateSnapshot_Task"),
        name.POWER_OFF_REPLICA: Deed(power(REPLICA, "Off"), shut_down, "dr"),
        name.PROTECT_REPLICA: Deed(
            snapshots(REPLICA, "protective", there=True), "CreateSnapshot_Task", "dr"
        ),
        name.CALCULATE_DIFFERENCE_2: Deed(planned(2)),
        name.TRANSPORT_CHANGES_2: Deed(moved(2), moves=True),
        name.COPY_CONFIGURATION: Deed(has_nvram),
        name.VERIFY: reads,
        name.MARK_FAILBACK: Deed(state(ReplicaState.FAILBACK)),
        name.REPLACE_SOURCE: Deed(source_is_target),
        name.REGISTER_TARGET: Deed(connected, "ReconfigVM_Task"),
        name.POWER_ON_TARGET: Deed(power(None, "On"), "PowerOnVM_Task"),
        name.COMMIT: Deed(outcome, one_transaction=True),
        name.CLEAN_TARGET: Deed(snapshots(None, "target", there=False), remove)
        if destination is not Destination.NEW
        else Deed(unmarked, "SetField"),
        name.SETTLE: reads,
        name.UNDO_POWER_ON_TARGET: Deed(power(None, "Off"), "PowerOffVM_Task"),
        name.UNDO_REGISTER_TARGET: Deed(lambda scene: not connected(scene), "Rename_Task"),
        name.UNDO_REPLACE_SOURCE: Deed(lambda scene: not source_is_target(scene)),
        name.UNDO_MARK_FAILBACK: Deed(state(ReplicaState.FAILOVER)),
        name.UNDO_PROTECT_REPLICA: unfreeze,
        name.UNDO_POWER_OFF_REPLICA: Deed(power(REPLICA, "On"), "PowerOnVM_Task", "dr"),
        name.UNDO_FREEZE_REPLICA: unfreeze,
        name.UNDO_READY_TO_SWITCH: Deed(state(ReplicaState.FAILOVER)),
        name.UNDO_CARRY_OVER: Deed(disks(2), "ReconfigVM_Task"),
        name.UNDO_PROTECT_TARGET: Deed(snapshots(None, "target", there=False), remove),
        name.UNDO_CREATE_TARGET: Deed(lambda scene: not target(scene), "Destroy_Task"),
        name.UNDO_CLOSE: Deed(outcome, one_transaction=True),
    }


def nvram(scene: Scene, place: Place) -> bytes:
    """What is in the NVRAM file beside a VM's first disk."""
    (file,) = scene.files(place)[0].parent.glob("*.nvram")
    return file.read_bytes()


def names(snapshots: Any) -> Iterator[str]:
    """Names in a snapshot tree."""
    for one in snapshots:
        yield one["name"]
        yield from names(one["children"])


def ledger(scene: Scene, pass_no: int) -> tuple[int, int]:
    """Plans and finished segments of a pass."""
    with scene.reading() as database:
        plans, segments = (
            database.execute(
                f"select count(*) from {table} where plan_id like ?", (f"%/{pass_no}",)
            )
            for table in ("ledger_plan", "ledger_segment")
        )
        return int(plans.fetchone()[0]), int(segments.fetchone()[0])
