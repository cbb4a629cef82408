"""Kills at random moments until there were enough, and resumes until the disks are equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from failback.disks.exporter import NbdkitCommand
from failback.disks.opening import NBDKIT
from tests.faults.mover import Ending
from tests.faults.scene import Running, Scene, gone, kill
from tests.helpers.disks import MIB, eventually

VICTIMS = ("mover", "exporter", "both", "supervisor")
SPEED = 12 * MIB
"""Of a mover that is to be killed, bytes per second: a pass takes a third of a second."""


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    resumed: int = 0
    """Attempts that found segments done."""
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[int] = field(default_factory=list)
    """Segments that the ledger called done and that were not equal."""


def kill_many(
    scene: Scene,
    kills: int,
    *,
    victims: tuple[str, ...] = VICTIMS,
    to_target: NbdkitCommand = NBDKIT,
    late_flush: bool = False,
) -> Tally:
    """Kill that often, each time at a random byte or instant, and end in equality.

    A pass that is done before it could be killed is followed by the next one, with new contents."""
    tally = Tally()
    while tally.kills < kills:
        tally.resumed += bool(scene.finished())
        with scene.start(bytes_s=SPEED, to_target=to_target, late_flush=late_flush) as running:
            victim = scene.rng.choice(victims)
            killed = _kill(scene, running, victim)
            ending = running.ending()
        eventually(scene.fence().is_free, 5)
        tally.kills += killed
        tally.seen[_said(victim, killed, ending)] += 1
        tally.wrong += scene.wrong_segments()
        if ending is not None and ending.done:
            if not late_flush:
                assert scene.equal()
            scene.fill()
    if not late_flush:
        scene.finish()
    return tally


def _kill(scene: Scene, running: Running, victim: str) -> bool:
    """Kill at a random moment; False if the attempt was over before."""
    if scene.rng.random() < 0.6:
        goal = scene.rng.randint(1, scene.size)
        there = running.until(lambda: running.examined_bytes >= goal)
    else:
        running.listen_for(scene.rng.uniform(0, 0.6))
        there = not running.over
    if not there:
        return False
    supervisors, exporters = running.supervisors(), running.exporters()
    far = [scene.far.pid] if scene.far is not None and scene.far.pid is not None else []
    match victim:
        case "mover":
            doomed = [running.pid]
        case "exporter":
            # The other site's mover serves the source as an exporter does.
            servers = [*exporters, *far]
            doomed = [scene.rng.choice(servers)] if servers else []
        case "supervisor":
            doomed = [scene.rng.choice(supervisors)] if supervisors else []
        case _:
            doomed = [*exporters, *far, running.pid]
    kill(*doomed)
    if scene.far is not None and scene.far.pid in doomed:
        scene.far.kill()  # waits for its end: the next attempt must not meet its last moment
    if running.pid in doomed:
        for pid in exporters:
            eventually(lambda pid=pid: gone(pid), 5)  # type: ignore[misc]
    return bool(doomed)


def _said(victim: str, killed: bool, ending: Ending | None) -> str:
    """Never silent: whoever lives says what happened to it, with a remedy."""
    if ending is None:
        assert killed and victim in ("mover", "both")
        return f"{victim}: dead"
    if ending.done:
        return f"{victim}: done"
    assert killed and victim in ("exporter", "supervisor"), ending
    assert ending.code == "DiskUnavailable" and ending.remedy and ending.retryable, ending
    return f"{victim}: {ending.code}"
