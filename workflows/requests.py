"""Takes requests into a run: validates the raw value, decides, records; never raises.

A signal handler that raises fails the workflow task for ever, and a typed parameter drops input
that does not fit without a word; so handlers take the raw value and every answer is recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from failback.contracts.requests import Answer, Request
from failback.contracts.words import Phase, RequestKind, StepName
from workflows.engine import Run
from workflows.state import refusal

KEPT_ANSWERS = 100
KEPT_ALARMS = 20
ALARM_INTERVAL = timedelta(minutes=15)


def admit(run: Run, kind: RequestKind, raw: tuple[Any, ...], now: datetime) -> Answer:
    """Decide about one request, apply it when it is allowed, and record the answer."""
    body = raw[0] if raw and raw[0] is not None else {}
    try:
        request = Request.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "input"
        return _record(
            run,
            Answer(
                kind=kind,
                accepted=False,
                phase=run.phase,
                at=now,
                message=f"The input of {kind} is not understood ({place}: {first['msg']}); send no "
                "input, or an object with the documented fields.",
            ),
        )
    if request.request_id:
        for earlier in run.answers:
            if earlier.request_id == request.request_id and earlier.kind is kind:
                return earlier
    from_phase = run.operator.from_phase if run.operator else None
    reason = refusal(kind, run.phase, from_phase, run.paused)
    if reason is None and run.undo_asked and kind in (RequestKind.COMMIT, RequestKind.PAUSE):
        reason = f"{kind} is not possible: an undo was accepted already."
    if reason is None and run.commit_asked and kind is RequestKind.UNDO:
        reason = "undo is not possible: a commit was accepted already."
    if reason is None:
        _apply(run, kind, request)
    return _record(
        run,
        Answer(
            kind=kind,
            accepted=reason is None,
            message=reason or "",
            phase=run.phase,
            at=now,
            request_id=request.request_id,
            by=request.by,
            reason=request.reason,
        ),
    )


def _apply(run: Run, kind: RequestKind, request: Request) -> None:
    attested = run.facts.attested_off
    if request.attest_off:
        merged = tuple(dict.fromkeys((*attested, *request.attest_off)))[-16:]
        run.facts = run.facts.model_copy(update={"attested_off": merged})
    match kind:
        case RequestKind.COMMIT:
            run.commit_asked = True
            run.facts = run.facts.model_copy(update={"commit": request})
        case RequestKind.UNDO:
            run.merge_undo(request)
            run.undo_asked = True
            run.retries += 1
        case RequestKind.PAUSE:
            run.paused = True
        case RequestKind.RESUME:
            run.paused = False
        case RequestKind.RETRY:
            run.retries += 1


def cancelled(run: Run, now: datetime) -> None:
    """Cancellation of the workflow: undo, unless production already serves (its writes would be
    lost, so a person has to say undo) or the run is past the decision."""
    issued = StepName.POWER_ON_TARGET in run.started()
    phase = run.operator.from_phase if run.operator else run.phase
    reason = refusal(RequestKind.UNDO, phase)
    if reason is None and issued:
        reason = (
            "Cancellation is rejected: the target VM was powered on and its writes would be lost. "
            "Send undo if that is wanted."
        )
    if reason is None and run.commit_asked:
        reason = "Cancellation is rejected: a commit was accepted already."
    if reason is None:
        _apply(run, RequestKind.UNDO, Request(by="temporal", reason="workflow cancellation"))
    _record(
        run,
        Answer(
            kind=RequestKind.UNDO,
            accepted=reason is None,
            message=reason or "Cancellation of the workflow: stop at a safe point, then undo.",
            phase=Phase(run.phase),
            at=now,
            by="temporal",
            reason="workflow cancellation",
        ),
    )


def alarm(run: Run, text: str) -> None:
    """Keep the newest alarms for status; the catalog keeps all of them."""
    run.alarms.append(text)
    del run.alarms[:-KEPT_ALARMS]


def _record(run: Run, answer: Answer) -> Answer:
    run.answers.append(answer)
    del run.answers[:-KEPT_ANSWERS]
    return answer
