"""What a person declares to be off: which VM is meant, how long it counts, what disproves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from failback.contracts import operations as ops
from failback.contracts.operations import RunRef
from failback.contracts.plan import RunPlan
from failback.contracts.remains import Remains
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.words import Outcome, Phase, PowerOffWay, PowerState, RequestKind
from tests.unit.workflows.fake_runtime import PLAN, REPLICA, TARGET, vm
from tests.unit.workflows.virtual_runtime import World, world
from workflows.attesting import declare, disprove, problem
from workflows.engine import OperationError
from workflows.facts import Facts
from workflows.rebuild import carried
from workflows.requests import admit

MINUTE = timedelta(minutes=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNED = {"by": "ann", "reason": "It burnt."}
DARK = OperationError("SiteUnreachable", "It does not answer.")


def facts(**plan: Any) -> Facts:
    made: RunPlan = PLAN.model_copy(update=plan)
    return Facts(
        run=RunRef(run_id="r", replica="web01"), request=StartRequest(replica="web01")
    ).model_copy(update={"plan": made})


NEW = {
    "target": TARGET.model_copy(update={"name": "web01 (failback in progress)"}),
    "final_name": "web01",
    "old_source": vm("production", "vm-2", "web01-old"),
    "old_source_there": True,
}


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("web01-replica", "dr:vm-7"),
        ("dr:web01-replica", "dr:vm-7"),
        ("vm-7", "dr:vm-7"),
        ("dr:vm-7", "dr:vm-7"),
        ("web01 (failback in progress)", "production:vm-3"),
        ("web01", "production:vm-3"),
        ("production:web01", "production:vm-3"),
        ("web01-old", "production:vm-2"),
    ],
)
def test_a_vm_may_be_named_in_every_way_that_fits_only_it(name: str, means: str) -> None:
    made = facts(**NEW)

    assert problem(made, Request(attest_off=(name,))) is None
    assert declare(declare(made, (name,)), (means,)).attested_off == (means,)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vm-9", "is no VM of this run"),
        ("dr:vm-3", "is no VM of this run"),
        ("web01", "fits 2 VMs of this run"),
        ("production:web01", "fits 2 VMs of this run"),
        ("vm-3", "fits 2 VMs of this run"),
    ],
)
def test_a_name_that_does_not_say_which_vm_is_refused_with_those_that_do(
    name: str, why: str
) -> None:
    """A new VM takes the name of the old source; morefs repeat between sites."""
    old = {"old_source": vm("production", "vm-2", "web01")}
    said = problem(
        facts(**{**NEW, **old, "replica": vm("far", "vm-3", "web01-r")}),
        Request(attest_off=(name,)),
    )

    assert said is not None and f"{name!r} {why}" in said
    assert "far:vm-3 (web01-r), production:vm-3 (web01 (failback in progress)), " in said
    assert "production:vm-2 (web01)" in said


def test_before_there_is_a_plan_no_vm_can_be_named() -> None:
    made = world()

    answer = made.ask(RequestKind.UNDO, attest_off=["\U000e0001" * 255], **SIGNED)

    assert not answer.accepted and "none before its plan is made" in answer.message


def test_a_request_that_was_accepted_under_earlier_code_is_accepted_in_its_replay() -> None:
    made = world()
    made.run.phase, made.run.facts = Phase.SYNCING, facts()

    answer = admit(
        made.run, RequestKind.UNDO, ({"attest_off": ["x"], **SIGNED},), NOW, lambda name: False
    )

    assert answer.accepted and made.run.facts.attested_off == ("x",)


def test_what_was_carried_by_a_bare_name_is_disproved_by_the_reference() -> None:
    old = facts().model_copy(update={"attested_off": ("web01-replica", "web01")})

    assert disprove(old, REPLICA.ref).attested_off == ("production:vm-3",)


def dark_until_attested(argument: Any, number: int) -> Any:
    return None if REPLICA.ref in argument.attest_off else DARK


def attests(made: World) -> None:
    assert made.ask(RequestKind.RETRY, attest_off=["web01-replica"], **SIGNED).accepted


async def test_what_was_declared_to_power_production_on_does_not_hold_at_the_commit() -> None:
    """The commit asks anew, and takes the answer in NEEDS_OPERATOR."""
    made = world()
    made.runtime.script |= {"power_on": dark_until_attested, "close_run": dark_until_attested}
    seen: list[tuple[Phase, tuple[str, ...]]] = []

    def look() -> None:
        seen.append((made.run.phase, made.run.facts.attested_off))

    made.runtime.after(MINUTE, lambda: attests(made))
    made.runtime.after(2 * MINUTE, look)
    made.runtime.after(3 * MINUTE, lambda: made.ask(RequestKind.COMMIT))
    made.runtime.after(4 * MINUTE, look)
    made.runtime.after(5 * MINUTE, lambda: attests(made))

    assert await made.live() is Outcome.COMMITTED
    assert seen == [(Phase.AWAITING_DECISION, ()), (Phase.NEEDS_OPERATOR, ())]


async def test_what_is_declared_with_an_undo_holds_until_its_end() -> None:
    made = world()
    made.runtime.script["settle"] = lambda a, n: None if a.attest_off else DARK
    made.runtime.after(MINUTE, lambda: made.ask(RequestKind.UNDO))
    made.runtime.after(
        2 * MINUTE, lambda: made.ask(RequestKind.UNDO, attest_off=["vm-3"], **SIGNED)
    )
    made.runtime.script["power_off"] = lambda a, n: (
        ops.PowerOffResult(was=PowerState.UNKNOWN, way=PowerOffWay.ATTESTED, at=NOW) if n else None
    )

    assert await made.live() is Outcome.UNDONE
    names = ("power_on", "close_run")
    last = {name: argument for name, argument in made.runtime.issued if name in names}
    assert [last[name].attest_off for name in names] == [(TARGET.ref,)] * 2


@pytest.mark.parametrize("disproof", ["another step", "its own power-off"])
async def test_what_a_site_says_ends_what_a_person_said(disproof: str) -> None:
    """Its site goes away again: a declaration that was wrong before is not believed now."""
    made = world()
    seen: list[tuple[str, ...]] = []
    runs = OperationError("SplitBrain", "It is on.", runs=TARGET.ref)
    if disproof == "another step":
        made.runtime.script["restore_replica"] = lambda a, n: runs if n == 0 else None
    made.runtime.after(
        MINUTE, lambda: made.ask(RequestKind.UNDO, attest_off=["production:web01"], **SIGNED)
    )

    def power_off(argument: ops.PowerOff, number: int) -> Any:
        if argument.phase is Phase.UNDOING and disproof == "another step":
            return ops.PowerOffResult(was=PowerState.UNKNOWN, way=PowerOffWay.ATTESTED, at=NOW)
        return None

    def power_on(argument: ops.PowerOn, number: int) -> Any:
        seen.append(argument.attest_off)

    made.runtime.script |= {"power_off": power_off, "power_on": power_on}
    made.runtime.after(2 * MINUTE, lambda: made.ask(RequestKind.RETRY))

    assert await made.live() is Outcome.UNDONE
    assert seen[-1] == ()


def test_reconcile_keeps_what_is_declared_by_reference() -> None:
    remains = Remains(replica="web01", run_id="r", plan=PLAN)

    made = carried(remains, Phase.UNDOING, Request(attest_off=("web01",)), NOW)

    assert made.facts.attested_off == (TARGET.ref,)
