"""The replica's disks grow during a run, and a person wants the target to follow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from failback.contracts.operations import PreflightResult
from failback.contracts.plan import Carry
from failback.contracts.words import Outcome, Phase, RequestKind, StepName
from tests.unit.workflows.fake_runtime import PLAN, vm
from tests.unit.workflows.virtual_runtime import World, world
from workflows.engine import OperationError

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def grown_at(look: int) -> Callable[[Any, int], OperationError | None]:
    def check(argument: Any, number: int) -> OperationError | None:
        return OperationError("ReplicaGrown", "A disk has grown.") if number == look else None

    return check


def after_gate(made: World) -> list[str]:
    """What was issued after the first look at both VMs."""
    names = made.runtime.names()
    return names[names.index("check_drift") :]


async def test_the_target_follows_and_a_whole_cycle_comes_before_the_switch() -> None:
    made = world()
    made.runtime.script["check_drift"] = grown_at(0)
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.RETRY, rebase_target=True))
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED

    issued = after_gate(made)
    assert issued[: issued.index("power_off")] == [
        "check_drift",
        "rebase_target",
        "check_drift",
        # The cycle, from its own look on.
        *("check_drift", "snapshot_replica", "calculate_difference"),
        *("transport_changes", "transport_changes", "remove_snapshot"),
        "check_drift",
    ]
    calculated = [a for n, a in made.runtime.issued if n == "calculate_difference"]
    assert [[d.base_change_id for d in a.disks] for a in calculated] == [
        [None, None],
        [None, None],
        ["52 de/read-2", "52 de/read-2"],
    ]
    assert [a.guard.snapshot for a in calculated] == ["snapshot-1", "snapshot-2", "snapshot-2"]
    assert not made.run.facts.rebased


async def test_in_the_gate_the_cycle_that_noticed_it_compares_everything() -> None:
    made = world(switch={"mode": "manual", "resync_interval": "PT10M"})
    made.runtime.script["check_drift"] = grown_at(0)
    made.runtime.after(15 * MINUTE, lambda: made.ask(RequestKind.RETRY, rebase_target=True))
    made.runtime.after(17 * MINUTE, lambda: made.ask(RequestKind.SWITCH_OVER))
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED

    calculated = [a for n, a in made.runtime.issued if n == "calculate_difference"]
    assert [a.pass_no for a in calculated] == [1, 2, 3]
    assert calculated[1].disks[0].base_change_id is None
    assert made.runtime.names().count("rebase_target") == 1


async def test_a_plain_retry_only_looks_again() -> None:
    made = world()
    made.runtime.script["check_drift"] = grown_at(0)
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.RETRY))
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED

    assert "rebase_target" not in made.runtime.names()


async def test_it_is_refused_where_nothing_has_grown() -> None:
    made = world()
    made.runtime.script["protect_target"] = lambda a, n: (
        OperationError("DiskFull", "No room.") if n == 0 else None
    )
    answers: list[Any] = []

    def answer() -> None:
        answers.append(made.ask(RequestKind.RETRY, rebase_target=True))
        answers.append(made.run.phase)
        made.ask(RequestKind.RETRY)

    made.runtime.after(MINUTE, answer)
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.COMMIT))

    assert await made.live() is Outcome.COMMITTED
    assert not answers[0].accepted
    assert "only where a disk of the VM replica has grown" in answers[0].message
    assert answers[1] is Phase.NEEDS_OPERATOR


async def test_what_was_carried_over_goes_before_the_revert_and_comes_again() -> None:
    carry = Carry(cpus=4, memory_mb=8, cpus_before=2, memory_mb_before=8)
    made = world(carry_over=["cpu"])
    made.runtime.script["preflight"] = lambda a, n: PreflightResult(
        plan=PLAN.model_copy(update={"carry": carry})
    )
    made.runtime.script["check_drift"] = grown_at(0)
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.RETRY, rebase_target=True))
    made.runtime.after(HOUR, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE

    assert [(n, a.back) for n, a in made.runtime.issued if n == "carry_over"] == [
        ("carry_over", False),
        ("carry_over", True),
        ("carry_over", False),
        ("carry_over", True),
    ]
    names = made.runtime.names()
    second = [i for i, name in enumerate(names) if name == "carry_over"][1:3]
    assert second[0] < names.index("rebase_target") < second[1]


async def test_an_undo_in_the_middle_knows_the_snapshot_that_was() -> None:
    made = world()
    made.runtime.script["check_drift"] = grown_at(0)
    made.runtime.script["rebase_target"] = lambda a, n: OperationError("OperationFailed", "No.")
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.RETRY, rebase_target=True))
    made.runtime.after(2 * MINUTE, lambda: made.ask(RequestKind.UNDO))

    assert await made.live() is Outcome.UNDONE

    (restored,) = (a for n, a in made.runtime.issued if n == "restore_target")
    assert restored.snapshot == "snapshot-1"
    rows = {row.name: row for row in made.run.steps}
    assert rows[StepName.REBASE_TARGET].finished_at is None
    assert restored.target == vm("production", "vm-3", "web01")
