"""The checks of preflight for people who only want to look, and the judgement both share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from activities.edge import Attempt
from activities.gathering import Gathering
from failback.catalog.records import ReplicaRecord
from failback.catalog.replicas import claim_of
from failback.catalog.repository import Catalog
from failback.contracts.plan import Finding, RunPlan
from failback.contracts.preview import LookAhead, LookAheadResult
from failback.contracts.start import StartRequest
from failback.contracts.words import Severity
from failback.errors import CatalogUnavailable, FailbackError, SiteBusy, SiteUnreachable
from failback.preflight import forecast
from failback.preflight.checks import check
from failback.preflight.evidence import Evidence, refuse
from failback.preflight.findings import of_error
from failback.preflight.plan_hash import Known, plan_hash, plan_kept


@dataclass(frozen=True)
class Judgement:
    """What the checks found; `plan` is None exactly when something refuses."""

    findings: tuple[Finding, ...]
    plan: RunPlan | None = None


def judge(
    gathering: Gathering,
    evidence: Evidence,
    record: ReplicaRecord,
    more: Sequence[Finding] = (),
) -> Judgement:
    """Every check, then the question whether the world is still that of the plan asked for.

    Args:
        more: findings that are not made from the evidence.
    """
    jobs = [job.name for job in gathering.catalog.replica_detail(record.key).jobs]
    now = plan_hash(Known(evidence, record.source, jobs))
    findings = tuple(more) + plan_kept(evidence, now) + check(evidence)
    findings = tuple(sorted(findings, key=lambda finding: finding.severity.value))
    if any(finding.severity is Severity.REFUSE for finding in findings):
        return Judgement(findings)
    plan = gathering.plan(evidence, record).model_copy(update={"plan_hash": now})
    return Judgement(findings, plan)


@dataclass(frozen=True)
class PreviewActivities:
    """Looking without touching."""

    catalog: Catalog
    gathering: Gathering

    def look_ahead(self, argument: LookAhead, attempt: Attempt) -> LookAheadResult:
        """What preflight would find now. Claims that a run holds are a finding among the others.

        Idempotent because it only reads.
        """
        request = argument.request
        try:
            return self._look(request, attempt)
        except (SiteUnreachable, SiteBusy, CatalogUnavailable) as error:
            if request.auto_retry and attempt.number < 3:
                raise
            return LookAheadResult(findings=(of_error(error, request.replica),))
        except FailbackError as error:
            return LookAheadResult(findings=(of_error(error, request.replica),))

    def _look(self, request: StartRequest, attempt: Attempt) -> LookAheadResult:
        record = self.catalog.get_replica(request.replica)
        claims = [f"replica:{request.replica}", claim_of(record.replica), claim_of(record.source)]
        held = self._held(claims, request.replica)
        try:
            wanted = self.gathering.target(request, record)
            if wanted.identity.moref:
                held = self._held([*claims, claim_of(wanted.identity)], request.replica)
            evidence = self.gathering.evidence(request, record, wanted, attempt)
        except (SiteUnreachable, SiteBusy, CatalogUnavailable):
            raise
        except FailbackError as error:
            return LookAheadResult(findings=(*held, of_error(error, request.replica)))
        judged = judge(self.gathering, evidence, record, held)
        if judged.plan is None:
            return LookAheadResult(findings=judged.findings)
        return LookAheadResult(
            findings=judged.findings, plan=judged.plan, disks=forecast.disks(evidence)
        )

    def _held(self, claims: Sequence[str], key: str) -> tuple[Finding, ...]:
        """A finding for each run that holds what a run of this replica would claim."""
        holders: dict[str, list[str]] = {}
        for claim in self.catalog.claims():
            if claim.object in claims:
                holders.setdefault(claim.run_id, []).append(claim.object)
        return tuple(
            refuse(
                "CLAIM_HELD",
                key,
                f"Run {run} holds {', '.join(sorted(objects))}.",
                "Commit or undo that run; if its workflow is terminated, run `failback reconcile`.",
            )
            for run, objects in holders.items()
        )
