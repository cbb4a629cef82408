"""Movers that are killed, frozen or told to stop."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from failback.disks.copier import CopyOptions
from failback.disks.exporter import NbdkitCommand
from failback.disks.fence import prove_dead
from tests.faults import servers
from tests.faults.matrix import Matrix
from tests.faults.scene import METHODS, Scene, gone, kill
from tests.helpers.disks import MIB, alive, eventually, exporter_pid, no_check

NewScene = Callable[..., Scene]
STOP_S = 2.0
"""A cancelled or departing mover is gone after so long, whatever its disks do."""


@pytest.mark.parametrize(
    ("method", "takeover"),
    [("compare", "before the lease"), *((method, "after the lease") for method in METHODS)],
)
def test_a_frozen_mover_is_replaced_and_changes_nothing_when_it_wakes(
    scene: NewScene, matrix: Matrix, method: str, takeover: str
) -> None:
    here = scene(4, method)
    lease_s = 0.7 if takeover == "after the lease" else 60
    with here.start(lease_s=lease_s, bytes_s=4 * MIB) as first:
        first.until(lambda: len(here.finished()) >= 2)
        first.freeze(here.catalog)
        exporters = first.exporters()
        if takeover == "after the lease":
            for pid in exporters:
                eventually(lambda pid=pid: gone(pid), 5)  # type: ignore[misc]
            eventually(here.fence().is_free, 5)  # a frozen mover holds no lock

        here.finish(owner="second")
        # Whatever the first one still writes would show: every byte differs from the source's.
        other = bytes(0xFF ^ byte for byte in here.source.read_bytes())
        here.target.write_bytes(other)
        first.send(signal.SIGCONT)
        ending = first.ending()

    assert ending is not None
    assert here.target.read_bytes() == other
    assert here.fence().is_free()
    assert ending.code in ("LeaseLost", "DiskUnavailable"), ending
    assert ending.remedy
    if takeover == "after the lease":
        matrix.add("the mover is frozen, and thawed when another has finished", ending)


def test_a_second_mover_ends_the_first_one_s_exporter(scene: NewScene, matrix: Matrix) -> None:
    here = scene(11)
    with here.start(bytes_s=MIB) as first:
        first.until(lambda: len(here.finished()) >= 1)

        prove_dead(here.fence("revert"), check=no_check, timeout_s=5)

        assert not alive(exporter_pid(here.fence()))
        ending = first.ending()
    assert ending is not None
    assert ending.code == "DiskUnavailable"
    here.finish()
    matrix.add("another attempt takes the disk", ending)


@pytest.mark.parametrize("method", METHODS)
def test_a_mover_that_is_killed(scene: NewScene, matrix: Matrix, method: str) -> None:
    here = scene(5, method)
    with here.start(bytes_s=MIB) as running:
        running.until(lambda: len(here.finished()) > 3)
        exporters = running.exporters()
        running.send(signal.SIGKILL)
        assert running.ending() is None
    for pid in exporters:
        eventually(lambda pid=pid: gone(pid), 5)  # type: ignore[misc]
    done = here.finished()

    ending = here.finish()

    assert ending.progress is not None
    assert ending.progress.resumed_bytes >= len(done) * 64 * 1024
    matrix.add("the mover is killed")


def test_mover_and_exporters_killed_at_once(scene: NewScene, matrix: Matrix) -> None:
    here = scene(6)
    with here.start(bytes_s=MIB) as running:
        running.until(lambda: len(here.finished()) > 3)
        kill(*running.exporters(), running.pid)
        assert running.ending() is None

    here.finish()
    matrix.add("mover and exporters are killed")


Trouble = Callable[[Scene], dict[str, NbdkitCommand]]
STOPS: list[tuple[str, Trouble]] = [
    ("in good order", lambda _: {}),
    (
        "under latency",
        lambda scene: {
            "from_source": NbdkitCommand(filters=["delay"], parameters=["rdelay=300ms"]),
            "to_target": servers.logged(
                scene.root, "delay", parameters=("rdelay=300ms", "wdelay=300ms")
            ),
        },
    ),
    ("while reads hang", lambda scene: {"from_source": servers.pausing(scene.root)}),
    ("while writes hang", lambda scene: {"to_target": servers.pausing(scene.root)}),
    (
        "while a flush hangs",
        lambda scene: {
            "to_target": servers.evaluated(
                scene.root / "server",
                scene.target,
                # Until the exporter is dead: its children hold its fence, as they should.
                flush=f"echo ' Flush id=1 ' >{shlex.quote(str(scene.root / 'requests'))}\n"
                "while kill -0 $PPID; do sleep 0.05; done",
            )
        },
    ),
]


@pytest.mark.parametrize(("fault", "trouble"), STOPS, ids=[case[0] for case in STOPS])
def test_a_stop_takes_two_seconds_at_most(
    scene: NewScene, matrix: Matrix, fault: str, trouble: Trouble
) -> None:
    here = scene(8)
    # As patient as the product, not as the other tests.
    patience = CopyOptions()
    options = replace(
        here.options,
        stop_grace_s=patience.stop_grace_s,
        check_interval_s=patience.check_interval_s,
        full="writes" in fault,
    )
    with here.start(options=options, bytes_s=4 * MIB, **trouble(here)) as running:
        if "latency" in fault:
            running.until(lambda: servers.unanswered(here.root, "Write") > 0)
        elif "flush" not in fault:
            running.until(lambda: running.examined_bytes > 0)
        if "hang" in fault:
            if "flush" not in fault:
                servers.pause(here.root)
            op = {"reads": "Read", "writes": "Write", "a": "Flush"}[fault.split()[1]]
            running.until(lambda: servers.unanswered(here.root, op) > 0)
        began = time.monotonic()
        running.send(signal.SIGTERM)
        ending = running.ending()
        took_s = time.monotonic() - began

    assert ending is not None
    assert ending.code == "Stopped", ending
    assert here.wrong_segments() == []
    here.finish()
    print(f"stopped {fault} after {took_s:.2f} s")
    matrix.add(f"a stop {fault}", ending)
    assert took_s <= STOP_S
