"""Production burns down while a person decides: what was declared off holds up nothing."""

from __future__ import annotations

import pytest

from failback.contracts.words import (
    Destination,
    Outcome,
    Phase,
    PowerState,
    ReplicaState,
    RequestKind,
)
from tests.simulation.scripted import Scripted


class Away(Scripted):
    """After the switch production goes away, and its VMs lose their power with it."""

    def __init__(self, place: Destination, wish: RequestKind) -> None:
        self.wish = wish
        script = {5: self._burns, 10: self._answered_for, 20: self._looked_at, 30: self._returns}
        super().__init__(place, script)

    def _burns(self) -> None:
        assert self.run.phase is Phase.AWAITING_DECISION
        target = self.world.target()
        assert target is not None
        self.name = target.identity.name
        target.turn(PowerState.OFF)
        self.world.production.down = True
        self.say(self.wish)

    def _answered_for(self) -> None:
        assert self.run.operator is not None
        assert self.run.operator.code == "SiteUnreachable"
        # By the name that people know: the one it bears.
        self.say(RequestKind.RETRY, attest_off=[self.name, "web01"])

    def _looked_at(self) -> None:
        self.replica_at_twenty = self.world.dr.vm(self.world.replica).power

    def _returns(self) -> None:
        self.world.production.down = False

    async def _cleanup(self) -> None:
        assert self.world.production.down, "the commit has waited for the site"
        self._returns()
        await super()._cleanup()


@pytest.mark.parametrize("place", list(Destination))
def test_a_commit_is_closed_while_production_is_away(place: Destination) -> None:
    run = Away(place, RequestKind.COMMIT)

    replica = run.to_the_end()

    assert run.outcome is Outcome.COMMITTED
    assert replica.state is ReplicaState.READY
    assert replica.source.name == run.name


@pytest.mark.parametrize("place", list(Destination))
def test_an_undo_brings_service_back_while_production_is_away(place: Destination) -> None:
    run = Away(place, RequestKind.UNDO)

    run.live()

    assert run.outcome is Outcome.UNDONE
    assert run.replica_at_twenty is PowerState.ON
