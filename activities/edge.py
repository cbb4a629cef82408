"""The one edge between Temporal and the product: leases, heartbeats, records and error mapping.

Every activity runs inside `bind`: it takes the replica's mutation lease, so that an attempt that
the server has given up on can no longer change anything; beats while it makes progress; writes its
intent before it acts; and turns our errors into ApplicationErrors, retryable until patience ends.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import (
    ApplicationError,
    ApplicationErrorCategory,
    CancelledError,
    FailureError,
)

from activities import arguments
from failback.catalog.records import Beginning, Turn
from failback.catalog.repository import Catalog
from failback.contracts.base import Contract
from failback.contracts.operations import (
    CleanTarget,
    CloseRun,
    DiskCall,
    Preflight,
    RunHook,
    RunRef,
    SetLimits,
    StepCall,
)
from failback.contracts.vm import DiskOpening
from failback.contracts.words import HookWhen, Phase, StepName
from failback.errors import (
    CatalogError,
    CatalogUnavailable,
    FailbackError,
    LeaseLost,
    Stopped,
    Unexpected,
    VersionMismatch,
    WindowClosed,
)
from workflows.operations import Operation

log = logging.getLogger(__name__)

I = TypeVar("I", bound=StepCall)  # noqa: E741 - the conventional name of an input type
O = TypeVar("O", bound=Contract)  # noqa: E741

STALL = timedelta(minutes=5)
"""Longest time without a sign of progress before the heartbeat is withheld: longer than any single
blocking call (each carries its own timeout), so only a thread that is truly stuck is given up."""


CLOSING = frozenset({StepName.COMMIT, StepName.UNDO_CLOSE})
"""Steps after which the run has ended in the catalog."""


@dataclass
class Attempt:
    """One attempt of one activity, as the operation sees it."""

    catalog: Catalog
    lease: str | None
    epoch: int = 0
    run_id: str = ""
    generation: int = 0
    step: tuple[str, str, str] | None = None
    """Key of the step's row in the catalog, where the attempt is recorded."""
    failed_before: bool = True
    details: Contract | None = None
    """Newest heartbeat details."""
    last_beat: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """A sign of progress, and the question whether this attempt may go on.

        Raises LeaseLost when a newer attempt holds the lease, Stopped when cancelled or shutting
        down. Called right before every mutation is sent and at least every two seconds.
        """
        self.last_beat = time.monotonic()
        if activity.is_cancelled():
            details = activity.cancellation_details()
            raise Stopped(f"Cancelled at a safe point ({details}).")
        if activity.is_worker_shutdown():
            raise Stopped("The worker is shutting down; another attempt goes on.")
        if self.lease is not None:
            self.catalog.check_lease(self.lease, self.epoch)

    def progressed(self) -> None:
        """Durable progress was made: patience begins anew with the next failure."""
        if self.step is not None and self.failed_before:
            self.catalog.step_progress(*self.step)
            self.failed_before = False

    @property
    def owner(self) -> str:
        """Names this attempt in leases and fences."""
        info = activity.info()
        return f"{info.workflow_run_id}/{info.activity_id}/{info.attempt}"

    @property
    def turn(self) -> Turn:
        """Its place in the order in which the workflow scheduled attempts: the SDK numbers the
        activities of a run in that order."""
        info = activity.info()
        number = int(info.activity_id) if info.activity_id.isdigit() else 0
        return Turn(info.workflow_run_id or "", number, info.attempt, self.run_id, self.generation)

    @property
    def number(self) -> int:
        """1 for the first attempt of a scheduling."""
        return activity.info().attempt

    @property
    def scheduling(self) -> str:
        """The same for all attempts of one scheduling, another after a `retry`, also in another
        execution of the run: the numbers of activities begin anew there."""
        info = activity.info()
        # The end of the id: it begins with the time.
        return f"{(info.workflow_run_id or '')[-12:]}-{info.activity_id}"


class Heart:
    """Beats for one attempt from a thread of its own: a vCenter may take a minute to answer one
    call, and that must not cost the attempt. It falls silent when the work itself does."""

    def __init__(self, attempt: Attempt) -> None:
        timeout = activity.info().heartbeat_timeout
        self._every = min(timeout.total_seconds() / 4, 2.0) if timeout else 0.0
        self._attempt = attempt
        self._stop = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="heart", daemon=True
        )

    def __enter__(self) -> Heart:
        if self._every:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._every:
            self._thread.join()

    def _run(self) -> None:
        while True:
            if time.monotonic() - self._attempt.last_beat > STALL.total_seconds():
                log.error(
                    "activity makes no progress", extra={"activity": activity.info().activity_id}
                )
                return
            details = self._attempt.details
            try:
                if details is None:
                    activity.heartbeat()
                else:
                    activity.heartbeat(details)
            except (TimeoutError, RuntimeError):
                # A busy or closing event loop: the next beat tells, the server's timeout decides.
                log.warning("heartbeat not delivered", exc_info=True)
            if self._stop.wait(self._every):
                return


