"""Takes requests into a run: validates the raw value, decides, records; never raises.

A signal handler that raises fails the workflow task for ever, and a typed parameter drops input
that does not fit without a word; so handlers take the raw value and every answer is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from failback.contracts.base import WHOLE, Contract, complaint
from failback.contracts.policies import SwitchPolicy
from failback.contracts.requests import Answer, Request
from failback.contracts.unreadable import Unreadable
from failback.contracts.words import Phase, RequestKind, StepName, SwitchMode
from workflows import approvals, attesting
from workflows.approvals import drop_expired, needs_approval, record
from workflows.engine import MOST_TEXT, Run
from workflows.state import ANY_TIME, refusal

C = TypeVar("C", bound=Contract)

ALARM_INTERVAL = timedelta(minutes=15)
ATTESTING = frozenset({RequestKind.UNDO, RequestKind.RETRY})
"""Requests by which a person may declare VMs to be off."""


Patched = Callable[[str], bool]
"""As Runtime.patched: what was accepted under earlier code stays accepted in a replay."""


def admit(
    run: Run,
    kind: RequestKind,
    raw: tuple[Any, ...],
    now: datetime,
    patched: Patched = lambda name: True,
) -> Answer:
    """Decide about one request, apply it when it is allowed, and record the answer."""
    # One that cannot be read makes the whole input one, also as a surplus argument.
    body = next((one for one in raw if isinstance(one, Unreadable)), raw[0] if raw else None)
    if (problem := misunderstood(body)) is not None:
        message = f"The input of {kind} {problem}"
        return record(
            run, Answer(kind=kind, accepted=False, phase=run.phase, at=now, message=message)
        )
    request = Request.model_validate({} if body is None else body)
    drop_expired(run, now)
    if request.request_id:
        for earlier in run.answers:
            if earlier.request_id == request.request_id and earlier.kind is kind:
                return earlier

    def refused(kind: RequestKind, request: Request) -> str | None:
        return _refusal(run, kind, request, now, patched)

    reason = refused(kind, request)
    if reason is None and needs_approval(run, kind, request):
        return approvals.ask(run, kind, request, now)
    if reason is None and kind is RequestKind.APPROVE:
        return approvals.approve(run, request, now, refused, _apply)
    if reason is None:
        _apply(run, kind, request)
    return record(
        run,
        Answer(
            kind=kind,
            accepted=reason is None,
            message=reason or _remark(run, kind),
            phase=run.phase,
            at=now,
            request_id=request.request_id,
            by=request.by,
            reason=request.reason,
        ),
    )


def misunderstood(raw: Any) -> str | None:
    """Why this is no request, as the end of a sentence about the input; None when it is one."""
    if isinstance(raw, Unreadable):
        return _sentence(WHOLE, raw.why)
    try:
        Request.model_validate({} if raw is None else raw)
    except ValidationError as error:
        return _sentence(*complaint(error))
    return None


def _sentence(place: str, why: str) -> str:
    return (
        f"is not understood ({place}: {why}); send no input, or an object with the "
        "documented fields."
    )


def _refusal(
    run: Run, kind: RequestKind, request: Request, now: datetime, patched: Patched
) -> str | None:
    """Why it is not allowed now, by the phase and by what it says; None when it is."""
    from_phase = run.operator.from_phase if run.operator else None
    reason = refusal(kind, run.phase, from_phase, run.paused)
    if reason is not None:
        return reason
    if run.undo_asked and kind not in (RequestKind.UNDO, RequestKind.RETRY, *ANY_TIME):
        return f"{kind} is not possible: an undo was accepted already."
    if run.commit_asked and kind is RequestKind.UNDO:
        return "undo is not possible: a commit was accepted already."
    if kind in ATTESTING:
        reason = attesting.unsigned(request)
        unclear = attesting.problem(run.facts, request) if reason is None else None
        if unclear is not None and patched("attests-by-reference"):
            reason = unclear[:MOST_TEXT]
        if reason is not None:
            return reason
    if kind is RequestKind.RETRY and request.rebase_target and not _grown(run):
        return "rebase_target is possible only where a disk of the VM replica has grown."
    try:
        if kind is RequestKind.RESCHEDULE:
            return _bad_schedule(run, request, now)
        if kind is RequestKind.ADJUST:
            return _bad_adjustment(run, request)
    except ValidationError as error:
        return f"{kind} does not fit what holds now: {complaint(error)[1]}."
    return None


def _grown(run: Run) -> bool:
    return run.operator is not None and run.operator.code == "ReplicaGrown"


def _merged(base: C, change: C) -> C:
    """The policy that holds, with what the change says; what it is silent about stays."""
    said = {name: getattr(change, name) for name in change.model_fields_set}
    return type(base).model_validate({**dict(base), **said})


def _bad_adjustment(run: Run, request: Request) -> str | None:
    if request.limits is None and request.finalize is None:
        return "adjust says nothing to change; give it limits or finalize."
    if request.finalize is not None:
        _merged(run.facts.finalizing, request.finalize)
    return None


def _bad_schedule(run: Run, request: Request, now: datetime) -> str | None:
    if request.switch is None:
        return "reschedule says no new policy; give it switch."
    policy = _merged(run.facts.switching, request.switch)
    # Past its time a switch may still wait for its budget, and the budget may then be changed.
    scheduled = policy.mode is SwitchMode.SCHEDULED and _says_when(request.switch)
    if scheduled and policy.at is not None and policy.at <= now:
        return f"The switch cannot be at {policy.at:%Y-%m-%d %H:%M:%S %z}: that is past."
    return None


def _says_when(change: SwitchPolicy) -> bool:
    return bool(change.model_fields_set & {"mode", "at"})


def _remark(run: Run, kind: RequestKind) -> str:
    """What is good to know of a request that was accepted."""
    if kind is RequestKind.SWITCH_OVER and run.phase is Phase.SYNCING:
        return "The switch begins as soon as pass 1 is done."
    cycles = run.facts.cycles
    if kind is RequestKind.SWITCH_OVER and cycles and cycles[-1].number < run.facts.cycle:
        return "The switch begins as soon as the cycle under way is done: that makes it shorter."
    return ""


def _apply(run: Run, kind: RequestKind, request: Request) -> None:
    if request.attest_off and kind in ATTESTING:
        run.facts = attesting.declare(run.facts, request.attest_off)
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
            run.rebase_asked = request.rebase_target
            run.retries += 1
        case RequestKind.SWITCH_OVER:
            run.switch_asked = True
            run.ignore_budget = run.ignore_budget or request.ignore_budget
        case RequestKind.RESCHEDULE:
            assert request.switch is not None
            if _says_when(request.switch):
                run.switch_asked = run.ignore_budget = False
            policy = _merged(run.facts.switching, request.switch)
            run.facts = run.facts.model_copy(update={"switch": policy})
        case RequestKind.ADJUST:
            facts, update = run.facts, dict[str, Contract]()
            if request.limits is not None:
                update["limits"] = _merged(facts.limits or facts.request.limits, request.limits)
            if request.finalize is not None:
                update["finalize"] = _merged(facts.finalizing, request.finalize)
                run.finalize_ended = ""
            run.facts = facts.model_copy(update=update)
        case RequestKind.APPROVE:
            raise AssertionError("an approval applies the request that it approves")


def ask_undo(run: Run, request: Request) -> None:
    """An undo that the run asks of itself."""
    if not run.commit_asked:
        _apply(run, RequestKind.UNDO, request)


def ask_commit(run: Run, request: Request) -> None:
    """A commit that the run asks of itself."""
    if not run.undo_asked:
        _apply(run, RequestKind.COMMIT, request)


def left_to_people(run: Run) -> bool:
    """Whether the run has come to step 13 and left the power-on of the target to people."""
    reached = any(row.name is StepName.POWER_ON_TARGET for row in run.steps)
    return reached and StepName.POWER_ON_TARGET not in run.started()


def cancelled(run: Run, now: datetime, *, left_counts: bool = True) -> None:
    """Cancellation of the workflow: undo, unless production may serve (its writes would be lost, so
    a person has to say undo) or the run is past the decision.

    Args:
        left_counts: a target whose power-on was left to people may serve as well.
    """
    issued = StepName.POWER_ON_TARGET in run.started()
    phase = run.operator.from_phase if run.operator else run.phase
    reason = refusal(RequestKind.UNDO, phase)
    if reason is None and (issued or (left_counts and left_to_people(run))):
        how = "was powered on" if issued else "may have been powered on by hand"
        reason = (
            f"Cancellation is rejected: the target VM {how} and its writes would be lost. "
            "Send undo if that is wanted."
        )
    if reason is None and run.commit_asked:
        reason = "Cancellation is rejected: a commit was accepted already."
    if reason is None and run.facts.request.approvals > 1:
        reason = "Cancellation is rejected: undo of this run needs two persons. Send undo."
    if reason is None:
        _apply(run, RequestKind.UNDO, Request(by="temporal", reason="workflow cancellation"))
    record(
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
    run.alarm(text)
