"""What a run does by itself: when it switches, who decides, what it calls on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from failback.contracts.base import Contract, Name, Text
from failback.contracts.words import (
    FinalizeMode,
    HookPolicy,
    HookWhen,
    OnOverrun,
    ProbeKind,
    StepName,
    SwitchMode,
)

LONGEST = timedelta(days=3650)
"""No time span is longer: the end of a longer one might be no date any more, and a workflow that
computes it would stand still for ever."""
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Times are before it: workflows add hours to them, and a sum that is no date stops a run."""
Positive = Annotated[timedelta, Field(gt=timedelta(0), le=LONGEST)]
Span = Annotated[timedelta, Field(ge=timedelta(0), le=LONGEST)]
SettingName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Name of a command or call in the worker's settings."""


class SwitchPolicy(Contract):
    """When the work moves over. A bare word stands for the policy of that mode."""

    mode: SwitchMode = SwitchMode.AUTO
    at: Annotated[AwareDatetime, Field(lt=LATEST)] | None = None
    """scheduled: the time of the switch, with its offset."""
    resync_interval: Positive = timedelta(minutes=15)
    """While waiting, another cycle begins so long after the one before began."""
    downtime_budget: Positive | None = None
    """Do not switch while the predicted downtime is longer."""
    on_overrun: OnOverrun = OnOverrun.CONTINUE
    """What to do when the real switch takes longer than the budget."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.mode is SwitchMode.SCHEDULED and self.at is None:
            raise ValueError("a scheduled switch needs `at`, a time with its offset")
        return self


class WorkloadProbe(Contract):
    """One question to the workload, asked again and again while the decision is awaited."""

    kind: ProbeKind
    address: Text = ""
    """tcp: `host:port`; http: a URL that must answer 200 to 399."""
    command: SettingName | None = None
    """command: its name in the worker's settings; exit status 0 is success."""
    timeout: Positive = timedelta(seconds=10)
    interval: Positive = timedelta(seconds=30)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind in (ProbeKind.TCP, ProbeKind.HTTP) and not self.address:
            raise ValueError(f"a {self.kind} probe needs `address`")
        if self.kind is ProbeKind.COMMAND and self.command is None:
            raise ValueError("a command probe needs `command`, a name in the worker's settings")
        return self


class FinalizePolicy(Contract):
    """Who decides at the end. A bare word stands for the policy of that mode."""

    mode: FinalizeMode = FinalizeMode.MANUAL
    after: Positive = timedelta(hours=1)
    """auto_commit: the soak time; auto_undo: the deadline; both from the end of the switch."""
    boot_grace: Span = timedelta(minutes=10)
    """How long a booting workload may fail its probes before that counts."""
    probes: tuple[WorkloadProbe, ...] = Field(default=(), max_length=16)
    accept_loss_of_production_writes: bool = False
    """auto_undo: consent, at the start, that what production wrote is lost."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        undo = self.mode is FinalizeMode.AUTO_UNDO
        if undo and not self.accept_loss_of_production_writes:
            raise ValueError("auto_undo needs accept_loss_of_production_writes")
        commit = self.mode is FinalizeMode.AUTO_COMMIT
        if commit and self.probes and self.after <= self.boot_grace:
            raise ValueError("auto_commit needs `after` longer than boot_grace, or no probe counts")
        return self


NEVER_WALKED = frozenset(
    {
        StepName.AWAIT_DECISION,
        StepName.CLEAN_TARGET,
        StepName.RESTORE_TRACKING,
        StepName.HOOK,
        StepName.ADJUST,
    }
)
"""Names that stand beside the steps in records; no hook is called around them."""


class Hook(Contract):
    """A command or HTTP call of the worker's settings, made before or after a step."""

    name: SettingName
    when: HookWhen
    step: StepName
    timeout: Positive = timedelta(minutes=5)
    on_failure: HookPolicy = HookPolicy.STOP

    @model_validator(mode="after")
    def _called(self) -> Self:
        if self.step in NEVER_WALKED:
            raise ValueError(f"no run walks a step {self.step}, so the hook would never be called")
        return self


class TransferWindow(Contract):
    """Hours of the day in which disks may be copied, in UTC; `22:00` to `06:00` spans midnight."""

    begin: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    end: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]

    def opens_in(self, at: datetime) -> timedelta:
        """Zero within the window, else the time until it opens. Both ends the same: always open."""
        begin, end = _minutes(self.begin), _minutes(self.end)
        at = at.astimezone(UTC)
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        minute = (at - midnight).total_seconds() / 60
        if begin == end or (begin <= minute < end) or (begin > end and not end <= minute < begin):
            return timedelta(0)
        return timedelta(minutes=(begin - minute) % (24 * 60))


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


class Limits(Contract):
    """Limits of one run's transfers; movers look at them every two seconds."""

    bandwidth_bytes_per_s: int | None = Field(default=None, gt=0)
    """None: only the worker's own limit."""
    window: TransferWindow | None = None
    """None: at any time. The switch itself never waits for a window."""
    note: Name = ""
