"""Which request is allowed when: the transition table and its reasons, as pure functions."""

from __future__ import annotations

from failback.contracts.words import Phase, RequestKind

BEFORE_COMMIT = frozenset(
    {
        Phase.PREFLIGHT,
        Phase.SYNCING,
        Phase.READY_TO_SWITCH,
        Phase.SWITCHING,
        Phase.AWAITING_DECISION,
    }
)

ALLOWED: dict[RequestKind, frozenset[Phase]] = {
    RequestKind.COMMIT: frozenset({Phase.AWAITING_DECISION}),
    RequestKind.UNDO: BEFORE_COMMIT,
    RequestKind.PAUSE: frozenset({Phase.SYNCING, Phase.READY_TO_SWITCH, Phase.AWAITING_DECISION}),
    RequestKind.RESUME: frozenset({Phase.SYNCING, Phase.READY_TO_SWITCH, Phase.AWAITING_DECISION}),
    RequestKind.RETRY: frozenset(),
    RequestKind.SWITCH_OVER: frozenset({Phase.SYNCING, Phase.READY_TO_SWITCH}),
    RequestKind.RESCHEDULE: frozenset({Phase.SYNCING, Phase.READY_TO_SWITCH}),
    RequestKind.ADJUST: frozenset(Phase) - {Phase.CLOSED},
    RequestKind.APPROVE: frozenset(Phase) - {Phase.CLOSED},
}
"""Phases in which a request is allowed, apart from NEEDS_OPERATOR, which `refusal` decides."""


ANY_TIME = frozenset({RequestKind.ADJUST, RequestKind.APPROVE})
"""Requests that no trouble forbids."""


def may_ask_operator(from_phase: Phase) -> tuple[RequestKind, ...]:
    """What a person may answer in NEEDS_OPERATOR that was reached from this phase.

    In UNDOING `undo` means retry, with the choices it carries; a commit that was accepted can only
    be retried.
    """
    if from_phase is Phase.COMMITTING:
        return (RequestKind.RETRY,)
    return (RequestKind.RETRY, RequestKind.UNDO)


def refusal(
    kind: RequestKind, phase: Phase, from_phase: Phase | None = None, paused: bool = False
) -> str | None:
    """Why the request is not allowed now, as a sentence; None when it is.

    Args:
        from_phase: the phase that NEEDS_OPERATOR was reached from, if the run stands there.
    """
    if phase is Phase.NEEDS_OPERATOR and kind not in ANY_TIME:
        if from_phase is None or kind not in may_ask_operator(from_phase):
            return (
                f"{kind} is not possible while the run needs an operator"
                f"{f' (stopped in {from_phase})' if from_phase else ''}; send retry"
                f"{'' if from_phase is Phase.COMMITTING else ' or undo'}."
            )
        return None
    if kind is RequestKind.UNDO and phase is Phase.UNDOING:
        return "An undo is under way already."
    if phase not in ALLOWED[kind]:
        return f"{kind} is not possible in phase {phase}; {_when(kind)}"
    if kind is RequestKind.PAUSE and paused:
        return "The run is paused already."
    if kind is RequestKind.RESUME and not paused:
        return "The run is not paused."
    return None


def _when(kind: RequestKind) -> str:
    match kind:
        case RequestKind.COMMIT:
            return "it is possible once the run awaits the decision."
        case RequestKind.UNDO:
            return "a commit that was accepted, or a run that has ended, cannot be undone."
        case RequestKind.RETRY:
            return "it is possible only when the run needs an operator."
        case RequestKind.SWITCH_OVER | RequestKind.RESCHEDULE:
            return "it is possible until the switch begins."
        case RequestKind.ADJUST | RequestKind.APPROVE:
            return "the run has ended."
        case _:
            return "it is possible while syncing or while the decision is awaited."
