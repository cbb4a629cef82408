"""Every timeout, heartbeat and retry preset of the workflows, each number with its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import TypedDict

from temporalio import workflow
from temporalio.common import RetryPolicy

from failback.contracts.plan import Tuning
from workflows.operations import Preset

RETRY = RetryPolicy(
    # Most retryable failures are a locked object or a worker that just died: try soon,
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    # and keep trying often enough that a site or worker that is back costs little downtime. The
    # server counts attempts and not progress, so a long pass that lost some workers waits as long.
    maximum_interval=timedelta(seconds=10),
    # Never bounded by a count: deployments use attempts up. Patience is elapsed time and is kept by
    # the activities, which turn a failure non-retryable when it has lasted too long.
    maximum_attempts=0,
)

ONCE = RetryPolicy(maximum_attempts=1)
"""A probe is one question; the engine asks again by its own schedule."""


class ActivityOptions(TypedDict, total=False):
    """Keyword arguments of `workflow.start_activity` that a preset decides."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: workflow.ActivityCancellationType


def options(preset: Preset, tuning: Tuning) -> ActivityOptions:
    """Scheduling options of one kind of work."""
    match preset:
        case Preset.CONTROL:
            return ActivityOptions(
                # The merge of a large snapshot may take hours; a stuck attempt is noticed by its
                # heartbeat long before, so this bound only ends what nothing else ends.
                start_to_close_timeout=timedelta(days=7),
                heartbeat_timeout=tuning.heartbeat_timeout,
                retry_policy=RETRY,
                # Undo must not overlap an operation that is still being sent.
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        case Preset.TRANSFER:
            return ActivityOptions(
                # 64 TiB at 100 MB/s are eight days.
                start_to_close_timeout=timedelta(days=30),
                heartbeat_timeout=tuning.heartbeat_timeout,
                retry_policy=RETRY,
                # Undo must not overlap a writer.
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        case Preset.WATCH:
            return ActivityOptions(
                # A decision may take months; one activity watches, so waiting costs no history.
                start_to_close_timeout=timedelta(days=365),
                heartbeat_timeout=max(tuning.heartbeat_timeout, timedelta(seconds=10)),
                retry_policy=RETRY,
                # It only reads: the decision need not wait for it.
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            )
        case Preset.PROBE:
            return ActivityOptions(
                # Longer than one request timeout per site, shorter than a person's patience.
                start_to_close_timeout=timedelta(minutes=5),
                retry_policy=ONCE,
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            )