def bind(
    operation: Operation[I, O],
    method: Callable[[I, Attempt], O],
    catalog: Catalog,
    *,
    recorded: bool = True,
    leased: bool = True,
    attended: bool = True,
) -> Callable[..., Any]:
    """Make an activity of a method.

    Args:
        leased: take the lease of what it works on; False for those that only read.
        recorded: write intent and result to the catalog; False where the run may not be there.
        attended: a person is asked when it fails for good; False where nobody could be, so that
            an argument which this worker does not understand waits for one that does.
    """

    def run(*given: Any) -> O:
        try:
            argument = arguments.read(operation, given)
        except VersionMismatch as error:
            head = arguments.head_of(given)
            raise misfit(error, head, catalog, recorded=recorded, attended=attended) from None
        return perform(argument)

    def perform(argument: I) -> O:
        info = activity.info()
        lease = lease_of(argument) if leased else None
        key = (argument.run.run_id, argument.step.value, object_of(argument))
        attempt = Attempt(
            catalog,
            lease,
            run_id=argument.run.run_id,
            generation=argument.generation,
            step=key if recorded else None,
        )
        try:
            turn, open_run = attempt.turn, open_run_of(argument)
            if recorded:
                first = info.attempt == 1
                beginning = Beginning(*key, mark_of(argument), argument.phase, first)
                attempt.epoch = catalog.begin_attempt(
                    beginning, lease, attempt.owner, turn, open_run
                )
                attempt.failed_before = not first
            elif lease is not None:
                attempt.epoch = catalog.take_lease(lease, attempt.owner, turn, open_run)
            with Heart(attempt):
                result = method(argument, attempt)
            if recorded:
                catalog.step_finished(*key, evidence=result.model_dump_json(), at=now())
            return result
        except Stopped as error:
            raise stopped(error) from None
        except LeaseLost as error:
            # Nothing is recorded: the row belongs to the attempt that took over.
            log.warning(
                "attempt overtaken",
                extra={"code": error.type, "attempt": attempt.owner, "why": str(error)},
            )
            raise ApplicationError(str(error), type=error.type) from None
        except FailbackError as error:
            # Without its causes: with their tracebacks the server keeps "exceeds size limit" in
            # place of the sentence that people need. They are in our log.
            raise failure(error, argument, catalog if recorded else None, key) from None
        except FailureError:
            raise
        except Exception as error:
            # Patience must hold for this too: the server would try again for ever, and nobody would
            # be asked. What it says may hold a secret and stays in our log.
            log.exception("activity ended unexpectedly", extra={"activity": operation.name})
            surprise = Unexpected(
                f"{operation.name} ended with {type(error).__name__}, which nobody has foreseen.",
                "The worker's log has the whole of it; send retry, or undo.",
            )
            raise failure(surprise, argument, catalog if recorded else None, key) from None

    run.__name__ = operation.name
    arguments.raw(run, operation)
    return activity.defn(name=operation.name, no_thread_cancel_exception=True)(run)


def stopped(error: Stopped) -> BaseException:
    """A stop that was asked for ends as a cancellation; a shutdown as a failure that is retried at
    once, on the worker that takes over; a closed window as one that is retried later."""
    if activity.is_cancelled():
        return CancelledError(str(error))
    if isinstance(error, WindowClosed):
        return ApplicationError(
            str(error),
            type=error.type,
            next_retry_delay=error.again_after,
            # Nothing is wrong, so it is neither logged nor counted as a failure.
            category=ApplicationErrorCategory.BENIGN,
        )
    return ApplicationError(str(error), type="Stopped", next_retry_delay=timedelta(milliseconds=1))


def failure(
    error: FailbackError, argument: StepCall, catalog: Catalog | None, key: tuple[str, str, str]
) -> ApplicationError:
    """Our error as an ApplicationError: retryable only while patience lasts."""
    info = activity.info()
    failing = now() - info.scheduled_time
    # A cleanup asks nobody: what hinders it may be put right in a year, whatever it is.
    endless = isinstance(argument, CleanTarget)
    if (error.retryable or endless) and catalog is not None:
        try:
            failing = catalog.step_failed(*key, error=str(error), now=now())
        except CatalogUnavailable:
            # The catalog itself is the trouble: the age of this scheduling is the next best.
            log.warning("failure could not be recorded", exc_info=True)
    patient = endless or (error.retryable and failing < argument.patience)
    if not patient and catalog is not None:
        _record_phase(catalog, argument, f"{Phase.NEEDS_OPERATOR}({argument.phase})")
    log.warning(
        "activity failed",
        extra={"activity": info.activity_type, "code": error.type, "retry": patient},
        exc_info=not isinstance(error, CatalogError),
    )
    return _told(error, failing, retry=patient)


