"""The command from the outside: exit status, the two streams, and machine output."""

from __future__ import annotations

import json

import pytest

from failback.contracts.plan import BeginAnswer, Finding
from failback.contracts.requests import Answer
from failback.contracts.words import Outcome, Phase, RequestKind, Severity
from failback.errors import LoginRefused
from starter.cli import run
from starter.errors import OperatorNeeded, RunEnded, TemporalUnreachable, WorkerAbsent
from starter.views import RunSummary, RunView
from tests.unit.starter.doubles import (
    LOSS,
    FakeClient,
    awaiting,
    closed,
    err,
    live,
    out,
    shell,
    standing,
    view,
)

FINDING = Finding(
    code="CLAIM_HELD", severity=Severity.REFUSE, object="web01", message="Another run holds it"
)
REFUSED = BeginAnswer(accepted=False, findings=(FINDING,))
ABSENT = WorkerAbsent("No worker polls task queue failback: start `failback-worker`.")
TOO_EARLY = Answer(kind=RequestKind.COMMIT, accepted=False, message="commit is not possible yet")


@pytest.mark.parametrize(
    ("line", "client", "status"),
    [
        ("start web01", FakeClient(), 0),
        ("start web01 --no-wait", FakeClient(), 0),
        ("start web01", FakeClient(begin=REFUSED), 2),
        ("start web01", FakeClient(begin=ABSENT), 2),
        ("start web01", FakeClient(begin=OperatorNeeded("It stands.")), 3),
        ("start web01", FakeClient(begin=LoginRefused("Password of site dr not accepted.")), 2),
        ("start Web01", FakeClient(), 2),
        ("status web01", FakeClient([view()]), 0),
        ("status Web01", FakeClient([view()]), 2),
        ("status web01", FakeClient([ABSENT]), 2),
        ("list", FakeClient(), 0),
        ("commit web01", FakeClient(), 0),
        ("commit web01", FakeClient(answer=TOO_EARLY), 2),
        ("pause web01", FakeClient(), 0),
        ("resume web01", FakeClient(), 0),
        ("retry web01", FakeClient(), 0),
        ("undo web01", FakeClient([awaiting()]), 0),
        ("watch web01", FakeClient([view(), awaiting()]), 0),
        ("watch web01", FakeClient([standing(probing=True), awaiting()]), 0),
        ("watch web01", FakeClient([TemporalUnreachable("away"), ABSENT, awaiting()]), 0),
        ("watch web01", FakeClient([standing()]), 3),
        ("watch web01", FakeClient([closed(Outcome.COMMITTED)]), 3),
        ("watch web01", FakeClient([view(execution="TERMINATED")]), 3),
        ("watch web01", FakeClient([closed(Outcome.REFUSED)]), 2),
        ("watch web01", FakeClient([RunEnded("It ended.")]), 3),
        ("watch web01 --until end", FakeClient([awaiting(), closed(Outcome.COMMITTED)]), 0),
        ("watch web01 --until end", FakeClient([awaiting(), closed(Outcome.UNDONE)]), 0),
        ("version", None, 0),
        ("--version", None, 0),
        ("--help", None, 0),
        ("", None, 2),
        ("start", None, 2),
        ("start web01 --guest-timeout soon", None, 2),
        ("replica add web01 --replica here --source prod:x", None, 2),
    ],
)
def test_exit_status(line: str, client: FakeClient | None, status: int) -> None:
    for mode in ("", " --json"):
        around = shell(client)
        assert run([*line.split(), *mode.split()] if client else line.split(), around) == status
        assert "Traceback" not in err(around)


def test_an_unexpected_error_is_1_and_shows_where() -> None:
    around = shell(FakeClient())  # no views: an index error, which nobody expects
    assert run(["status", "web01"], around) == 1
    assert "Traceback" in err(around)
    assert "failback: unexpected error: IndexError" in err(around)


