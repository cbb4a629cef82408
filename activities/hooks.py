"""Hooks: calls of the worker's settings before and after steps."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from temporalio import activity

from activities.edge import Attempt, now
from failback.catalog.repository import Catalog
from failback.contracts.operations import HookResult, RunHook, StepCall
from failback.contracts.vm import VmIdentity
from failback.contracts.words import StepName
from failback.errors import StateConflict, Stopped
from failback.hooks.calls import CalledVm, Calls, Occasion

log = logging.getLogger(__name__)

KEPT_TEXT = 2000
"""Of a sentence about a call."""


@dataclass(frozen=True)
class HookActivities:
    """Calls hooks by their names in the settings."""

    calls: Calls
    catalog: Catalog

    def run_hook(self, argument: RunHook, attempt: Attempt) -> HookResult:
        """Make one call; its failure is a result, and the policy of the request decides.

        Idempotent because a hook is told a key that all attempts of one call share: it is called
        at least once, and what it does twice is for it to notice. A call made again by `retry`, or
        in another cycle, has another key.
        """
        hook = argument.hook
        occasion = Occasion(
            run=argument.run.run_id,
            replica=argument.run.replica,
            hook=hook.name,
            when=hook.when.value,
            step=hook.step.value,
            key=key_of(argument, attempt, f"{hook.step}/{hook.when}/{hook.name}"),
            replica_vm=called(argument.replica_vm),
            target_vm=called(argument.target_vm),
        )
        key = (argument.run.run_id, StepName.HOOK.value, f"{hook.name} {hook.when} {hook.step}")
        recorded = self._begun(key, occasion.key)
        made = self.calls.call(occasion, hook.timeout, partial(go_on, attempt))
        result = HookResult(ok=made.ok, output=made.output, evidence=made.evidence[:KEPT_TEXT])
        log.info(
            "hook called",
            extra={"hook": hook.name, "run": occasion.run, "ok": made.ok, "how": made.evidence},
        )
        if recorded:
            self.catalog.step_finished(*key, evidence=result.model_dump_json(), at=now())
        return result

    def _begun(self, key: tuple[str, str, str], mark: str) -> bool:
        """Write down that the call is about to be made, in a row of its own: a step that has not
        begun must not look as if it had. False before preflight: there is no run yet."""
        try:
            self.catalog.step_intent(*key, mark=mark, at=now())
        except StateConflict:
            return False
        return True


def go_on(attempt: Attempt) -> None:
    """As `Attempt.beat`, but a worker that shuts down lets a call end within its grace: one that
    is ended in the middle is made again from the start."""
    try:
        attempt.beat()
    except Stopped:
        if activity.is_cancelled() or not activity.is_worker_shutdown():
            raise


def key_of(argument: StepCall, attempt: Attempt, what: str) -> str:
    """`RUN/STEP/WHEN/NAME/SCHEDULING`: the same for all attempts of one scheduled call."""
    return f"{argument.run.run_id}/{what}/{attempt.scheduling}"


def occasion_of(
    argument: StepCall, attempt: Attempt, replica: VmIdentity | None, target: VmIdentity
) -> Occasion:
    """What a hook that is asked as a probe gets to know."""
    return Occasion(
        run=argument.run.run_id,
        replica=argument.run.replica,
        hook="",
        when="probe",
        step=argument.step.value,
        key=key_of(argument, attempt, f"{argument.step}/probe"),
        replica_vm=called(replica),
        target_vm=called(target),
    )


def called(vm: VmIdentity | None) -> CalledVm | None:
    """A VM as a hook gets to know it."""
    return None if vm is None else CalledVm(vm.name, vm.site, vm.moref)
