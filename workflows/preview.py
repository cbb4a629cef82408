"""Workflow `FailbackPreview`: what a failback would do, without doing any of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from failback.contracts.operations import RunRef
from failback.contracts.plan import Finding, Tuning
from failback.contracts.preview import LookAhead, LookAheadResult, Preview
from failback.contracts.start import StartRequest
from failback.contracts.words import Severity, StepName
from workflows import inputs
from workflows.operations import LOOK_AHEAD
from workflows.options import options
from workflows.planned import Forecast, downtime, duration, over_budget, planned_steps, remarks


@workflow.defn(name="FailbackPreview")
class PreviewWorkflow:
    """Checks as a run does, claims nothing, and says what the run would do."""

    @workflow.run
    async def run(self, *raw: Any) -> Preview:
        """The answer; input that is not understood is a finding like any other."""
        try:
            request = inputs.start_request(raw)
        except inputs.NotUnderstood as error:
            return Preview(accepted=False, findings=(error.finding(),))
        try:
            seen = await self._look(request)
        except ActivityError as error:
            # Expected errors are findings already: this is a worker that broke.
            text = f"The checks could not be made: {error.cause}."
            remedy = "See the log of `failback-worker`, then ask again."
            failed = _finding("PREVIEW_FAILED", request.replica, text, remedy)
            return _refused(request, (failed,))
        if seen.plan is None:
            return _refused(request, seen.findings)
        steps = planned_steps(request, seen.plan, seen.disks)
        down = downtime(steps)
        return Preview(
            replica=request.replica,
            destination=request.destination,
            accepted=True,
            findings=seen.findings + over_budget(request, down),
            steps=steps,
            disks=seen.disks,
            plan_hash=seen.plan.plan_hash,
            duration=duration(steps),
            downtime=down,
            rests_on=Forecast(request, seen.plan, seen.disks).rests_on(),
            remarks=remarks(request, seen.plan),
            plan=seen.plan,
        )

    async def _look(self, request: StartRequest) -> LookAheadResult:
        argument = LookAhead(
            run=RunRef(run_id=workflow.info().run_id, replica=request.replica),
            step=StepName.PREFLIGHT,
            # Somebody waits for the answer in front of a terminal.
            patience=timedelta(minutes=1),
            request=request,
        )
        result: LookAheadResult = await workflow.execute_activity(
            LOOK_AHEAD.name,
            argument,
            result_type=LOOK_AHEAD.result,
            summary="Check everything, change nothing",
            **options(LOOK_AHEAD.preset, Tuning()),
        )
        return result


def _refused(request: StartRequest, findings: tuple[Finding, ...]) -> Preview:
    return Preview(
        replica=request.replica,
        destination=request.destination,
        accepted=False,
        findings=findings,
    )


def _finding(code: str, subject: str, text: str, remedy: str = "") -> Finding:
    return Finding(code=code, severity=Severity.REFUSE, object=subject, message=text, remedy=remedy)
