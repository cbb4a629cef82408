"""Healthy: the Temporal server knows this container's worker as a poller of its queue.

A process that runs but has lost the server, or polls another queue, is not healthy.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

from failback.settings import load_settings
from starter.plugin import connect

SEEN_WITHIN_S = 150.0
"""A poll waits up to a minute; the server forgets a poller after five."""


async def is_polled(queue: str) -> bool:
    """Whether a worker on this host has lately asked this queue for work."""
    client = await connect(os.environ)
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    # The SDK's identity of a worker is <process>@<host>.
    ours = f"@{socket.gethostname()}"
    oldest = time.time() - SEEN_WITHIN_S
    return any(
        poller.identity.endswith(ours) and poller.last_access_time.ToSeconds() > oldest
        for poller in answer.pollers
    )


def main() -> int:
    """0 when healthy, for the container engine."""
    queue = load_settings(None, os.environ).temporal.task_queue
    if asyncio.run(is_polled(queue)):
        return 0
    print(f"no worker on this host polls {queue}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    except Exception as error:
        # Every reason means the same to the engine; the sentence is for who reads its log.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.stderr.flush()
    # The Temporal core may abort the interpreter while it finalises (sdk-python issue 300).
    os._exit(status)
