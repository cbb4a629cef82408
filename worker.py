"""The worker process: settings -> adapters -> workers; SIGTERM drains. Nothing else."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig

from activities.registry import Activities, build
from failback import logging as logs
from failback.errors import FailbackError
from failback.ownership import check_ownership
from failback.settings import Settings, load_settings
from starter.plugin import connect, ensure_search_attributes
from workflows.cleanup import CleanupWorkflow
from workflows.failback import FailbackWorkflow
from workflows.preview import PreviewWorkflow
from workflows.reconcile import ReconcileWorkflow
from workflows.runtime import mover_queue

log = logging.getLogger("failback.worker")

CONTROL_SLOTS = 50
"""Control activities mostly wait for a site; one of each open run watches for the decision."""

STICKY = timedelta(seconds=2)
"""How long a run waits for the worker that knows it before it goes to another one: when a worker
dies during the switch this is downtime (the SDK's default is 10 s)."""

WAIT_S = 5.0
"""Between two tries to reach a Temporal server or a catalog that is away or locked."""

HEARTBEAT_THROTTLE = timedelta(seconds=1)
"""Live numbers are at most this old, and a crash loses at most this much of them; the journal is
the ledger, so this is about what people see."""


def deployment(settings: Settings) -> WorkerDeploymentConfig | None:
    """Which version of which deployment these workers are; None without worker versioning.

    Runs move to the deployment's current version at their next step: they wait for weeks, and
    replay is what makes them safe in newer code, so none is pinned to the version it began with.
    """
    temporal = settings.temporal
    if not temporal.deployment:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(
            deployment_name=temporal.deployment, build_id=temporal.build_id or version("failback")
        ),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


def control_worker(client: Client, settings: Settings, activities: Activities) -> Worker:
    """Workflows, and the activities that talk to sites and the catalog."""
    return Worker(
        client,
        task_queue=settings.temporal.task_queue,
        workflows=[FailbackWorkflow, CleanupWorkflow, PreviewWorkflow, ReconcileWorkflow],
        activities=activities.control,
        activity_executor=ThreadPoolExecutor(CONTROL_SLOTS, thread_name_prefix="control"),
        max_concurrent_activities=CONTROL_SLOTS,
        sticky_queue_schedule_to_start_timeout=STICKY,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=timedelta(seconds=settings.worker.graceful_shutdown_s),
        deployment_config=deployment(settings),
    )


def mover_worker(client: Client, settings: Settings, activities: Activities, site: str) -> Worker:
    """The activities that move bytes to the disks of one site: few slots, one thread each."""
    slots = settings.worker.movers
    return Worker(
        client,
        task_queue=mover_queue(settings.temporal.task_queue, site),
        activities=activities.mover,
        activity_executor=ThreadPoolExecutor(slots, thread_name_prefix=f"mover-{site}"),
        max_concurrent_activities=slots,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=timedelta(seconds=settings.worker.graceful_shutdown_s),
        deployment_config=deployment(settings),
    )


async def prepare(settings: Settings, stop: asyncio.Event) -> tuple[Client, Activities] | None:
    """Server and adapters; waits for those that are away or locked. None when asked to stop."""
    while True:
        try:
            client = await connect(os.environ)
            await ensure_search_attributes(client)
            return client, build(settings)
        except FailbackError as error:
            if not error.retryable:
                raise
            log.warning("worker waits", extra={"reason": str(error)})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WAIT_S)
            return None


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`; then finish or hand over what is under way."""
    prepared = await prepare(settings, stop)
    if prepared is None:
        return
    client, activities = prepared
    workers = [control_worker(client, settings, activities)]
    workers += [mover_worker(client, settings, activities, site) for site in settings.sites]
    async with contextlib.AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        log.info("worker ready", extra={"queues": [worker.task_queue for worker in workers]})
        await stop.wait()
        log.info("worker draining")
    activities.close()
    log.info("worker stopped")


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await serve(settings, stop)


def main() -> None:
    """Entry point `failback-worker`."""
    parser = argparse.ArgumentParser("failback-worker", description=__doc__)
    parser.add_argument("--settings", type=Path, help="settings file (default: FAILBACK_SETTINGS)")
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--log-json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args()
    logs.configure(arguments.log_level, json=arguments.log_json)
    status = 0
    try:
        check_ownership()
        asyncio.run(run(load_settings(arguments.settings, os.environ)))
    except FailbackError as error:
        log.error("worker cannot start", extra={"reason": str(error)})
        status = 2
    except KeyboardInterrupt:
        status = 130
    except Exception:
        log.exception("worker failed")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # The Temporal core may abort the interpreter while it finalises (sdk-python issue 300); what
    # had to be closed is closed above.
    os._exit(status)


if __name__ == "__main__":
    main()
