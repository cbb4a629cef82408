"""The request table: every request in every phase, and the reasons."""

import pytest

from failback.contracts.words import Phase, RequestKind
from workflows.state import refusal

ALLOWED = {
    RequestKind.COMMIT: {Phase.AWAITING_DECISION},
    RequestKind.UNDO: {
        Phase.PREFLIGHT,
        Phase.SYNCING,
        Phase.READY_TO_SWITCH,
        Phase.SWITCHING,
        Phase.AWAITING_DECISION,
    },
    RequestKind.PAUSE: {Phase.SYNCING, Phase.READY_TO_SWITCH, Phase.AWAITING_DECISION},
    RequestKind.RESUME: set(),
    RequestKind.RETRY: set(),
    RequestKind.SWITCH_OVER: {Phase.SYNCING, Phase.READY_TO_SWITCH},
    RequestKind.RESCHEDULE: {Phase.SYNCING, Phase.READY_TO_SWITCH},
    RequestKind.ADJUST: set(Phase) - {Phase.CLOSED},
    RequestKind.APPROVE: set(Phase) - {Phase.CLOSED},
}


@pytest.mark.parametrize("kind", list(RequestKind))
@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.NEEDS_OPERATOR])
def test_a_request_is_allowed_exactly_where_the_table_says(kind: RequestKind, phase: Phase) -> None:
    reason = refusal(kind, phase)

    assert (reason is None) == (phase in ALLOWED[kind])
    if reason is not None:
        assert kind.value in reason or "paused" in reason or "under way" in reason


@pytest.mark.parametrize("from_phase", [Phase.SYNCING, Phase.SWITCHING, Phase.UNDOING])
def test_an_operator_may_retry_or_undo(from_phase: Phase) -> None:
    assert refusal(RequestKind.RETRY, Phase.NEEDS_OPERATOR, from_phase) is None
    assert refusal(RequestKind.UNDO, Phase.NEEDS_OPERATOR, from_phase) is None
    assert refusal(RequestKind.COMMIT, Phase.NEEDS_OPERATOR, from_phase) is not None
    assert refusal(RequestKind.PAUSE, Phase.NEEDS_OPERATOR, from_phase) is not None


def test_a_commit_in_trouble_can_only_be_retried() -> None:
    reason = refusal(RequestKind.UNDO, Phase.NEEDS_OPERATOR, Phase.COMMITTING)

    assert reason is not None and reason.endswith("send retry.")
    assert refusal(RequestKind.RETRY, Phase.NEEDS_OPERATOR, Phase.COMMITTING) is None


def test_pause_and_resume_know_whether_the_run_is_paused() -> None:
    assert refusal(RequestKind.RESUME, Phase.SYNCING, paused=True) is None
    assert refusal(RequestKind.PAUSE, Phase.SYNCING, paused=True) == "The run is paused already."
    assert refusal(RequestKind.RESUME, Phase.SYNCING) == "The run is not paused."
