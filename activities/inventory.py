"""Reading both VMs: preflight, the drift check before the switch, and the probe."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from activities.attest import power_of, told
from activities.edge import Attempt, replica_lease
from activities.gathering import Gathering
from activities.hooks import occasion_of
from activities.preview import judge
from activities.probes import Asker, words_of
from failback.catalog.replicas import claim_of
from failback.catalog.repository import Catalog
from failback.contracts.operations import (
    CheckDrift,
    Done,
    Preflight,
    PreflightResult,
    Probe,
    ProbeResult,
    TargetGuard,
)
from failback.contracts.plan import RunPlan
from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import (
    CatalogUnavailable,
    ClaimHeld,
    FailbackError,
    ReplicaGrown,
    ReplicaUnknown,
    SiteBusy,
    SiteUnreachable,
    VmChanged,
)
from failback.hypervisor.ports import Sites
from failback.preflight.drift import Drift, drifts, hardware_drifts
from failback.preflight.findings import of_error

log = logging.getLogger(__name__)

KEPT_TEXT = 2000
"""Of a sentence about what could not be read."""


@dataclass(frozen=True)
class InventoryActivities:
    """Activities that read sites and compare what they read with what was promised."""

    sites: Sites
    catalog: Catalog
    gathering: Gathering

    def preflight(self, argument: Preflight, attempt: Attempt) -> PreflightResult:
        """Claim the VMs, read them once, run every check; a refusal releases the claims.

        Idempotent because claims of the same run are taken once, and everything else is reading.
        """
        run, request = argument.run, argument.request
        try:
            record = self.catalog.get_replica(request.replica)
        except ReplicaUnknown as error:
            return PreflightResult(findings=(of_error(error, request.replica),))
        lease = (attempt.lease, attempt.epoch) if attempt.lease is not None else None
        self.catalog.open_run(
            run.run_id, f"failback/{run.replica}", request.replica, request, lease
        )
        try:
            claims = [f"replica:{request.replica}", claim_of(record.replica)]
            self.catalog.claim(run.run_id, [*claims, claim_of(record.source)])
            wanted = self.gathering.target(request, record)
            if wanted.identity.moref:
                self.catalog.claim(run.run_id, [claim_of(wanted.identity)])
            evidence = self.gathering.evidence(request, record, wanted, attempt)
        except ClaimHeld as error:
            self.catalog.close_refused(run.run_id)
            return PreflightResult(findings=(of_error(error, request.replica),))
        except (SiteUnreachable, SiteBusy, CatalogUnavailable) as error:
            if request.auto_retry and attempt.number < 3:
                raise
            self._end(argument, attempt, None)
            return PreflightResult(findings=(of_error(error, request.replica),))
        except FailbackError as error:
            self._end(argument, attempt, None)
            return PreflightResult(findings=(of_error(error, request.replica),))
        judged = judge(self.gathering, evidence, record)
        self._end(argument, attempt, judged.plan)
        return PreflightResult(findings=judged.findings, plan=judged.plan)

    def _end(self, argument: Preflight, attempt: Attempt, plan: RunPlan | None) -> None:
        """Record how it ended. The replica's lease is taken only here, when the claims are ours: an
        attempt that was frozen must not refuse, or plan anew, a run that has gone on."""
        text = plan.model_dump_json() if plan is not None else None
        lease = replica_lease(argument.run)
        self.catalog.end_preflight(argument.run.run_id, lease, attempt.owner, attempt.turn, text)

    def check_drift(self, argument: CheckDrift, attempt: Attempt) -> Done:
        """Stop before the replica goes off when either VM is not what the plan says.

        Idempotent because it only reads.
        """
        plan = argument.plan
        replica = self.sites.site(plan.replica.site).read([plan.replica])[0]
        attempt.beat()
        if found := drifts(plan, replica, argument.leave_behind):
            told = f"REPLICA_DRIFTED: {plan.replica}: {'; '.join(one.what for one in found)}."
            if all(one.grown for one in found):
                raise ReplicaGrown(
                    told,
                    "Send retry with rebase_target: the target is reverted, grown and protected "
                    "anew, and everything is compared again; undo cannot shrink it. Or send undo.",
                )
            raise VmChanged(told, "Send undo and start again.")
        if argument.made is not None and (found := self._unlike(plan.replica, argument.made)):
            raise VmChanged(
                f"REPLICA_DRIFTED: {plan.replica} and {argument.made}, which was made like it: "
                f"{'; '.join(one.what for one in found)}.",
                "Make both alike by hand and send retry, or send undo and start again.",
            )
        require_untouched(self.sites, argument.guard, moved_is_fatal=True)
        return Done(evidence="both VMs are as planned")

    def _unlike(self, replica: VmIdentity, made: VmIdentity) -> tuple[Drift, ...]:
        theirs = self.sites.site(replica.site).configuration(replica)
        return hardware_drifts(theirs, self.sites.site(made.site).configuration(made))

    def probe(self, argument: Probe, attempt: Attempt) -> ProbeResult:
        """Ask each site, and for each VM, once. Idempotent because it only reads."""
        answers = []
        try:
            for name in dict.fromkeys(argument.sites):
                attempt.beat()
                answers.append(f"{name}: {self.sites.site(name).ping()}")
            for vm in (*argument.must_be_off, *argument.power_known):
                attempt.beat()
                power = power_of(self.sites, vm)
                if power is PowerState.UNKNOWN or (
                    vm in argument.must_be_off and power is not PowerState.OFF
                ):
                    return ProbeResult(reachable=False, evidence=f"{vm} is {power}")
        except FailbackError as error:
            return ProbeResult(reachable=False, evidence=str(error)[:KEPT_TEXT])
        if wrong := self._workload(argument, attempt):
            return ProbeResult(reachable=False, evidence=wrong[:KEPT_TEXT])
        return ProbeResult(reachable=True, evidence="; ".join(answers)[:KEPT_TEXT])

    def _workload(self, argument: Probe, attempt: Attempt) -> str:
        """The first probe that does not hold; empty when all do."""
        if argument.target is None:
            return ""
        replica = next(iter(argument.must_be_off), None)
        occasion = occasion_of(argument, attempt, replica, argument.target)
        asker = Asker(self.sites, self.gathering.calls, argument.target, occasion)
        for probe in argument.probes:
            if wrong := asker.ask(probe, attempt.beat):
                return f"{words_of(probe)}: {wrong}"
        return ""


@dataclass(frozen=True)
class TargetLook:
    """What a look at the target said about the bytes we wrote to it."""

    fatal: str
    """Why it must not be written now; empty when it may."""
    moved: str
    """Why somebody else may have changed it since; empty when nobody is known to have."""
    unread: str
    """Why nobody can say whether somebody did: what is written then must be compared as a whole."""
    guard: TargetGuard
    """The target as it is now."""


def look_at_target(sites: Sites, guard: TargetGuard) -> TargetLook:
    """Compare the target with what it was (invariant I2b): still off, our snapshot current, no
    other disk or file, no power-on since."""
    site = sites.site(guard.target.site)
    view = told(site.read([guard.target])[0])
    files = {disk.file for disk in view.disks}
    fatal = ""
    if view.power is not PowerState.OFF:
        fatal = f"it is {view.power}"
    elif guard.snapshot is not None and view.current_snapshot != guard.snapshot:
        fatal = f"its current snapshot is {view.current_snapshot}, not ours ({guard.snapshot})"
    elif files != set(guard.files):
        fatal = "its disks are others than those we wrote"
    mark, moved, unread = site.power_mark(guard.target), "", ""
    if mark is None or guard.power_mark is None:
        unread = "its power-on events cannot be read"
    elif mark != guard.power_mark:
        moved = "it was powered on meanwhile"
    return TargetLook(fatal, moved, unread, guard.model_copy(update={"power_mark": mark}))


def require_untouched(sites: Sites, guard: TargetGuard, *, moved_is_fatal: bool) -> TargetLook:
    """Look, and raise VmChanged where the target must not be written or believed.

    A host that does not tell power-ons is no reason to stop: the next pass compares whole disks,
    and verification reads them as a whole.
    """
    look = look_at_target(sites, guard)
    trouble = look.fatal or (look.moved if moved_is_fatal else "")
    if trouble:
        raise VmChanged(
            f"TARGET_DRIFTED: {guard.target} was touched during the run: {trouble}.",
            "Send undo and start again.",
        )
    return look
