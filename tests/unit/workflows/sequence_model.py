"""What a run must answer, written anew from what is promised; the product's tables are not used."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from failback.contracts.requests import Answer
from failback.contracts.status import Status
from tests.unit.workflows.sequence_sites import Wrong

FORWARD = {"PREFLIGHT", "SYNCING", "READY_TO_SWITCH", "SWITCHING", "AWAITING_DECISION"}
OPEN = FORWARD | {"COMMITTING", "UNDOING", "NEEDS_OPERATOR"}
WAITING = {"SYNCING", "READY_TO_SWITCH", "AWAITING_DECISION"}
MAY: dict[str, set[str]] = {
    "commit": {"AWAITING_DECISION"},
    "undo": FORWARD,
    "switch_over": {"SYNCING", "READY_TO_SWITCH"},
    "reschedule": {"SYNCING", "READY_TO_SWITCH"},
    "pause": WAITING,
    "resume": WAITING,
    "retry": set(),
    "adjust": OPEN,
    "approve": OPEN,
}
IN_TROUBLE = {"retry", "undo", "adjust", "approve"}
AFTER_UNDO = IN_TROUBLE
ATTESTS = {"undo", "retry"}
"""With `attest_off` somebody answers for what no site says, by name and with a reason."""
REPLICA = {"web01-replica": "dr:vm-7", "vm-7": "dr:vm-7", "dr:vm-7": "dr:vm-7"}
"""What the VM replica may be called, and how it is kept."""
OF_TWO = {"switch_over", "commit", "undo"}
AFTER: dict[str, set[str]] = {
    "PREFLIGHT": {"SYNCING"},
    "SYNCING": {"READY_TO_SWITCH", "SWITCHING"},
    "READY_TO_SWITCH": {"SWITCHING"},
    "SWITCHING": {"AWAITING_DECISION"},
    "AWAITING_DECISION": {"COMMITTING"},
    "COMMITTING": set(),
    "UNDOING": set(),
}
"""Where the work goes on; undo and trouble apart."""


@dataclass
class Waits:
    """A request that a second person must approve."""

    kind: str
    body: dict[str, Any]
    answer: Answer
    until: datetime


def _says_when(body: dict[str, Any]) -> bool:
    return bool(set(body["switch"]) & {"mode", "at"})


@dataclass
class Model:
    """What was promised to the people so far."""

    approvals: int
    expiry: timedelta
    mode: str
    at: datetime | None
    phase: str = "PREFLIGHT"
    """The newest phase that is not NEEDS_OPERATOR."""
    paused: bool = False
    committing: bool = False
    undoing: bool = False
    switching: bool = False
    """Somebody said `switch_over`, and nobody has said since when else."""
    attested: set[str] = field(default_factory=set)
    power_on_replica: bool = True
    waits: list[Waits] = field(default_factory=list)
    said: dict[tuple[str, str], Answer] = field(default_factory=dict)

    def allowed(self, kind: str, body: dict[str, Any], status: Status, now: datetime) -> bool:
        """Whether a request that is understood is allowed now."""
        if status.phase.value == "NEEDS_OPERATOR":
            if status.operator is None:
                raise Wrong("NEEDS_OPERATOR without a word why")
            committing = status.operator.from_phase.value == "COMMITTING"
            fits = kind in IN_TROUBLE and not (kind == "undo" and committing)
        else:
            fits = status.phase.value in MAY[kind]
        if self.undoing:
            fits = fits and kind in AFTER_UNDO
        if self.committing:
            fits = fits and kind != "undo"
        if kind in ATTESTS and body.get("attest_off"):
            fits = fits and bool(body.get("by") and body.get("reason"))
            planned = any(s.name.value == "preflight" and s.finished_at for s in status.steps)
            fits = fits and planned and set(body["attest_off"]) <= set(REPLICA)
        match kind:
            case "pause":
                fits = fits and not self.paused
            case "resume":
                fits = fits and self.paused
            case "reschedule":
                fits = fits and self._schedulable(body, now)
            case "adjust":
                fits = fits and ("limits" in body or "finalize" in body)
            case "retry" if body.get("rebase_target"):
                grown = status.operator is not None and status.operator.code == "ReplicaGrown"
                fits = fits and grown
            case _:
                pass
        return fits

    def _schedulable(self, body: dict[str, Any], now: datetime) -> bool:
        if "switch" not in body:
            return False
        mode, at = self._merged(body)
        if not _says_when(body):
            return True
        return mode != "scheduled" or (at is not None and at > now)

    def _merged(self, body: dict[str, Any]) -> tuple[str, datetime | None]:
        switch = body["switch"]
        at = datetime.fromisoformat(switch["at"]) if "at" in switch else self.at
        return switch.get("mode", self.mode), at

    def needs_two(self, kind: str, body: dict[str, Any]) -> bool:
        """Whether a second person must agree."""
        decides = kind == "adjust" and "finalize" in body
        switch = body.get("switch", {})
        holds_back = set(switch) <= {"mode", "resync_interval"}
        holds_back = holds_back and switch.get("mode", "manual") == "manual"
        moves = kind == "reschedule" and not holds_back
        return self.approvals > 1 and (kind in OF_TWO or decides or moves)

    def expire(self, now: datetime) -> None:
        """What nobody approved in time is void."""
        self.waits = [one for one in self.waits if one.until > now]

    def answer(
        self, kind: str, body: dict[str, Any], status: Status, now: datetime, got: Answer
    ) -> None:
        """Compare the answer to a request that is understood, and note what it promises. Wrong."""
        request_id, by = body.get("request_id", ""), body.get("by", "")
        if (earlier := self.said.get((kind, request_id))) is not None:
            same = got == earlier or (earlier.pending and got.at == self._newest(earlier, got))
            self._expect(same, f"a repeat of {kind} {request_id} is answered anew", got)
            return
        self.expire(now)
        fits = self.allowed(kind, body, status, now)
        if fits and self.needs_two(kind, body):
            taken = any(one.answer.request_id == request_id for one in self.waits)
            fits = bool(by) and not taken
            self._expect(got.accepted == fits and got.pending == fits, f"{kind} waits: {fits}", got)
            if fits:
                self.waits.append(Waits(kind, body, got, now + self.expiry))
        elif fits and kind == "approve":
            self._approve(body, status, now, got)
        else:
            self._expect(got.accepted == fits and not got.pending, f"{kind}: {fits}", got)
            if fits:
                self.promised(kind, body)
        if got.request_id and not (fits and got.pending and not request_id):
            self.said[kind, request_id] = got

    def _newest(self, earlier: Answer, got: Answer) -> datetime | None:
        """One that waited may have been approved or become void: its record is what counts."""
        same = (got.kind, got.request_id, got.by) == (earlier.kind, earlier.request_id, earlier.by)
        return got.at if same else None

    def _approve(self, body: dict[str, Any], status: Status, now: datetime, got: Answer) -> None:
        of, by = body.get("of", ""), body.get("by", "")
        found = next((one for one in self.waits if one.answer.request_id == of), None)
        fits = found is not None and bool(by) and by != found.body["by"]
        fits = fits and found is not None and self.allowed(found.kind, found.body, status, now)
        self._expect(got.accepted == fits, f"approve of {of!r}: {fits}", got)
        if fits and found is not None:
            self.waits.remove(found)
            self.promised(found.kind, found.body)

    @staticmethod
    def _expect(held: bool, what: str, got: Answer) -> None:
        if not held:
            raise Wrong(f"expected {what}; it answered {got}")

    def promised(self, kind: str, body: dict[str, Any]) -> None:
        """An accepted request must have its effect."""
        match kind:
            case "commit":
                self.committing = True
            case "undo":
                self.undoing = True
                if body.get("power_on_replica") is not None:
                    self.power_on_replica = body["power_on_replica"]
            case "pause":
                self.paused = True
            case "resume":
                self.paused = False
            case "reschedule":
                self.mode, self.at = self._merged(body)
                if _says_when(body):
                    self.switching = False
            case "switch_over":
                self.switching = True
            case _:
                pass
        if kind in ATTESTS:
            self.attested |= {REPLICA[name] for name in body.get("attest_off", ())}
        if self.committing and self.undoing:
            raise Wrong("both commit and undo were accepted")

    def _due(self, now: datetime) -> bool:
        """Whether the switch may begin: the budget apart, which is a prediction."""
        timely = self.mode == "scheduled" and self.at is not None and self.at <= now
        return self.switching or self.mode == "auto" or timely

    def entered(self, phase: str, now: datetime) -> None:
        """The run shows this phase. Wrong where the work cannot go on there."""
        if phase in ("NEEDS_OPERATOR", self.phase, "CLOSED"):
            return
        undo = phase == "UNDOING" and self.phase in FORWARD
        if not undo and phase not in AFTER.get(self.phase, set()):
            raise Wrong(f"from {self.phase} the run goes to {phase}")
        if phase == "SWITCHING" and not self._due(now):
            raise Wrong(f"it switches, but was told {self.mode} {self.at}")
        if phase == "COMMITTING" and not self.committing:
            raise Wrong("it commits and nobody said so")
        if phase == "UNDOING" and not self.undoing:
            raise Wrong("it undoes and nobody said so")
        self.phase = phase
        if phase == "AWAITING_DECISION" and not (self.undoing or self.committing):
            # What was said before says nothing of the time in which somebody decides.
            self.attested.clear()
