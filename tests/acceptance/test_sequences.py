"""Random requests at random moments of a live run, its workers killed, and the right end.

`make soak` plays SEQUENCES of them (10 unless told) from a SEED that it prints. The same seed sends
the same; what the run is just doing then is the machine's.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase, RequestKind
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage

pytestmark = [pytest.mark.acceptance, pytest.mark.soak, pytest.mark.timeout(0)]

SEQUENCES = int(os.environ.get("SEQUENCES") or 10)
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
MOVES, KILLS = 30, 2
END_S = 180.0
SLOW = {"bandwidth_bytes_per_s": 2 * MIB}
QUICK = {"heartbeat_timeout_s": 2.0}

BODIES: dict[str, list[dict[str, Any]]] = {
    "switch_over": [{}, {"ignore_budget": True}],
    "reschedule": [
        {"switch": {"mode": "manual", "resync_interval": "PT1S"}},
        {"switch": {"resync_interval": "PT2S"}},
        {"switch": {"mode": "scheduled", "at": "2020-01-01T00:00:00Z"}},
        {},
    ],
    "adjust": [
        {"limits": {"bandwidth_bytes_per_s": 3 * MIB}},
        {"finalize": {"mode": "auto_commit", "after": "PT3S"}},
        {"finalize": {"mode": "manual"}},
        {},
    ],
    "approve": [{"of": "r1"}, {"of": "r2"}, {"of": "r3"}, {"of": "nobody"}],
}
GARBAGE: list[Any] = ["now", 7, [1], {"by": 5}, {"switch": {"mode": "scheduled"}}, {"of": ["r1"]}]
WEIGHTS = {
    "switch_over": 3,
    "reschedule": 3,
    "adjust": 3,
    "approve": 5,
    "pause": 3,
    "resume": 5,
    "retry": 2,
    "commit": 1,
    "undo": 1,
}


@dataclass
class Player:
    """One seed's moves on one run."""

    scene: Scene
    seed: int
    kills: int = KILLS
    moves: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.decision = self.dice.choice(["commit", "undo"])

    def play(self) -> None:
        """Start a run and make moves until they are used up, or it has ended."""
        self.scene.stack.worker()
        answer = self.scene.start(
            switch=self.dice.choice([{"mode": "manual", "resync_interval": "PT1S"}, "auto"]),
            approvals=self.dice.choice([1, 1, 2]),
        )
        assert answer.accepted
        for _ in range(MOVES):
            # Whatever the run is just doing is the moment that is wanted.
            time.sleep(self.dice.random() * 0.4)
            self.move()
            if self.look() is Phase.CLOSED:
                break

    def move(self) -> None:
        """One thing that somebody or something does."""
        what = self.dice.random()
        if what < 0.06 and self.kills:
            self.kills -= 1
            self.moves.append("kill")
            self.scene.stack.workers[-1].kill()
            self.scene.stack.worker(ready=False)
        elif what < 0.075:
            self.moves.append("cancel")
            self.send(self.scene.handle.cancel())
        else:
            kind = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            body = self.dice.choice(GARBAGE) if what < 0.25 else self.body(kind)
            self.request(kind, body)

    def body(self, kind: str) -> dict[str, Any]:
        """A body that is understood, allowed or not; its id may have been used before."""
        made = dict(self.dice.choice(BODIES.get(kind, [{}])))
        if self.dice.random() < 0.7:
            made["request_id"] = self.dice.choice(["r1", "r2", "r3"])
        return made | {"by": self.dice.choice(["ann", "bob"])}

    def request(self, kind: str, body: Any) -> None:
        """Send it, as a signal or as an update."""
        if self.dice.random() < 0.5:
            self.moves.append(f"signal {kind} {body}")
            self.send(self.scene.handle.signal(kind, body))
        else:
            self.moves.append(f"update {kind} {body}")
            self.send(self.scene.handle.execute_update(kind, body))

    def send(self, call: Any) -> None:
        """A run that has ended, or an update that is no request, is an answer too."""

        async def bounded() -> None:
            await asyncio.wait_for(call, 60)

        try:
            self.scene.wait(bounded())
        except WorkflowUpdateFailedError:
            pass
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    def look(self) -> Phase | None:
        """What must hold after every move; the phase, None while no worker answers."""
        on = [place for place in (SOURCE, REPLICA) if self.scene.vm(place)["power"] == "poweredOn"]
        assert len(on) < 2, "split brain"
        status = self.scene.status()
        if status is None:
            return None
        said = decided(status)
        assert said != {"commit", "undo"}, status.requests
        if status.phase is Phase.NEEDS_OPERATOR:
            assert status.operator is not None
            assert status.operator.message and status.operator.may
        return status.phase

    def end(self) -> Status:
        """People answer what the run asks for; it must end, and rightly."""
        deadline, number = time.monotonic() + END_S, 0
        while (phase := self.look()) is not Phase.CLOSED:
            assert time.monotonic() < deadline, self.scene.status()
            number += 1
            status = self.scene.status() if phase is not None else None
            if status is None:
                continue
            if phase is Phase.NEEDS_OPERATOR:
                self.say("retry", number)
            elif status.paused:
                self.say("resume", number)
            elif phase is Phase.READY_TO_SWITCH:
                self.say("switch_over", number)
            elif phase is Phase.AWAITING_DECISION:
                self.say(self.decision, number)
            time.sleep(0.1)
        return self.scene.ended()

    def say(self, kind: str, number: int) -> None:
        """One person says it, and another agrees where that is asked for."""
        self.send(self.scene.handle.signal(kind, {"by": "ann", "request_id": f"end-{number}"}))
        self.send(self.scene.handle.signal("approve", {"by": "bob", "of": f"end-{number}"}))


def decided(status: Status) -> set[str]:
    """Which ends were accepted."""
    ends = (RequestKind.COMMIT, RequestKind.UNDO)
    said = {
        a.kind.value for a in status.requests if a.accepted and not a.pending and a.kind in ends
    }
    # What the run was told to do by itself is no request.
    return said | ({"commit"} if status.phase is Phase.COMMITTING else set())


@pytest.mark.parametrize("number", range(SEQUENCES))
def test_whatever_is_sent_and_whoever_dies_the_end_is_right(stage: Stage, number: int) -> None:
    seed = SEED + number
    print(f"\nSEED={seed}", flush=True)
    scene = stage(world(2 * MIB, MIB), transfer=SLOW, worker=QUICK)
    player = Player(scene, seed)
    try:
        player.play()
        status = player.end()
        print(f"{status.outcome} after {len(player.moves)} moves, {KILLS - player.kills} kills")
        if status.outcome is Outcome.COMMITTED:
            cleanup = scene.temporal.get_workflow_handle(f"failback-cleanup/{status.run_id}")
            scene.wait(asyncio.wait_for(cleanup.result(), 60))
            assert "undo" not in decided(status)
            scene.committed(status)
        else:
            assert "commit" not in decided(status)
            scene.undone(status)
    except BaseException:
        print("\n".join(player.moves))
        raise
