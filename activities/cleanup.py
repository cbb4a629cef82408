"""After a commit: what the run left on the target VM is taken away, in its own time."""

from __future__ import annotations

from dataclasses import dataclass

from activities.edge import Attempt, now, snapshot_name
from activities.snapshots import (
    STATE_ATTRIBUTE,
    TARGET_PURPOSE,
    clear_attribute,
    description_of,
)
from failback.catalog.replicas import claim_of
from failback.catalog.repository import Catalog
from failback.contracts.operations import CleanTarget, Done
from failback.contracts.words import PowerState
from failback.errors import CatalogError, ClaimHeld, FailbackError, LeaseLost, Stopped, VmNotFound
from failback.hypervisor.ports import Sites

ALARM = "CLEANUP"


@dataclass(frozen=True)
class CleanupActivities:
    """Nobody waits for it, so whatever hinders it is an alarm, and it is tried again."""

    sites: Sites
    catalog: Catalog

    def clean_target(self, argument: CleanTarget, attempt: Attempt) -> Done:
        """Remove the target protective snapshot, give tracking back, clear the marks.

        Idempotent because each part is a state that is read first.
        """
        run_id, target = argument.run.run_id, argument.target
        try:
            evidence = self._clean(argument, attempt)
        except (Stopped, LeaseLost, CatalogError):
            # ClaimHeld among them: to wait for another run is no trouble.
            raise
        except VmNotFound:
            gone = (
                f"The cleanup after the commit has ended: {target} is gone from its site, so "
                "nothing is left to tidy up. If it is registered there anew, remove its snapshot "
                f"{snapshot_name(run_id, TARGET_PURPOSE)} by hand"
                f"{' and switch its change tracking on' if argument.tracking_was else ''}."
            )
            self._alarm(argument, gone)
            return Done(evidence=f"{target} is gone", alarm=gone)
        except Exception as error:
            # What nobody has foreseen may quote a secret: its words stay in our log.
            named = isinstance(error, FailbackError)
            why = str(error) if named else f"{type(error).__name__}, which nobody has foreseen."
            self._alarm(
                argument,
                f"The cleanup after the commit is not done yet: {why} It is tried again at least "
                "every hour; at once, if you like, by "
                f"`failback reconcile {argument.run.replica} --finish cleanup`.",
            )
            raise
        if any(alarm.code == ALARM for alarm in self.catalog.alarms(run_id)):
            self._alarm(argument, "The cleanup after the commit was hindered, and is done by now.")
        return Done(evidence=evidence)

    def _alarm(self, argument: CleanTarget, text: str) -> None:
        self.catalog.raise_alarm(argument.run.run_id, ALARM, text, lasting=True)

    def _clean(self, argument: CleanTarget, attempt: Attempt) -> str:
        site = self.sites.site(argument.target.site)
        target, run_id = argument.target, argument.run.run_id

        def beat() -> None:
            attempt.beat()
            self._require_free(argument)

        beat()
        name = snapshot_name(run_id, TARGET_PURPOSE)
        removed = site.remove_snapshot(target, name, run_id, beat)
        stun = snapshot_name(run_id, "stun")
        if argument.tracking_was:
            # Never off: the run has not switched it on, so whoever did wants it.
            site.set_change_tracking(target, True, beat)
            done = run_id, f"{argument.step.value}/stun", target.moref
            running = site.read([target])[0].power is PowerState.ON
            if running and not self.catalog.has_step(*done):
                # On a running VM tracking begins only with the next stun: a snapshot gives it one.
                site.create_snapshot(target, stun, description_of(argument), beat)
                site.remove_snapshot(target, stun, run_id, beat)
                self.catalog.step_intent(*done, mark=stun, at=now())
        # An attempt that died in between left it, and the VM may be off by now.
        site.remove_snapshot(target, stun, run_id, beat)
        # The VM that the run made is production's from here on: nobody may delete it as ours.
        site.clear_mark(target, run_id, beat)
        clear_attribute(site, target, STATE_ATTRIBUTE, run_id, beat)
        # A run that has claimed the target meanwhile may have read its tracking before it was back.
        # It looks whether this cleanup has ended: it must not have, then.
        beat()
        return f"target protective snapshot {'removed' if removed else 'was gone'}"

    def _require_free(self, argument: CleanTarget) -> None:
        """The target belongs to the run that has claimed it: tracking that comes on would miss what
        it writes, and a merge would stand in its way. It has a snapshot of its own, and gives
        tracking back as we would."""
        claimed = claim_of(argument.target)
        for claim in self.catalog.claims():
            if claim.object == claimed and claim.run_id != argument.run.run_id:
                raise ClaimHeld(
                    f"Run {claim.run_id} works on {argument.target}: what run "
                    f"{argument.run.run_id} left there is tidied up when that has ended.",
                    "Nothing is to be done.",
                )
