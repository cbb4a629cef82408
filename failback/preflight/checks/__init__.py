"""One small function per check: evidence in, findings out. Pure, so tables test them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from failback.contracts.plan import Finding
from failback.preflight.checks import carry, disks, places, run, vms
from failback.preflight.evidence import Evidence

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    *run.CHECKS,
    *vms.CHECKS,
    *disks.CHECKS,
    *places.CHECKS,
    *carry.CHECKS,
)


def check(evidence: Evidence) -> tuple[Finding, ...]:
    """Run every check; refusals first."""
    findings = [finding for one in CHECKS for finding in one(evidence)]
    return tuple(sorted(findings, key=lambda finding: finding.severity.value))
