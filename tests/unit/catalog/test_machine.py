"""Any order of calls: a replica belongs to one run at a time, and a run ends in one way."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from failback.catalog.repository import Catalog
from failback.contracts.start import StartRequest
from failback.contracts.words import Outcome, ReplicaState
from failback.errors import CatalogError, ClaimHeld, StateConflict
from tests.unit.catalog.build import FAILBACK, FAILOVER, NOW, READY, WAITING, add

KEY = "web"
HELD = (WAITING, FAILBACK)
RUNS = st.sampled_from(["a", "b", "c", "d"])


class Machine(RuleBasedStateMachine):
    """The catalog beside a model of a few lines."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        path = shutil.copy(self.template, Path(self.folder.name) / "catalog.db")
        self.catalog = Catalog(f"sqlite:///{path}", now=lambda: NOW)
        add(self.catalog, KEY, READY)
        self.state: ReplicaState = READY
        self.holder: str | None = None
        self.outcomes: dict[str, Outcome | None] = {}
        self.claimed: str | None = None
        self.commits = 0

    def teardown(self) -> None:
        self.catalog.close()
        self.folder.cleanup()

    def is_open(self, run: str) -> bool:
        return run in self.outcomes and self.outcomes[run] is None

    def expect(self, allowed: bool, call: object, *arguments: object) -> None:
        assert callable(call)
        if allowed:
            call(*arguments)
        else:
            with pytest.raises(CatalogError):
                call(*arguments)

    def ended(self, run: str, outcome: Outcome) -> None:
        self.outcomes[run] = outcome
        if self.claimed == run:
            self.claimed = None

    @rule()
    def fail_over(self) -> None:
        self.expect(self.state not in HELD, self.catalog.mark_failover, KEY)
        if self.state is READY:
            self.state = FAILOVER

    @rule(run=RUNS)
    def open(self, run: str) -> None:
        allowed = self.outcomes.get(run) in (None, Outcome.REFUSED)
        request = StartRequest(replica=KEY)
        self.expect(allowed, self.catalog.open_run, run, f"failback/{KEY}", KEY, request)
        if allowed:
            self.outcomes[run] = None

    @rule(run=RUNS)
    def claim(self, run: str) -> None:
        if not self.is_open(run):
            with pytest.raises(StateConflict):
                self.catalog.claim(run, ["replica:web"])
        elif self.claimed in (None, run):
            self.catalog.claim(run, ["replica:web"])
            self.claimed = run
        else:
            with pytest.raises(ClaimHeld, match=f"Run {self.claimed} "):
                self.catalog.claim(run, ["replica:web"])

    @rule(
        run=RUNS,
        to=st.sampled_from(list(ReplicaState)),
        allowed_from=st.sets(st.sampled_from(list(ReplicaState))),
    )
    def set_state(self, run: str, to: ReplicaState, allowed_from: set[ReplicaState]) -> None:
        free = self.holder in (None, run)
        moves = self.state in allowed_from and to is not READY
        allowed = self.is_open(run) and free and (self.state is to or moves)
        self.expect(allowed, self.catalog.set_state, run, KEY, to, sorted(allowed_from))
        if allowed and self.state is not to:
            self.state, self.holder = to, run if to in HELD else None

    @rule(run=RUNS)
    def commit(self, run: str) -> None:
        again = self.outcomes.get(run) is Outcome.COMMITTED
        mine = self.is_open(run) and self.state is FAILBACK and self.holder == run
        self.expect(again or mine, self.catalog.close_commit, run, KEY, "snapshot", NOW)
        if mine:
            self.state, self.holder = READY, None
            self.commits += 1
            self.ended(run, Outcome.COMMITTED)

    @rule(run=RUNS)
    def undo(self, run: str) -> None:
        again = self.outcomes.get(run) is Outcome.UNDONE
        mine = self.is_open(run) and (self.state is FAILOVER or self.holder == run)
        self.expect(again or mine, self.catalog.close_undo, run, KEY, NOW)
        if mine:
            self.state, self.holder = FAILOVER, None
            self.ended(run, Outcome.UNDONE)

    @rule(run=RUNS)
    def refuse(self, run: str) -> None:
        again = self.outcomes.get(run) is Outcome.REFUSED
        mine = self.is_open(run) and self.holder != run
        self.expect(again or mine, self.catalog.close_refused, run)
        if mine:
            self.ended(run, Outcome.REFUSED)

    @precondition(lambda self: self.claimed is not None)
    @rule()
    def reconcile(self) -> None:
        assert self.claimed
        self.catalog.release_claims(self.claimed)
        self.claimed = None

    @invariant()
    def catalog_and_model_agree(self) -> None:
        detail = self.catalog.replica_detail(KEY)
        assert (detail.replica.state, detail.replica.held_by) == (self.state, self.holder)
        assert {run.run_id: run.outcome for run in detail.runs} == self.outcomes
        assert [claim.run_id for claim in self.catalog.claims()] == (
            [self.claimed] if self.claimed else []
        )
        assert len(detail.restore_points) == self.commits
        for run in detail.runs:
            assert (run.committed_at is not None) == (run.outcome is Outcome.COMMITTED)


@pytest.mark.parametrize("steps", [20])
def test_any_order_of_calls(template: Path, steps: int) -> None:
    machine = type("Catalogs", (Machine,), {"template": template})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_reaches_a_commit(template: Path) -> None:
    machine = type("Catalogs", (Machine,), {"template": template})()
    try:
        machine.fail_over()
        machine.open("a")
        machine.claim("a")
        machine.set_state("a", FAILBACK, {FAILOVER})
        machine.commit("a")
        for run, act in itertools.product("ab", (machine.undo, machine.commit, machine.refuse)):
            act(run)
        machine.catalog_and_model_agree()
        assert machine.commits == 1
    finally:
        machine.teardown()
