"""The step engine without Temporal: order, undo, pause, operator, probes."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from failback.contracts.operations import (
    CarryOverResult,
    PowerOffResult,
    PreflightResult,
    ProbeResult,
    StayedOff,
)
from failback.contracts.plan import Carry
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.vm import DiskAddress, VmIdentity
from failback.contracts.words import (
    GuestTimeoutPolicy,
    Phase,
    PowerOffWay,
    PowerState,
    RequestKind,
    StepName,
)
from tests.unit.workflows.fake_runtime import PLAN, disks, make
from workflows import requests
from workflows.engine import Engine, OperationError, Run, UndoAsked
from workflows.steps import COMMIT, ORIGINAL, PREFLIGHT

FORWARD = [
    "preflight",
    "power_off",
    "protect_target",
    "snapshot_replica",
    "calculate_difference",
    "transport_changes",
    "transport_changes",
    "remove_snapshot",
    "check_drift",
    "power_off",
    "snapshot_replica",
    "calculate_difference",
    "transport_changes",
    "transport_changes",
    "verify",
    "verify",
    "set_replica_state",
    "power_on",
]


async def go_forward(engine: Engine) -> None:
    await engine.step(PREFLIGHT)
    await engine.forward(ORIGINAL)


def ask(run: Run, kind: RequestKind, body: Any = None) -> bool:
    return requests.admit(run, kind, (body,), datetime(2026, 1, 1, tzinfo=UTC)).accepted


async def test_a_failback_walks_the_list_in_order() -> None:
    engine, run, runtime = make()

    await go_forward(engine)
    await engine.step(COMMIT)

    assert runtime.names() == [*FORWARD, "close_run"]
    assert all(row.finished_at is not None and row.attempts == 1 for row in run.steps)


async def test_pass_2_starts_from_the_change_ids_of_pass_1_and_writes_the_leaf() -> None:
    engine, _, runtime = make()

    await go_forward(engine)

    second = [a for name, a in runtime.issued if name == "calculate_difference"][1]
    assert [disk.base_change_id for disk in second.disks] == ["52 de/read-1", "52 de/read-1"]
    assert all(disk.source.snapshot == "snapshot-protective" for disk in second.disks)
    assert all("-000001" in disk.target.file for disk in second.disks)
    assert (second.guard.snapshot, second.guard.power_mark) == ("snapshot-1", "p1")
    moved = [a for name, a in runtime.issued if name == "transport_changes"]
    assert [a.source.snapshot for a in moved] == ["snapshot-read-1"] * 2 + [
        "snapshot-protective"
    ] * 2


async def test_undo_after_the_switch_gives_service_back_before_it_restores_the_target() -> None:
    engine, run, runtime = make()
    await go_forward(engine)
    done = len(runtime.issued)

    assert ask(run, RequestKind.UNDO) is True
    await engine.undo()

    assert runtime.names()[done:] == [
        "settle",
        "power_off",
        "set_replica_state",
        "restore_replica",
        "power_on",
        "remove_snapshot",
        "restore_target",
        "close_run",
    ]
    power_on = next(a for name, a in runtime.issued[done:] if name == "power_on")
    assert power_on.vm.site == "dr" and power_on.must_be_off[0].site == "production"


USUAL = tuple(step for step in ORIGINAL if not step.optional)


@pytest.mark.parametrize("last", range(1, len(USUAL) + 1))
async def test_undo_from_every_step_compensates_exactly_what_was_reached(last: int) -> None:
    name = USUAL[last - 1].name
    engine, run, runtime = make()
    original = runtime.publish

    def undo_when_started() -> None:
        original()
        if run.steps and run.steps[-1].name is name and not run.undo_asked:
            assert ask(run, RequestKind.UNDO)

    runtime.publish = undo_when_started  # type: ignore[method-assign]

    with pytest.raises(UndoAsked):
        await go_forward(engine)
    await engine.undo()

    reached = [step.name for step in (PREFLIGHT, *USUAL[:last])]
    expected = [s.undo.name for s in reversed((PREFLIGHT, *USUAL[:last])) if s.undo]
    rows = [row.name for row in run.steps]
    assert rows == [*reached, StepName.SETTLE, *expected]


async def test_what_is_carried_over_is_taken_back_before_the_target_is_reverted() -> None:
    carry = Carry(cpus=4, memory_mb=8, cpus_before=2, memory_mb_before=8)
    planned = PreflightResult(plan=PLAN.model_copy(update={"carry": carry}))
    engine, run, runtime = make(preflight=lambda argument, count: planned)

    await go_forward(engine)
    assert runtime.names().index("carry_over") == runtime.names().index("protect_target") + 1
    await engine.undo()

    given = [argument for name, argument in runtime.issued if name == "carry_over"]
    assert [one.back for one in given] == [False, True]
    assert given[1].reverted_next
    rows = [row.name for row in run.steps]
    assert rows.index(StepName.UNDO_CARRY_OVER) < rows.index(StepName.UNDO_PROTECT_TARGET)


async def test_a_disk_that_was_carried_over_is_written_and_verified_like_the_others() -> None:
    carry = Carry(cpus=2, memory_mb=8, cpus_before=2, memory_mb_before=8)
    address = DiskAddress(controller="scsi", bus=0, unit=1)
    first, second = PLAN.pairs
    planned = PLAN.model_copy(update={"carry": carry, "pairs": (first,)})
    carried = CarryOverResult(disks=disks("production", "-000001"), pairs=(second,))
    engine, run, runtime = make(
        preflight=lambda argument, count: PreflightResult(plan=planned),
        carry_over=lambda argument, count: carried,
    )

    await go_forward(engine)

    assert second.address == address
    assert run.facts.known.pairs == PLAN.pairs
    assert [name for name in runtime.names() if name == "verify"] == ["verify"] * 2
    moved = [a.target.disk_key for name, a in runtime.issued if name == "transport_changes"]
    assert moved == [pair.target_key for pair in PLAN.pairs] * 2


async def test_pause_stops_the_transport_and_resume_issues_it_again() -> None:
    def transport(argument: Any, count: int) -> None:
        if count == 0:
            assert ask(run, RequestKind.PAUSE)

    engine, run, runtime = make(transport_changes=transport)
    runtime.on_wait = lambda: ask(run, RequestKind.RESUME) if run.paused else None

    await go_forward(engine)

    assert runtime.names().count("transport_changes") > 4
    row = next(row for row in run.steps if row.name is StepName.TRANSPORT_CHANGES)
    assert row.attempts == 2 and row.finished_at is not None


async def test_trouble_waits_for_a_person_and_retry_goes_on() -> None:
    phases = []

    def power_off(argument: Any, count: int) -> Exception | None:
        return OperationError("PrivilegeMissing", "No privilege.") if count == 0 else None

    engine, run, runtime = make(power_off=power_off)

    def answer() -> None:
        phases.append(run.phase)
        assert run.operator is not None and run.operator.code == "PrivilegeMissing"
        assert run.operator.may == (RequestKind.RETRY, RequestKind.UNDO)
        assert ask(run, RequestKind.COMMIT) is False
        assert ask(run, RequestKind.RETRY) is True

    runtime.on_wait = answer

    await go_forward(engine)

    assert phases == [Phase.NEEDS_OPERATOR]
    assert run.operator is None


async def test_undo_answers_trouble() -> None:
    engine, run, runtime = make(protect_target=lambda a, n: OperationError("DiskFull", "Full."))
    runtime.on_wait = lambda: ask(run, RequestKind.UNDO)

    with pytest.raises(UndoAsked):
        await go_forward(engine)
    runtime.on_wait = None
    await engine.undo()

    assert runtime.names()[-3:] == ["settle", "restore_target", "close_run"]


async def test_an_unreachable_site_is_probed_and_the_run_goes_on_by_itself() -> None:
    def protect(argument: Any, count: int) -> Exception | None:
        if count == 0:
            return OperationError("SiteUnreachable", "No answer.", unreachable=True)
        return None

    engine, run, runtime = make(protect_target=protect)

    await go_forward(engine)

    assert "probe" in runtime.names()
    assert run.operator is None and runtime.names().count("protect_target") == 2


@pytest.mark.parametrize(
    ("code", "asked"),
    [("SiteUnreachable", ()), ("VmDisconnected", (PLAN.replica, PLAN.target))],
)
async def test_a_host_that_is_away_is_asked_for_by_its_vms(
    code: str, asked: tuple[VmIdentity, ...]
) -> None:
    """Its site answers all the while: going on at that would fail again, time after time."""

    def protect(argument: Any, count: int) -> Exception | None:
        return OperationError(code, "No answer.", unreachable=True) if count == 0 else None

    def probe(argument: Any, count: int) -> ProbeResult:
        return ProbeResult(reachable=count > 0)

    engine, _, runtime = make(protect_target=protect, probe=probe)

    await go_forward(engine)

    probes = [argument for name, argument in runtime.issued if name == "probe"]
    assert [one.power_known for one in probes] == [asked] * 2
    assert runtime.names().count("protect_target") == 2


async def test_without_auto_retry_an_unreachable_site_waits_for_a_person() -> None:
    def protect(argument: Any, count: int) -> Exception | None:
        if count == 0:
            return OperationError("SiteUnreachable", "No answer.", unreachable=True)
        return None

    engine, run, runtime = make(
        StartRequest(replica="web01", auto_retry=False), protect_target=protect
    )
    runtime.on_wait = lambda: ask(run, RequestKind.RETRY)

    await go_forward(engine)

    assert "probe" not in runtime.names()


async def test_trouble_while_undoing_is_answered_by_undo_with_a_choice() -> None:
    def restore(argument: Any, count: int) -> Exception | None:
        if argument.content == "keep":
            return None
        return OperationError("ReplicaUsed", "Somebody used it.")

    engine, run, runtime = make(restore_replica=restore)
    await go_forward(engine)
    assert ask(run, RequestKind.UNDO)
    runtime.on_wait = lambda: ask(run, RequestKind.UNDO, {"replica_content": "keep"})

    await engine.undo()

    assert runtime.names().count("restore_replica") == 2
    assert runtime.names()[-1] == "close_run"


async def test_a_guest_that_does_not_shut_down_starts_an_undo_when_that_is_the_policy() -> None:
    def power_off(argument: Any, count: int) -> Exception | None:
        if argument.vm.site == "dr":
            return OperationError("GuestShutdownTimeout", "Too slow.")
        return None

    request = StartRequest(replica="web01", on_guest_timeout=GuestTimeoutPolicy.UNDO)
    engine, run, runtime = make(request, power_off=power_off)

    with pytest.raises(UndoAsked):
        await go_forward(engine)
    await engine.undo()

    assert run.undo_asked and runtime.names()[-1] == "close_run"
    assert run.facts.undo.reason == "Too slow."
    assert "policy for GuestShutdownTimeout" in run.alarms[0]


async def test_one_failing_disk_stops_the_other_and_both_are_tried_again() -> None:
    def transport(argument: Any, count: int) -> Exception | None:
        if argument.plan.address == "scsi0:0" and count < 2:
            return OperationError("DiskFull", "No room.")
        return None

    engine, run, runtime = make(transport_changes=transport)
    runtime.on_wait = lambda: ask(run, RequestKind.RETRY)

    await go_forward(engine)

    assert [row.finished_at is not None for row in run.steps].count(False) == 0


async def test_undo_without_powering_the_replica_on() -> None:
    engine, run, runtime = make()
    await go_forward(engine)
    done = len(runtime.issued)

    assert ask(run, RequestKind.UNDO, Request(power_on_replica=False).model_dump())
    await engine.undo()

    assert "power_on" not in runtime.names()[done:]


def test_garbage_is_recorded_and_changes_nothing() -> None:
    _, run, _ = make()
    run.phase = Phase.AWAITING_DECISION
    at = datetime(2026, 1, 1, tzinfo=UTC)

    for raw in ("garbage", 7, ["x"], {"by": {"a": 1}}, {"attest_off": "x"}):
        assert requests.admit(run, RequestKind.COMMIT, (raw,), at).accepted is False

    assert run.commit_asked is False and len(run.answers) == 5
    assert all("not understood" in answer.message for answer in run.answers)


def test_a_repeated_request_id_answers_like_the_first_time() -> None:
    _, run, _ = make()
    run.phase = Phase.AWAITING_DECISION

    assert ask(run, RequestKind.COMMIT, {"request_id": "r1"}) is True
    run.phase = Phase.COMMITTING
    assert ask(run, RequestKind.COMMIT, {"request_id": "r1"}) is True
    assert ask(run, RequestKind.COMMIT, {"request_id": "r2"}) is False
    assert len(run.answers) == 2


def test_cancellation_is_an_undo_before_the_target_runs_and_is_rejected_after() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    _, run, _ = make()
    run.phase = Phase.SYNCING
    requests.cancelled(run, at)
    assert run.undo_asked and run.answers[-1].accepted


async def test_cancellation_after_the_target_was_powered_on_is_rejected() -> None:
    engine, run, _ = make()
    await go_forward(engine)
    run.phase = Phase.AWAITING_DECISION

    requests.cancelled(run, datetime(2026, 1, 1, tzinfo=UTC))

    assert run.undo_asked is False
    assert "writes would be lost" in run.answers[-1].message


async def test_power_marks_go_from_the_power_off_to_protection_and_from_there_to_step_13() -> None:
    """Each is read before what it vouches for: a power-on in between moves it."""

    def off(argument: Any, number: int) -> PowerOffResult:
        mark = f"off {argument.vm.name}"
        was, way = PowerState.ON, PowerOffWay.GUEST_SHUTDOWN
        return PowerOffResult(
            was=was, way=way, at=datetime(2026, 1, 1, tzinfo=UTC), power_mark=mark
        )

    engine, run, runtime = make(power_off=off)
    await go_forward(engine)

    issued = dict(runtime.issued)
    assert issued["protect_target"].power_mark == "off web01"
    assert issued["snapshot_replica"].power_mark == "off web01-replica"
    assert issued["power_on"].unused == StayedOff(vm=run.facts.known.replica, power_mark="r1")


@pytest.mark.parametrize(
    ("policy", "power_on", "forced"),
    [
        (GuestTimeoutPolicy.FORCE, None, True),
        (GuestTimeoutPolicy.FORCE, False, False),
        (GuestTimeoutPolicy.STOP, None, False),
        (GuestTimeoutPolicy.UNDO, True, False),
    ],
)
async def test_undo_forces_a_guest_only_where_people_let_it_and_it_is_powered_on_next(
    policy: GuestTimeoutPolicy, power_on: bool | None, forced: bool
) -> None:
    engine, run, runtime = make(StartRequest(replica="web01", on_guest_timeout=policy))
    await engine.step(PREFLIGHT)
    run.merge_undo(Request(power_on_replica=power_on))
    await engine.undo()

    (settle,) = [argument for name, argument in runtime.issued if name == "settle"]
    assert settle.may_force == ((run.facts.known.replica,) if forced else ())
    assert settle.guest_timeout == run.facts.request.guest_timeout


async def test_cancellation_is_rejected_where_the_power_on_was_left_to_people() -> None:
    """Somebody may have powered the target on by hand, and nobody would ask before it is undone."""
    engine, run, _ = make(StartRequest(replica="web01", power_on_target=False))
    await go_forward(engine)
    run.phase = Phase.AWAITING_DECISION

    requests.cancelled(run, datetime(2026, 1, 1, tzinfo=UTC))

    assert run.undo_asked is False
    assert "by hand" in run.answers[-1].message


@pytest.mark.parametrize("module", ["engine", "steps", "state", "facts", "operations", "requests"])
def test_the_core_loads_without_temporal_and_without_heavy_libraries(module: str) -> None:
    code = (
        f"import sys, workflows.{module}\n"
        "heavy = {'temporalio','sqlmodel','sqlalchemy','pyVmomi','blake3'} & set(sys.modules)\n"
        "print(sorted(heavy)); sys.exit(bool(heavy))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout
