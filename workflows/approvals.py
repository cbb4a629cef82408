"""Four eyes: requests that wait until a second person approves them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from failback.contracts.requests import Answer, Request
from failback.contracts.words import RequestKind, SwitchMode
from workflows.carried import Pending
from workflows.engine import MOST_TEXT, Run

KEPT_ANSWERS = 100
MOST_PENDING = 16

OF_TWO = frozenset({RequestKind.SWITCH_OVER, RequestKind.COMMIT, RequestKind.UNDO})


def needs_approval(run: Run, kind: RequestKind, request: Request) -> bool:
    """Whether a second person must agree. A change of who decides at the end, or of when the work
    moves over, would otherwise be a way around it."""
    decides = kind is RequestKind.ADJUST and request.finalize is not None
    moves = kind is RequestKind.RESCHEDULE and not _holds_back(request)
    return run.facts.request.approvals > 1 and (kind in OF_TWO or decides or moves)


def _holds_back(request: Request) -> bool:
    """Whether a reschedule can only make the switch wait: that anybody may do, and at once."""
    switch = request.switch
    if switch is None or not switch.model_fields_set <= {"mode", "resync_interval"}:
        return False
    return "mode" not in switch.model_fields_set or switch.mode is SwitchMode.MANUAL


def ask(run: Run, kind: RequestKind, request: Request, now: datetime) -> Answer:
    """Keep the request until somebody approves it, or until it expires."""
    if not request.by:
        return _rejected(run, kind, request, now, f"{kind} needs `by`: two persons must agree.")
    if len(run.pending) >= MOST_PENDING:
        return _rejected(run, kind, request, now, "Too many requests wait for an approval.")
    request_id = request.request_id or _free_id(run, kind)
    if any(waiting.answer.request_id == request_id for waiting in run.pending):
        # The second person names an id and nothing else: it must say which request is meant.
        text = f"Another request waits under the id {request_id}; send {kind} under one of its own."
        return _rejected(run, kind, request, now, text)
    until = now + run.facts.request.approval_expiry
    answer = Answer(
        kind=kind,
        accepted=True,
        pending=True,
        message=f"A second person must approve {request_id} until {until:%Y-%m-%d %H:%M:%S} UTC.",
        phase=run.phase,
        at=now,
        request_id=request_id,
        by=request.by,
        reason=request.reason,
    )
    run.pending.append(Pending(kind=kind, request=request, answer=answer, until=until))
    return record(run, answer)


def _free_id(run: Run, kind: RequestKind) -> str:
    """An id for a request that was sent without; the answers kept are too few to count by them."""
    used = {one.request_id for one in (*run.answers, *(p.answer for p in run.pending))}
    number = len(run.answers) + 1
    while f"{kind}-{number}" in used:
        number += 1
    return f"{kind}-{number}"


def approve(
    run: Run,
    request: Request,
    now: datetime,
    refusal: Callable[[RequestKind, Request], str | None],
    apply: Callable[[Run, RequestKind, Request], None],
) -> Answer:
    """The second person's word. Whether the request is allowed is asked again: time has passed."""
    kind = RequestKind.APPROVE
    waiting = next((p for p in run.pending if p.answer.request_id == request.of), None)
    if waiting is None:
        known = ", ".join(p.answer.request_id for p in run.pending) or "none"
        text = f"No request {request.of!r} waits for an approval (waiting: {known})."
        return _rejected(run, kind, request, now, text)
    if not request.by or request.by == waiting.request.by:
        text = (
            f"{waiting.kind} was asked for by {waiting.request.by}; another person, named in `by`, "
            "must approve it."
        )
        return _rejected(run, kind, request, now, text)
    reason = refusal(waiting.kind, waiting.request)
    if reason is not None:
        return _rejected(run, kind, request, now, reason)
    run.pending.remove(waiting)
    apply(run, waiting.kind, waiting.request)
    update = {"pending": False, "approved_by": request.by, "message": "", "at": now}
    record(run, waiting.answer.model_copy(update=update))
    return record(
        run,
        Answer(
            kind=kind,
            accepted=True,
            message=f"{waiting.kind} of {waiting.request.by} is approved.",
            phase=run.phase,
            at=now,
            request_id=request.request_id,
            by=request.by,
            reason=request.reason,
        ),
    )


def drop_expired(run: Run, now: datetime) -> None:
    """Requests that nobody approved in time are void; the record says so."""
    for waiting in [p for p in run.pending if p.until <= now]:
        run.pending.remove(waiting)
        text = f"Nobody approved {waiting.answer.request_id} in time: it is void."
        update = {"accepted": False, "pending": False, "message": text, "at": now}
        record(run, waiting.answer.model_copy(update=update))


def _rejected(run: Run, kind: RequestKind, request: Request, now: datetime, message: str) -> Answer:
    return record(
        run,
        Answer(
            kind=kind,
            accepted=False,
            # Quoted names may make it longer than any answer; one that does not fit is none.
            message=message[:MOST_TEXT],
            phase=run.phase,
            at=now,
            request_id=request.request_id,
            by=request.by,
            reason=request.reason,
        ),
    )


def record(run: Run, answer: Answer) -> Answer:
    """Keep the newest answers; one that waited is replaced by how it ended."""
    for index, kept in enumerate(run.answers):
        if kept.pending and (kept.kind, kept.request_id) == (answer.kind, answer.request_id):
            run.answers[index] = answer
            return answer
    run.answers.append(answer)
    del run.answers[:-KEPT_ANSWERS]
    return answer