def misfit(
    error: VersionMismatch,
    head: StepCall | None,
    catalog: Catalog,
    *,
    recorded: bool,
    attended: bool,
) -> ApplicationError:
    """An argument that this worker does not understand: a person is asked at once. Who brings the
    workers to one version has to know of it, and the next attempt would meet the same worker."""
    info = activity.info()
    log.error("argument not understood", extra={"activity": info.activity_type, "why": str(error)})
    if head is not None and not attended:
        _raise_alarm(catalog, head, f"{info.activity_type} is not done yet: {error}")
    elif head is not None and recorded:
        _record_phase(catalog, head, f"{Phase.NEEDS_OPERATOR}({head.phase})")
    return _told(error, now() - info.scheduled_time, retry=not attended)


def _told(error: FailbackError, failing: timedelta, *, retry: bool) -> ApplicationError:
    """What the workflow hears of it."""
    return ApplicationError(
        str(error),
        {
            "tried": f"{activity.info().attempt} attempts in {int(failing.total_seconds())} s",
            "unreachable": error.unreachable,
            "audience": error.audience.value,
            "evidence": error.evidence,
        },
        type=error.type,
        non_retryable=not retry,
    )


def _record_phase(catalog: Catalog, argument: StepCall, phase: str) -> None:
    """The phase is for people who look at the catalog; the failure itself matters more."""
    try:
        catalog.set_run_phase(argument.run.run_id, phase)
    except CatalogError:
        log.warning("phase could not be recorded", exc_info=True)


def _raise_alarm(catalog: Catalog, argument: StepCall, text: str) -> None:
    """The alarm is for people who look at the catalog; the failure itself matters more."""
    try:
        catalog.raise_alarm(argument.run.run_id, "VERSION_MISMATCH", text)
    except CatalogError:
        log.warning("alarm could not be recorded", exc_info=True)


def lease_of(argument: StepCall) -> str:
    """What an attempt must be the newest holder of: a mover its target disk, others the replica.

    The replica's lease spans steps and runs, so an attempt of an earlier one loses it too."""
    if isinstance(argument, DiskCall):
        return disk_lease(argument.target)
    if isinstance(argument, Preflight):
        # It must not take the replica away from a run that holds the claims.
        return f"preflight/{argument.run.run_id}"
    if isinstance(argument, CleanTarget):
        # A cleanup may last for hours and must not stand in the way of the replica's next run.
        return f"cleanup/{argument.run.run_id}"
    if isinstance(argument, SetLimits | RunHook):
        # Beside the steps and in an order of their own: neither changes a VM.
        kind = "limits" if isinstance(argument, SetLimits) else "hook"
        return f"{kind}/{argument.run.run_id}"
    return replica_lease(argument.run)


def replica_lease(run: RunRef) -> str:
    """Name of the lease on the replica of a run, and on its VMs."""
    return f"replica/{run.replica}"


def open_run_of(argument: StepCall) -> str | None:
    """The run that must still be open for this to begin: an attempt that was frozen since before
    its run ended must change nothing. Closing may be repeated, and a cleanup comes after it, as do
    the hooks of what closes a run; preflight opens a run again that it has refused."""
    if isinstance(argument, RunHook):
        after = argument.hook.when is HookWhen.AFTER and argument.hook.step in CLOSING
        return None if after else argument.run.run_id
    beyond = isinstance(argument, CleanTarget | CloseRun | Preflight)
    return None if beyond else argument.run.run_id


def disk_lease(opening: DiskOpening) -> str:
    """Name of the lease, and of the fence, of one disk of one VM."""
    return f"disk/{opening.site}/{opening.vm_moref}/{opening.disk_key}"


def object_of(argument: StepCall) -> str:
    """What a step row is about: a disk's address, a VM, or nothing in particular."""
    if isinstance(argument, DiskCall):
        return argument.plan.address
    for name in ("vm", "target", "replica"):
        vm = getattr(argument, name, None)
        if vm is not None:
            return str(vm)
    return ""


def mark_of(argument: StepCall) -> str:
    """The mark that everything created for this run carries."""
    purpose = getattr(argument, "purpose", "")
    return snapshot_name(argument.run.run_id, purpose) if purpose else argument.run.run_id


def snapshot_name(run_id: str, purpose: str) -> str:
    """Exact name of a snapshot of ours; the run id makes it unique."""
    return f"failback/{run_id}/{purpose}"


def now() -> datetime:
    """Wall clock, aware."""
    return datetime.now(UTC)
