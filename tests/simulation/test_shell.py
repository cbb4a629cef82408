"""Destination `new`: somebody boots the VM that the run made before anything is copied to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from failback.contracts.words import Destination, Method, Outcome, PowerState, RequestKind
from tests.simulation.scripted import Scripted
from tests.simulation.world import KIB

HOLE = slice(64 * KIB, 128 * KIB)
"""Zeroes in the replica's first disk."""


class Booted(Scripted):
    """Its guest writes where the replica has zeroes."""

    def __init__(self) -> None:
        self.after_pass_1 = b""
        super().__init__(Destination.NEW, {5: lambda: self.say(RequestKind.COMMIT)})

    def _activities(self) -> dict[str, Callable[..., Any]]:
        made = super()._activities()
        create, unfreeze = made["create_target"], made["remove_snapshot"]

        def created(argument: Any) -> Any:
            result = create(argument)
            vm = self.world.production.vm(result.target)
            vm.turn(PowerState.ON)
            vm.disks[0].data[HOLE] = b"X" * (64 * KIB)
            vm.turn(PowerState.OFF)
            return result

        def unfrozen(argument: Any) -> Any:
            target = self.world.target()
            assert target is not None
            self.after_pass_1 = bytes(target.disks[0].data[HOLE])
            return unfreeze(argument)

        for ours, theirs in ((created, create), (unfrozen, unfreeze)):
            ours.__annotations__ = theirs.__annotations__
        return made | {"create_target": created, "remove_snapshot": unfrozen}


def test_what_its_guest_wrote_is_overwritten() -> None:
    run = Booted()

    run.live()

    assert run.outcome is Outcome.COMMITTED
    assert run.after_pass_1 == bytes(64 * KIB)
    methods = {plan.method for plan in run.run.facts.differences if plan.pass_no == 1}
    assert methods == {Method.COMPARE}
    assert not any(found.repaired for found in run.run.facts.verified)
