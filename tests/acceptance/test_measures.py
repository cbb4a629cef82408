"""What orchestration costs: seconds beside the sites' and the disks' own, events, payloads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from failback.contracts.status import Status
from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, Scene, world
from tests.acceptance.stage import stager
from tests.helpers.stack import TemporalServer

pytestmark = pytest.mark.acceptance

EVENTS_OF_TWO_DISKS = 200
EVENTS_OF_A_FURTHER_DISK = 25
PAYLOAD_BYTES = 16 * 1024
ORCHESTRATION = 4.0
"""Times what a Python process takes to load the larger libraries: two seconds where that takes half
a second. Machines are shared, and seconds of theirs say little."""


def payloads(message: Message) -> Iterator[Payload]:
    """Every payload anywhere in a message."""
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            items: Any = value.values()
        else:
            items = value if field.is_repeated else (value,)
        for item in items:
            if isinstance(item, Message):
                yield from payloads(item)


def measured(scene: Scene) -> tuple[float, Status]:
    """Bring a run to the decision; seconds that neither the sites' tasks nor the copies took."""
    scene.lab.post("/calls/reset")
    assert scene.start().accepted
    status = scene.until(Phase.AWAITING_DECISION)
    tasks = float(scene.lab.get("/calls")["task_wall_seconds"])
    copies = sum(one.seconds for one in status.transfers)
    events = scene.wait(scene.handle.fetch_history()).events
    watch = next(
        event
        for event in events
        if event.activity_task_scheduled_event_attributes.activity_type.name == "watch_decision"
    )
    took = watch.event_time.ToNanoseconds() - events[0].event_time.ToNanoseconds()
    took_s = took / 1e9
    print(
        f"\n  start to decision {took_s:.2f} s, tasks {tasks:.2f} s, copies {copies:.2f} s, "
        f"orchestration {took_s - tasks - copies:.2f} s"
    )
    return took_s - tasks - copies, status


def yardstick() -> float:
    """Seconds that this machine needs just now to start Python with the larger libraries."""
    began = time.monotonic()
    code = "import temporalio.client, sqlmodel, pyVmomi"
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began


def of_commit(scene: Scene) -> WorkflowHistory:
    """Commit the run that awaits the decision; its whole history."""
    handle = scene.handle
    scene.committed(scene.commit())
    return scene.wait(handle.fetch_history())


def largest_payload(history: WorkflowHistory) -> tuple[int, str]:
    """Size of the largest payload of a history, and the kind of its event."""
    sizes = [
        (len(payload.data), EventType.Name(event.event_type))
        for event in history.events
        for payload in payloads(event)
    ]
    return max(sizes)


@dataclass(frozen=True)
class Measures:
    """What three runs of two disks and one of three disks cost."""

    ratios: list[float]
    """Of the seconds of each run to the yardstick right before and after it."""
    two: WorkflowHistory
    three: WorkflowHistory


@pytest.fixture(scope="module")
def measures(
    server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Measures]:
    """The runs are made once; each test below looks at one side of them."""
    with ExitStack() as ending:
        folder = tmp_path_factory.mktemp("measures")
        stage = stager(server, folder, "measures", ending.callback)
        two = stage(world(MIB, MIB))
        two.stack.worker()
        ratios = []
        for last in (False, False, True):
            before = yardstick()
            seconds = measured(two)[0]
            ratios.append(seconds / ((before + yardstick()) / 2))
            if not last:
                two.undone(two.undo())
        of_two = of_commit(two)
        three = stage(world(MIB, MIB, MIB))
        three.stack.worker()
        measured(three)
        yield Measures(ratios, of_two, of_commit(three))


def test_orchestration_takes_at_most_what_four_starts_of_python_take(measures: Measures) -> None:
    print(f"\n  orchestration, in starts of Python: {measures.ratios}")
    assert min(measures.ratios) <= ORCHESTRATION, measures.ratios


def test_the_history_of_two_disks_and_a_commit_has_at_most_200_events(measures: Measures) -> None:
    print(f"\n  events of two disks: {len(measures.two.events)}")
    assert len(measures.two.events) <= EVENTS_OF_TWO_DISKS


def test_a_further_disk_costs_at_most_25_events(measures: Measures) -> None:
    further = len(measures.three.events) - len(measures.two.events)
    print(f"\n  events of a further disk: {further}")
    assert further <= EVENTS_OF_A_FURTHER_DISK


def test_no_payload_is_larger_than_16_kib(measures: Measures) -> None:
    found = [largest_payload(history) for history in (measures.two, measures.three)]
    print(f"\n  largest payloads of two and three disks: {found}")
    assert max(size for size, _ in found) <= PAYLOAD_BYTES
