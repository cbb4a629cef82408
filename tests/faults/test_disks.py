"""Disks that fail: every fault ends in equality or in a typed error with its place and remedy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from failback.disks.exporter import NbdkitCommand
from failback.disks.plan import Extent
from tests.faults import servers
from tests.faults.matrix import Matrix
from tests.faults.mover import Ending
from tests.faults.scene import Scene, gone, kill
from tests.faults.servers import REGION
from tests.helpers.disks import MIB, eventually, exporter_pid, supervisor_pid

NewScene = Callable[..., Scene]
WHOLE = Extent(0, 1 << 62)


def told(ending: Ending, code: str, where: Extent = WHOLE) -> None:
    """The error has that code, and its offset and length touch that region."""
    assert ending.code == code, ending
    offset, length = ending.evidence["offset"], ending.evidence.get("length", 1)
    assert isinstance(offset, int)
    assert isinstance(length, int)
    assert offset < where.end
    assert where.offset < offset + length


Make = Callable[[Scene], dict[str, NbdkitCommand]]
FAILING: list[tuple[str, str, Extent, Make]] = [
    ("no room on the target", "DiskFull", WHOLE, lambda _: {"to_target": servers.errors("ENOSPC")}),
    (
        "every write fails",
        "DiskWriteFailed",
        WHOLE,
        lambda _: {"to_target": servers.errors("EIO")},
    ),
    (
        "writes fail in a region",
        "DiskWriteFailed",
        REGION,
        lambda scene: {
            "to_target": servers.evaluated(
                scene.root / "server", scene.target, pwrite=servers.IN_REGION
            )
        },
    ),
    (
        "reads of the source fail in a region",
        "DiskReadFailed",
        REGION,
        lambda scene: {"from_source": servers.bad_sectors(scene.root, scene.size)},
    ),
    (
        "reads of the target fail in a region",
        "DiskReadFailed",
        REGION,
        lambda scene: {
            "to_target": servers.evaluated(
                scene.root / "server", scene.target, pread=servers.IN_REGION
            )
        },
    ),
    (
        "a region is write-protected",
        "DiskReadOnly",
        REGION,
        lambda _: {"to_target": servers.PROTECTED},
    ),
]


@pytest.mark.parametrize(
    ("fault", "code", "where", "make"), FAILING, ids=[case[0] for case in FAILING]
)
def test_requests_that_fail(
    scene: NewScene, matrix: Matrix, fault: str, code: str, where: Extent, make: Make
) -> None:
    here = scene()
    here.damage(REGION)

    ending = here.attempt(**make(here))

    told(ending, code, where)
    assert here.wrong_segments() == []
    here.finish()
    matrix.add(fault, ending)


def test_a_flush_that_fails(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    broken = servers.evaluated(here.root / "server", here.target, flush="echo EIO lost >&2; exit 1")

    ending = here.attempt(to_target=broken)

    assert ending.code == "DiskFlushFailed"
    assert here.finished() == set(), "nothing counts as done without a flush"
    assert here.fence().doubt_path.exists()
    here.finish()
    matrix.add("a flush fails", ending)


@pytest.mark.parametrize("side", ["to_target", "from_source"])
def test_a_disk_that_hangs(scene: NewScene, matrix: Matrix, side: str) -> None:
    here = scene()
    options = replace(here.options, stall_timeout_s=0.5)

    with here.start(
        bytes_s=8 * MIB, options=options, **{side: servers.pausing(here.root)}
    ) as running:
        running.until(lambda: running.examined_bytes > 0)
        servers.pause(here.root)
        ending = running.ending()

    assert ending is not None
    told(ending, "TransferStalled")
    here.finish()
    matrix.add("a disk hangs", ending)


def test_a_slow_disk(scene: NewScene, matrix: Matrix) -> None:
    here = scene()

    matrix.add("latency", here.finish(from_source=servers.SLOW, to_target=servers.SLOW))


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_disk_that_shrinks(scene: NewScene, matrix: Matrix, side: str) -> None:
    here = scene()
    path = here.source if side == "source" else here.target
    content = here.source.read_bytes()

    with here.start(bytes_s=8 * MIB) as running:
        running.until(lambda: running.examined_bytes > MIB)
        os.truncate(path, 3 * MIB)
        ending = running.ending()

    assert ending is not None
    told(ending, "DiskReadFailed", Extent(3 * MIB, MIB * 2))
    matrix.add(f"the {side} shrinks in the middle", ending)
    unmended = here.attempt()
    assert unmended.code == "DiskSizeMismatch"
    # What was cut off is not there any more: the next plan is about another disk.
    here.source.write_bytes(content)
    os.truncate(here.target, here.size)
    here.save_plan(target_identity="target 2")
    here.finish()
    matrix.add(f"the {side} is too small at the start", unmended)


def test_a_target_that_is_swapped_between_attempts(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    with here.start(bytes_s=8 * MIB) as running:
        running.until(lambda: len(here.finished()) > 3)
        running.send(signal.SIGKILL)
        running.ending()
    here.target.rename(here.root / "other")
    here.target.write_bytes(b"\xaa" * here.size)
    assert here.wrong_segments(), "the old ledger says what is not true of this disk"

    here.save_plan(target_identity="target 2")
    assert here.finished() == set()
    ending = here.finish()

    assert ending.progress is not None
    assert ending.progress.resumed_bytes == 0
    matrix.add("the target is swapped between attempts", ending)


def test_the_same_target_keeps_its_ledger(scene: NewScene) -> None:
    here = scene()
    with here.start(bytes_s=8 * MIB) as running:
        running.until(lambda: len(here.finished()) > 3)
        running.send(signal.SIGKILL)
        running.ending()
    done = here.finished()

    here.save_plan()
    ending = here.finish()

    assert ending.progress is not None
    assert ending.progress.resumed_bytes == len(done) * 256 * 1024


def test_an_exporter_that_is_killed(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    with here.start(bytes_s=8 * MIB) as running:
        running.until(lambda: running.examined_bytes > 0)
        pid = exporter_pid(here.fence())
        assert pid is not None
        kill(pid)
        ending = running.ending()

    assert ending is not None
    told(ending, "DiskUnavailable")
    assert "status -9" in ending.what
    here.finish()
    matrix.add("the exporter is killed", ending)


def test_a_supervisor_that_is_killed(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    with here.start(bytes_s=8 * MIB) as running:
        running.until(lambda: running.examined_bytes > 0)
        exporter, supervisor = exporter_pid(here.fence()), supervisor_pid(here.fence())
        assert exporter is not None
        assert supervisor is not None
        kill(supervisor)
        eventually(lambda: gone(exporter), 5)
        ending = running.ending()

    assert ending is not None
    told(ending, "DiskUnavailable")
    here.finish()
    matrix.add("the supervisor is killed", ending)


def test_the_other_site_s_mover_is_killed(scene: NewScene, matrix: Matrix) -> None:
    here = scene(1, "digest")
    assert here.far is not None
    with here.start(bytes_s=MIB) as running:
        running.until(lambda: running.examined_bytes > 0)
        here.far.kill()
        ending = running.ending()

    assert ending is not None
    told(ending, "DiskUnavailable")
    here.finish()
    matrix.add("the other site's mover is killed", ending)


@pytest.mark.parametrize(
    ("fault", "lines", "said"),
    [
        ("the exporter never comes up", "exec sleep 600", "in time"),
        ("the exporter dies at the start", "echo no such plugin >&2; exit 1", "no such plugin"),
    ],
)
def test_an_exporter_that_does_not_serve(
    scene: NewScene, matrix: Matrix, fault: str, lines: str, said: str
) -> None:
    here = scene()

    ending = here.attempt(
        to_target=servers.script(here.root / "server", lines), connect_timeout_s=0.5
    )

    assert ending.code == "DiskUnavailable"
    assert said in ending.what
    here.finish()
    matrix.add(fault, ending)


def test_a_late_request_of_a_dead_attempt_never_arrives(scene: NewScene, matrix: Matrix) -> None:
    here = scene()
    delay_s = 1.0
    late = servers.logged(here.root, "delay", parameters=(f"wdelay={delay_s:g}",))

    with here.start(to_target=late) as running:
        running.until(lambda: servers.unanswered(here.root, "Write") > 0)
        running.send(signal.SIGKILL)
        running.ending()
    killed_at = time.monotonic()
    here.finish()
    # Whatever the dead attempt's request still wrote would show: every byte is another.
    other = bytes(0xFF ^ byte for byte in here.source.read_bytes())
    here.target.write_bytes(other)

    eventually(lambda: time.monotonic() > killed_at + 1.2 * delay_s)
    assert here.target.read_bytes() == other
    answered = servers.answers(here.root, "Write")
    assert not [line for line in answered if "return=0" in line], "it was answered in time"
    matrix.add("the mover is killed with writes under way")