@pytest.mark.parametrize(
    ("line", "client", "on_out", "on_err"),
    [
        ("start web01", FakeClient(), "The failback of web01 is accepted (run r1).", ""),
        ("start web01 --no-wait", FakeClient(), "started; preflight has not answered yet", ""),
        ("start web01", FakeClient(begin=REFUSED), "is refused; nothing was changed", ""),
        ("start web01", FakeClient(begin=REFUSED), "CLAIM_HELD web01: Another run holds it.", ""),
        ("commit web01", FakeClient(answer=TOO_EARLY), "", "web01: commit is not possible yet."),
        ("undo web01", FakeClient([awaiting()]), "undo of web01 is accepted", LOSS),
        ("undo web01", FakeClient([view()]), "accepted", "none of its writes are lost"),
        ("status web01", FakeClient([ABSENT]), "", f"failback: {ABSENT}\n"),
        ("list", FakeClient(), "There are no runs.", ""),
        ("watch web01", FakeClient([ABSENT, ABSENT, awaiting()]), f"trouble  {ABSENT}\n", ""),
        ("watch web01", FakeClient([standing()]), "failback retry web01", ""),
        (
            "watch web01",
            FakeClient([view(live=(live(0.41),)), view(live=(live(0.52),)), awaiting()]),
            "12:00:00 disk     scsi0:0 pass 1 transport 52%",
            "",
        ),
    ],
)
def test_wording(line: str, client: FakeClient, on_out: str, on_err: str) -> None:
    around = shell(client)
    run(line.split(), around)
    assert on_out in out(around)
    assert on_err in err(around)


def test_the_same_trouble_is_one_line() -> None:
    around = shell(FakeClient([ABSENT, ABSENT, ABSENT, awaiting()]))
    run(["watch", "web01"], around)
    assert out(around).count("No worker polls") == 1


@pytest.mark.parametrize(("typed", "sent"), [("y\n", 1), ("yes\n", 1), ("\n", 0), ("n\n", 0)])
def test_undo_asks_on_a_terminal(typed: str, sent: int) -> None:
    client = FakeClient([awaiting()])
    around = shell(client, typed, terminal=True)
    assert run(["undo", "web01"], around) == (0 if sent else 2)
    assert len(client.asked) == sent
    assert err(around).index(LOSS) < err(around).index("Undo the failback of web01? [y/N]")


def test_undo_does_not_ask_when_told() -> None:
    around = shell(FakeClient([awaiting()]), terminal=True)
    assert run(["undo", "web01", "--yes"], around) == 0
    assert "[y/N]" not in err(around)
    assert LOSS in err(around)


def test_requests_carry_their_options() -> None:
    client = FakeClient([standing()])
    line = "undo web01 -y --replica-content keep --attest-off dr:vm-1 --reason lost --by bob"
    assert run(line.split(), shell(client)) == 0
    ((kind, key, request),) = client.asked
    assert (kind, key) == (RequestKind.UNDO, "web01")
    assert request is not None
    assert (request.replica_content, request.attest_off) == ("keep", ("dr:vm-1",))
    assert (request.by, request.reason) == ("bob", "lost")


def test_json_is_alone_on_standard_output() -> None:
    around = shell(FakeClient([awaiting()]))
    assert run(["status", "web01", "--json"], around) == 0
    assert RunView.model_validate_json(out(around)) == awaiting()

    around = shell(FakeClient([awaiting()]))
    assert run(["undo", "web01", "--json"], around) == 0
    assert Answer.model_validate_json(out(around)).accepted

    summary = RunSummary(replica="w", workflow_id="failback/w", run_id="r", execution="RUNNING")
    around = shell(FakeClient(runs=[summary]))
    assert run(["list", "--json"], around) == 0
    assert json.loads(out(around))[0]["replica"] == "w"

    around = shell(FakeClient([ABSENT]))
    assert run(["status", "web01", "--json"], around) == 2
    assert json.loads(out(around))["error"]["type"] == "WorkerAbsent"


def test_json_watch_gives_a_line_per_change() -> None:
    around = shell(FakeClient([view(), view(), ABSENT, view(Phase.SWITCHING), awaiting()]))
    assert run(["watch", "web01", "--json"], around) == 0
    phases = [RunView.model_validate_json(line).status.phase for line in out(around).splitlines()]
    assert phases == [Phase.SYNCING, Phase.SWITCHING, Phase.AWAITING_DECISION]
    assert "No worker polls" in err(around)
