"""`failback plan` as it is read and copied."""

from __future__ import annotations

import json
from datetime import timedelta

from failback.contracts.plan import Finding
from failback.contracts.preview import PlannedStep, Preview
from failback.contracts.start import StartRequest
from failback.contracts.words import Severity, StepName
from starter.cli import run
from tests.unit.starter.doubles import FakeClient, out, shell

HASH = "p1-" + "abc234" * 17
WARNING = Finding(code="VTPM", severity=Severity.WARN, object="web01", message="It has a TPM")
STEPS = (
    PlannedStep(
        name=StepName.TRANSPORT_CHANGES,
        title="Transport the changes, pass 1",
        what="what differs",
        bytes=3 << 30,
        seconds=30.0,
    ),
    PlannedStep(
        name=StepName.POWER_OFF_REPLICA,
        title="Power off the VM replica",
        on_undo="Power on the VM replica",
        seconds=30.0,
        downtime=True,
    ),
    PlannedStep(name=StepName.POWER_ON_TARGET, title="Power on the target VM", skipped=True),
)
ACCEPTED = Preview(
    replica="web01",
    accepted=True,
    findings=(WARNING,),
    steps=STEPS,
    plan_hash=HASH,
    duration=timedelta(minutes=1),
    downtime=timedelta(seconds=30),
    rests_on=("100 MB/s assumed",),
    remarks=("Addresses stay as they are",),
)


class Planner(FakeClient):
    """Answers every preview alike."""

    def __init__(self, answer: Preview) -> None:
        super().__init__()
        self.given, self.previewed = answer, list[StartRequest]()

    async def preview(self, request: StartRequest, request_id: str = "") -> Preview:
        self.previewed.append(request)
        return self.given


def test_the_plan_ends_with_the_line_to_type() -> None:
    client = Planner(ACCEPTED)
    terminal = shell(client)
    words = ["plan", "web01", "--leave-behind", "scsi0:2", "--reason", "it's time"]

    assert run(words, terminal) == 0

    told = out(terminal)
    assert told.rstrip().endswith(
        f"failback start web01 --leave-behind scsi0:2 --reason 'it'\"'\"'s time' --plan-hash {HASH}"
    )
    for text in ("VTPM", "3.00 GiB", "!", "skipped", "Power on the VM replica", "about 30 s"):
        assert text in told
    assert "Addresses stay as they are." in told
    assert client.previewed[0].leave_behind == ("scsi0:2",)
    assert client.started == []


def test_what_plan_printed_can_be_given_to_start() -> None:
    client = FakeClient()

    assert run(["start", "web01", "--plan-hash", HASH], shell(client)) == 0
    assert client.started[0][0].plan_hash == HASH


def test_a_refusal_has_no_line_to_type_and_its_own_exit_status() -> None:
    finding = WARNING.model_copy(update={"code": "TARGET_RUNS", "severity": Severity.REFUSE})
    terminal = shell(Planner(Preview(replica="web01", accepted=False, findings=(finding,))))

    assert run(["plan", "web01"], terminal) == 2
    assert "TARGET_RUNS" in out(terminal) and "would be refused" in out(terminal)
    assert "failback start" not in out(terminal)


def test_machines_get_the_whole_answer_and_nothing_else() -> None:
    terminal = shell(Planner(ACCEPTED))

    assert run(["plan", "web01", "--json"], terminal) == 0
    assert Preview.model_validate(json.loads(out(terminal))) == ACCEPTED
