"""The plan that people see: every step of every destination, with bytes and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from failback.contracts.plan import Carry, RunPlan
from failback.contracts.policies import SwitchPolicy
from failback.contracts.preview import DiskForecast, PlannedStep
from failback.contracts.start import StartRequest
from failback.contracts.words import Destination, PowerState, StepName
from tests.unit.workflows.fake_runtime import PLAN
from workflows.planned import Forecast, downtime, duration, over_budget, planned_steps, remarks
from workflows.steps import LISTS

GIB = 1 << 30
DISKS = (
    DiskForecast(
        address="scsi0:0", capacity_bytes=10 * GIB, examined_bytes=10 * GIB, expected_bytes=2 * GIB
    ),
)


def steps(plan: RunPlan = PLAN, **request: Any) -> dict[StepName, PlannedStep]:
    asked = StartRequest.model_validate({"replica": "web01", **request})
    return {step.name: step for step in planned_steps(asked, plan, DISKS)}


@pytest.mark.parametrize("destination", Destination)
def test_every_step_of_a_list_is_there_once_and_says_something(destination: Destination) -> None:
    found = steps(destination=destination)

    names = [step.name for step in LISTS[destination] if not step.optional]
    assert [name for name in found if name in names] == names
    assert next(iter(found)) is StepName.PREFLIGHT
    assert list(found)[-2:] == [StepName.AWAIT_DECISION, StepName.COMMIT]
    assert all(step.what for step in found.values())


def test_what_is_carried_over_is_a_step_only_where_there_is_something() -> None:
    carry = Carry(cpus=4, memory_mb=8, cpus_before=2, memory_mb_before=8)
    row = steps(PLAN.model_copy(update={"carry": carry}))[StepName.CARRY_OVER]

    assert row.what == "4 CPUs, 8 MB of memory" and row.on_undo and not row.downtime
    assert StepName.CARRY_OVER not in steps()


def test_downtime_is_what_happens_between_the_two_powers() -> None:
    found = steps()
    down = [name for name, step in found.items() if step.downtime]

    assert down[0] is StepName.POWER_OFF_REPLICA
    assert down[-1] is StepName.POWER_ON_TARGET
    whole = tuple(found.values())
    assert timedelta(seconds=30) < downtime(whole) < duration(whole)


def test_without_tools_the_last_pass_compares_everything() -> None:
    hard = PLAN.model_copy(update={"replica_tools": False, "replica_power": PowerState.ON})
    request = StartRequest(replica="web01")

    assert steps(hard)[StepName.TRANSPORT_CHANGES_2].bytes == 10 * GIB
    assert (steps()[StepName.TRANSPORT_CHANGES_2].bytes or 0) < GIB
    assert any("cannot be relied on" in text for text in Forecast(request, hard, DISKS).rests_on())


def test_the_gate_is_shown_where_the_run_waits() -> None:
    at = datetime(2026, 12, 1, 22, tzinfo=UTC)

    assert StepName.READY_TO_SWITCH not in steps()
    assert "switch-over web01" in steps(switch="manual")[StepName.READY_TO_SWITCH].what
    due = steps(switch={"mode": "scheduled", "at": at})[StepName.READY_TO_SWITCH]
    assert "2026-12-01 22:00 UTC" in due.what


def test_what_is_not_done_is_marked_and_has_no_undo() -> None:
    step = steps(power_on_target=False)[StepName.POWER_ON_TARGET]

    assert step.skipped and not step.downtime
    assert (step.bytes, step.seconds, step.on_undo) == (None, 0.0, "")


def test_undo_without_a_snapshot_is_said_plainly() -> None:
    bare = StartRequest(replica="web01", protect_target=False)

    assert any("cannot give the target VM" in text for text in remarks(bare, PLAN))
    assert "no snapshot" in steps(protect_target=False)[StepName.PROTECT_TARGET].on_undo
    usual = " ".join(remarks(StartRequest(replica="web01"), PLAN))
    assert "hooks" in usual and "isolated network" in usual
    assert "cannot give the target VM" not in usual


@pytest.mark.parametrize(("budget_s", "codes"), [(1, ["DOWNTIME_OVER_BUDGET"]), (900, [])])
def test_a_budget_that_will_not_be_kept_is_said(budget_s: int, codes: list[str]) -> None:
    budget = timedelta(seconds=budget_s)
    request = StartRequest(replica="web01", switch=SwitchPolicy(downtime_budget=budget))

    found = over_budget(request, downtime(planned_steps(request, PLAN, DISKS)))
    assert [finding.code for finding in found] == codes
