"""A run without faults but those of a script: what people see and answer when a site is away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from failback.catalog.records import ReplicaRecord
from failback.contracts.start import StartRequest
from failback.contracts.words import Destination, RequestKind
from tests.simulation.run import SimRuntime, Simulation
from workflows import operations as op

PLACES: dict[Destination, dict[str, Any]] = {
    Destination.ORIGINAL: {},
    Destination.RECOVERED: {"recovered": "production:web01-restored"},
    Destination.NEW: {"new_vm": {"name": "web01-home"}},
}


class Impatient(SimRuntime):
    """Asks a person after the second attempt that fails."""

    def _attempt(
        self,
        operation: op.Operation[Any, Any],
        argument: Any,
        number: str,
        attempt: int,
        stop: Callable[[], bool],
    ) -> Any:
        if attempt > 1:
            argument = argument.model_copy(update={"patience": timedelta(0)})
        return super()._attempt(operation, argument, number, attempt, stop)


class Scripted(Simulation):
    """One destination; `script` says what happens after so many minutes."""

    def __init__(self, place: Destination, script: dict[int, Callable[[], None]]):
        self.place, self.script = place, script
        super().__init__(1)
        self.crew.quiet, self.world.grows, self.world.plans = True, False, ""

    def to_the_end(self) -> ReplicaRecord:
        """Live it; what the catalog says then is for the test to judge."""
        self.live()
        return self.catalog.get_replica("web01")

    def say(self, kind: RequestKind, **body: Any) -> None:
        """Somebody asks, and it is accepted."""
        answer = self.ask(kind, "bob", **{"reason": "the site is gone", **body})
        assert answer.accepted, answer.message

    def _request(self) -> StartRequest:
        fields = {"replica": "web01", "destination": self.place, **PLACES[self.place]}
        return StartRequest.model_validate(fields)

    def _runtime(self, execution: int) -> SimRuntime:
        made = Impatient(
            self.run,
            clock=datetime(2026, 1, 1, tzinfo=UTC),
            crew=self.crew,
            activities=self.activities,
            execution=f"execution-{execution}",
        )
        for minutes, act in self.script.items():
            made.after(timedelta(minutes=minutes), act)
        return made
