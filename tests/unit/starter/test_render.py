"""What people see of a run: on a terminal, and as lines in a log."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from rich.console import Console, RenderableType

from failback.contracts.operations import SnapshotLook, WatchProgress
from failback.contracts.plan import Finding
from failback.contracts.requests import Answer
from failback.contracts.status import (
    FinalizeStatus,
    GateStatus,
    HookStatus,
    Prediction,
    StepStatus,
)
from failback.contracts.words import (
    FinalizeMode,
    Outcome,
    Phase,
    RequestKind,
    Severity,
    StepName,
    SwitchMode,
)
from starter import render
from starter.changes import changes
from starter.disks import disk_lines
from starter.views import LiveActivity, RunSummary, RunView
from tests.unit.starter.doubles import (
    DONE,
    LOSS,
    NOW,
    PLAN,
    ago,
    awaiting,
    closed,
    live,
    standing,
    view,
)

WATCHED = LiveActivity(
    activity="watch_decision",
    watched=WatchProgress(
        since=ago(60),
        snapshots=(
            SnapshotLook(
                vm="web01 (production:vm-1)",
                name="failback/run/target",
                created_at=ago(7200),
                stored_bytes=3 * 2**30,
                grown_bytes=2**20,
                free_bytes=40 * 2**30,
            ),
        ),
    ),
)
TRANSPORTING = view(
    differences=(PLAN,),
    live=(live(0.5, resumed_bytes=2**30, eta_s=42.0, rate_bytes_per_s=200 * 2**20),),
)


def text(renderable: RenderableType, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, highlight=False).print(renderable)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (view(), ["Failback of web01: SYNCING", "VM replica FAILOVER, to original"]),
        (view(), ["✓  Check everything, claim the VMs", "11:58:00", "2.0 s"]),
        (view(), ["▸  Transport the changes, pass 1 (attempt 2)", "1 min 58 s"]),
        (view(paused=True), ["SYNCING (paused)", "failback resume web01", "go on"]),
        (TRANSPORTING, ["scsi0:0", "pass 1", "compare", "50%", "200 MiB/s, 42 s left"]),
        (TRANSPORTING, ["examined 10.0/20.0 GiB, different 1.00 GiB, written 512 MiB"]),
        (TRANSPORTING, ["resumed 1.00 GiB", "compare: change tracking was off"]),
        (view(transfers=(DONE,)), ["100% in 1 min 35 s", "examined 20.0 GiB"]),
        (awaiting(), ["Awaiting the decision since 11:59:00 UTC", LOSS]),
        (view(live=(WATCHED,)), ["snapshot on web01 (production:vm-1): 2 h 00 min old"]),
        (
            view(live=(WATCHED,)),
            ["disks take 3.00 GiB, 1.00 MiB more since 11:59:00, 40.0 GiB free"],
        ),
        (awaiting(), ["failback commit web01   keep production"]),
        (awaiting(), ["failback undo web01     go back to DR"]),
        (standing(), ["NEEDS OPERATOR: GuestShutdownTimeout in step power_off_replica"]),
        (standing(), ["did not shut down in 15 min.", "Tried: guest shutdown at 11:40."]),
        (standing(), ["failback retry web01", "failback undo web01"]),
        (standing(probing=True), ["The site is asked again and again"]),
        (closed(Outcome.COMMITTED), ["Failback of web01: COMMITTED"]),
        (
            view(execution="TERMINATED"),
            ["web01: TERMINATED", "nothing was undone and"],
        ),
        (view(alarms=("Both copies run",)), ["ALARM: Both copies run."]),
        (
            view(downtime_started_at=ago(300), downtime_ended_at=ago(60)),
            ["downtime 4 min 00 s (11:55:00 to 11:59:00)"],
        ),
        (view(downtime_started_at=ago(30)), ["downtime 30 s (11:59:30 to now)"]),
        (
            view(
                requests=(
                    Answer(kind=RequestKind.COMMIT, accepted=False, message="too early", at=ago(5)),
                    Answer(kind=RequestKind.PAUSE, accepted=True, at=ago(4)),
                )
            ),
            ["11:59:55 commit rejected: too early."],
        ),
        (
            view(
                live=(
                    LiveActivity(
                        activity="verify",
                        state="waiting for a worker",
                        task_queue="failback-mover-dr",
                    ),
                )
            ),
            ["verify waits for a worker on task queue failback-mover-dr."],
        ),
        (
            view(
                live=(
                    LiveActivity(
                        activity="power_on",
                        attempt=4,
                        last_failure="busy",
                        next_try_at=NOW + timedelta(seconds=12),
                    ),
                )
            ),
            ["power_on, try 4: busy. Next try in 12 s."],
        ),
        (
            view(steps=(StepStatus(name=StepName.VERIFY, title="[bold]Verify", skipped=True),)),
            ["-  [bold]Verify", "skipped"],
        ),
    ],
)
def test_run(run: RunView, expected: list[str]) -> None:
    shown = text(render.run(run, NOW))
    for part in expected:
        assert part in shown


def test_the_gate_says_why_it_waits_and_what_a_switch_would_cost() -> None:
    gate = GateStatus(
        mode=SwitchMode.MANUAL,
        holds="it waits for switch_over",
        prediction=Prediction(
            downtime=timedelta(seconds=95),
            rests_on=("guest shutdown 30 s assumed",),
            lag_bytes=3 * 2**20,
            change_rate_bytes_per_s=2048.0,
        ),
        downtime_budget=timedelta(minutes=2),
        next_cycle_at=NOW + timedelta(minutes=4),
    )
    shown = text(render.run(view(phase=Phase.READY_TO_SWITCH, gate=gate), NOW))

    for expected in (
        "Ready to switch: it waits for switch_over.",
        "of downtime",
        "guest shutdown 30 s assumed",
        "Lag: 3.00 MiB in the newest cycle, 2.00 KiB/s come to differ",
        "Downtime budget: ",
        "Next cycle in ",
        "failback switch-over web01",
    ):
        assert expected in shown, shown


def test_a_decision_that_comes_by_itself_and_one_that_waits_for_a_second_person() -> None:
    finalize = FinalizeStatus(mode=FinalizeMode.AUTO_COMMIT, at=NOW + timedelta(minutes=9))
    asked = Answer(
        kind=RequestKind.UNDO,
        accepted=True,
        pending=True,
        request_id="undo-4",
        by="ann",
        message="A second person must approve undo-4",
    )
    hook = HookStatus(
        name="dns", step=StepName.POWER_ON_TARGET, when="after", ok=False, at=NOW, output=""
    )
    run = view(phase=Phase.AWAITING_DECISION, finalize=finalize, pending=(asked,), hooks=(hook,))
    shown = text(render.run(run, NOW))

    assert "auto_commit in 9" in shown and "unless somebody decides before" in shown
    assert "undo of ann waits" in shown and "failback approve web01 undo-4" in shown
    assert "hook dns after power_on_target" in shown and "failed" in shown


def test_findings_begin_with_the_refusals() -> None:
    warning = Finding(code="TOOLS", severity=Severity.WARN, object="r", message="no tools")
    refusal = Finding(
        code="CLAIMED", severity=Severity.REFUSE, object="web01", message="held", remedy="Wait"
    )
    shown = text(render.findings((warning, refusal)))
    assert "REFUSED CLAIMED web01: held." in shown
    assert "Wait." in shown
    assert shown.index("REFUSED") < shown.index("warning TOOLS r: no tools.")


def test_eighty_columns_of_ascii_are_enough() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=80)
    console.print(render.run(TRANSPORTING, NOW, unicode=False))
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert any("+  Check everything" in line for line in lines)
    assert any("written 512 MiB, resumed 1.00 GiB" in line for line in lines)


def test_a_low_terminal_keeps_the_newest_steps() -> None:
    steps = tuple(
        StepStatus(name=StepName.VERIFY, title=f"Step {n}", started_at=ago(100 - n))
        for n in range(40)
    )
    shown = text(render.run(view(steps=steps), NOW, rows=24))
    assert "Step 39" in shown
    assert "Step 3 " not in shown
    assert len(shown.splitlines()) <= 24


def test_passes_of_one_disk_are_told_apart() -> None:
    second = PLAN.model_copy(update={"pass_no": 2, "plan_id": "p2"})
    run = view(differences=(PLAN, second), transfers=(DONE,), live=(live(0.1, pass_no=2),))
    assert [(line.pass_no, line.doing) for line in disk_lines(run)] == [
        (1, "done"),
        (2, "transport"),
    ]


def test_a_disk_without_differences_is_complete() -> None:
    (line,) = disk_lines(view(live=(live(0, total_bytes=0),)))
    assert line.share == 1.0


def test_list() -> None:
    run = RunSummary(
        replica="web01",
        workflow_id="failback/web01",
        run_id="r1",
        execution="TERMINATED",
        phase="SYNCING",
        started_at=ago(90),
        closed_at=ago(30),
    )
    shown = text(render.runs([run], NOW))
    assert all(part in shown for part in ("web01", "TERMINATED", "11:58:30", "1 min 00 s", "r1"))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, view(), ["done     Check everything, claim the VMs (2.0 s)", "phase    SYNCING"]),
        (view(), view(), []),
        (view(), view(Phase.SWITCHING), ["phase    SWITCHING"]),
        (view(), view(paused=True), ["paused"]),
        (view(paused=True), view(), ["resumed"]),
        (
            view(live=(live(0.41),)),
            view(live=(live(0.52),)),
            ["disk     scsi0:0 pass 1 transport 52%: examined 10.4/20.0 GiB"],
        ),
        (view(live=(live(0.41),)), view(live=(live(0.49),)), []),
        (view(), view(alarms=("Both run",)), ["ALARM    Both run."]),
        (
            view(),
            view(requests=(Answer(kind=RequestKind.UNDO, accepted=True, by="bob"),)),
            ["request  undo by bob accepted"],
        ),
        (view(), standing(), ["NEEDS OPERATOR", "failback retry web01"]),
        (view(), awaiting(), ["phase    AWAITING_DECISION", LOSS, "failback commit web01"]),
        (
            awaiting(),
            view(
                Phase.CLOSED,
                outcome=Outcome.COMMITTED,
                downtime_started_at=ago(70),
                downtime_ended_at=ago(10),
            ),
            ["phase    COMMITTED (downtime 1 min 00 s)"],
        ),
    ],
)
def test_changes(before: RunView | None, after: RunView, expected: list[str]) -> None:
    lines = [line.text for line in changes(before, after, NOW)]
    shown = "\n".join(lines)
    for part in expected:
        assert part in shown
    if not expected:
        assert lines == []


def test_a_change_carries_the_time_when_it_happened() -> None:
    assert changes(None, view(), NOW)[0].at == ago(118)


def test_trouble_that_goes_on_is_said_once() -> None:
    first = LiveActivity(activity="preflight", attempt=2, last_failure="no answer", next_try_at=NOW)
    again = first.model_copy(update={"next_try_at": NOW + timedelta(seconds=1)})
    assert changes(view(live=(first,)), view(live=(again,)), NOW) == []
