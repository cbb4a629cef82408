"""Workers die, freeze and are replaced in the middle of a pass; the bytes come out right."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from failback.contracts.words import Phase
from tests.acceptance.scene import MIB, SOURCE, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import Child, until

pytestmark = pytest.mark.acceptance

SEGMENT = 262144
SLOW = {"bandwidth_bytes_per_s": 2 * MIB}
QUICK = {"heartbeat_timeout_s": 2.0}
SEED = 20240229


def resumed(scene: Scene) -> dict[str, int]:
    """Resumed bytes of pass 1, by disk."""
    status = scene.status()
    assert status is not None
    passes = status.transfers[: len(scene.digests)]
    return {one.address: one.resumed_bytes for one in passes}


def test_workers_killed_at_random_points_of_pass_1_lose_only_unfinished_segments(
    stage: Stage,
) -> None:
    scene = stage(world(3 * MIB, MIB), transfer=SLOW, worker=QUICK)
    dice = random.Random(SEED)
    worker = scene.stack.worker()
    assert scene.start().accepted
    for victim in range(3):
        # At least one more segment each time, so that every worker had something to lose.
        done, _ = scene.ledger()
        scene.written_segments(done + dice.randint(1, 3))
        time.sleep(dice.random() * 0.2)  # between two segments, wherever that is
        worker.kill()
        assert scene.ledger()[0] < 4 * MIB // SEGMENT, f"kill {victim} came after the pass"
        worker = scene.stack.worker()

    scene.until(Phase.AWAITING_DECISION)
    found = resumed(scene)
    assert found["scsi0:0"] > 0, found
    scene.committed(scene.commit())


def test_a_worker_that_is_asked_to_stop_hands_over_at_once(stage: Stage) -> None:
    scene = stage(world(4 * MIB), transfer=SLOW)
    workers = [scene.stack.worker(ready=False) for _ in range(2)]
    for worker in workers:
        worker.says("worker ready")
    assert scene.start().accepted
    scene.written_segments(3)
    # The other one waits at the same queues, so the hand-over is all that is measured.
    (mover,) = [one for one in workers if any(descendants(one.process.pid))]
    mover.send(signal.SIGTERM)

    assert mover.wait() == 0
    stopped, (segments, done) = time.monotonic(), scene.ledger()
    assert 0 < segments < 4 * MIB // SEGMENT
    scene.written_segments(segments + 1)
    took = time.monotonic() - stopped

    print(f"handed over in {took:.2f} s after {segments} segments")
    assert took <= 2.0
    scene.until(Phase.AWAITING_DECISION)
    assert resumed(scene) == {"scsi0:0": done}
    scene.committed(scene.commit())


def freeze_in_pass_1(scene: Scene, tree: bool) -> Child:
    """Start a run and freeze its worker, with its exporters or without, while it writes."""
    worker = scene.stack.worker()
    assert scene.start().accepted
    scene.written_segments(3)
    children = tuple(descendants(worker.process.pid)) if tree else ()
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    worker.freeze()
    while scene.catalog_is_locked():
        # Frozen inside a transaction: SQLite then keeps everybody out until that process goes on
        # or ends, which is another trouble than the one of these tests.
        worker.thaw()
        until("the transaction is over", lambda: not scene.catalog_is_locked())
        worker.freeze()
    assert scene.ledger()[0] < 3 * MIB // SEGMENT
    return worker


def thawed_changes_nothing(scene: Scene, frozen: Child) -> None:
    """The frozen worker wakes up, learns that it lost, and writes nothing."""
    before, vms = scene.target_digests(), scene.vms()
    heard = len(frozen.output)
    frozen.thaw()

    # The codes of an attempt that was overtaken: by its lease, or by the death of its exporter.
    lost = re.compile(r"code=(LeaseLost|Disk(Unavailable|ReadFailed|WriteFailed|FlushFailed))")
    until("the thawed worker notices", lambda: lost.search(frozen.output[heard:]), 20)
    # It stopped at its own will; a request that it had under way would have ended by now too.
    frozen.send(signal.SIGTERM)
    assert frozen.wait() == 0
    assert scene.target_digests() == before
    assert scene.vms() == vms


def test_a_worker_frozen_with_its_exporters_loses_to_the_one_that_took_over(stage: Stage) -> None:
    scene = stage(world(3 * MIB), transfer=SLOW, worker=QUICK)
    frozen = freeze_in_pass_1(scene, tree=True)
    scene.stack.worker()
    status = scene.until(Phase.AWAITING_DECISION, timeout_s=80)
    assert status.transfers[0].resumed_bytes > 0
    scene.same_content()

    thawed_changes_nothing(scene, frozen)

    assert scene.until(Phase.AWAITING_DECISION).alarms == ()
    scene.committed(scene.commit())


def test_a_worker_frozen_while_it_writes_changes_nothing_after_the_undo_by_another(
    stage: Stage,
) -> None:
    scene = stage(world(3 * MIB), transfer=SLOW, worker=QUICK)
    frozen = freeze_in_pass_1(scene, tree=False)
    assert scene.target_digests() != scene.digests
    # A signal needs no worker to be sent; the one that is started then finds it.
    scene.wait(scene.handle.signal("undo", {"by": "ann"}))
    scene.stack.worker()
    scene.undone(scene.ended(80))

    thawed_changes_nothing(scene, frozen)

    assert scene.events(SOURCE, "power-on") == []
    assert scene.target_digests() == scene.digests
    assert scene.detail().runs[0].phase == Phase.CLOSED


def descendants(pid: int) -> Iterator[int]:
    """Children of a process and theirs: supervisors and exporters."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from descendants(int(child))
