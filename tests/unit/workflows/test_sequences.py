"""Random sequences of requests, failures and passing time, against what was promised.

`make test` plays the same few hundred every time; `make soak` plays others, from a seed that it
prints (EXAMPLES=... and SEED=... in the environment).
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from failback.contracts.requests import Answer
from failback.contracts.words import FinalizeMode, Outcome, RequestKind, StepName
from tests.unit.workflows.sequence_game import Admit, Game, Held, Parts
from tests.unit.workflows.sequence_sites import Wrong
from workflows import requests
from workflows.engine import Engine, OperationError, Run, UndoAsked
from workflows.gate import note_cycle
from workflows.life import Life
from workflows.steps import UNDO_POWER_ON_TARGET, Step, after_gate

MINUTE = timedelta(minutes=1)
AT = "2026-01-01T03:00:00+00:00"
TOO_LONG = "P9999999D"
LONG_NAME = "\U000e0001" * 255
"""Allowed as a name, and ten times as long where it is quoted."""

CONFIGS = st.fixed_dictionaries(
    {
        "destination": st.sampled_from(["original", "original", "recovered", "new"]),
        "approvals": st.sampled_from([1, 1, 2]),
        "switch": st.sampled_from(
            [
                {"mode": "auto"},
                {"mode": "auto"},
                {"mode": "manual", "resync_interval": "PT10M"},
                {"mode": "scheduled", "at": AT},
                {"mode": "auto", "downtime_budget": "PT1S"},
                {"mode": "scheduled", "at": AT, "downtime_budget": "PT1S"},
                {"mode": "auto", "downtime_budget": "PT2M", "on_overrun": "undo"},
            ]
        ),
        "finalize": st.sampled_from(
            [
                {"mode": "manual"},
                {"mode": "auto_commit", "after": "PT1H"},
                {"mode": "auto_undo", "after": "PT1H", "accept_loss_of_production_writes": True},
            ]
        ),
        "hooks": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.just("dns"),
                    "when": st.sampled_from(["before", "after"]),
                    "step": st.sampled_from(
                        [
                            "protect_target",
                            "resync_freeze",
                            "power_off_replica",
                            "power_on_target",
                            "commit",
                            "settle",
                            "undo_power_off_replica",
                        ]
                    ),
                    "on_failure": st.sampled_from(["continue", "stop", "undo"]),
                }
            ),
            max_size=2,
        ),
        "auto_retry": st.booleans(),
        "power_on_target": st.sampled_from([True, True, False]),
        "protect_target": st.sampled_from([True, True, False]),
        "on_guest_timeout": st.sampled_from(["force", "stop", "undo"]),
    }
)

COMMON: dict[str, st.SearchStrategy[Any]] = {
    "request_id": st.sampled_from(["r1", "r2", "r3", "r4"]),
    "by": st.sampled_from(["ann", "bob"]),
    "reason": st.just("It burnt."),
    "attest_off": st.sampled_from([["web01-replica"], ["vm-7"], ["dr:vm-7"], ["web09"]]),
}
OF_KIND: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "undo": {"power_on_replica": st.booleans(), "replica_content": st.just("revert")},
    "retry": {"rebase_target": st.booleans()},
    "switch_over": {"ignore_budget": st.booleans()},
    "reschedule": {
        "switch": st.sampled_from(
            [
                {"mode": "manual"},
                {"mode": "auto"},
                {"mode": "scheduled", "at": AT},
                {"mode": "scheduled", "at": "2025-01-01T00:00:00+00:00"},
                {"resync_interval": "PT5M"},
                {"downtime_budget": "PT1S"},
            ]
        )
    },
    "adjust": {
        "limits": st.just({"bandwidth_bytes_per_s": 1000}),
        "finalize": st.sampled_from(
            [{"mode": "manual"}, {"mode": "auto_commit"}, {"after": "PT2H"}, {"after": "PT1M"}]
        ),
    },
    "approve": {"of": st.sampled_from(["r1", "r2", "r3", "r4", "undo-1", LONG_NAME])},
}
NEEDED = {"reschedule": "switch", "approve": "of"}
KINDS = [*(kind.value for kind in RequestKind), "switch_over", "approve", "approve", "commit"]


def body_of(kind: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """Bodies that are understood; fields that the request does not use are among them."""
    more = OF_KIND.get(kind, {})
    body = st.fixed_dictionaries({}, optional=COMMON | more)
    if (name := NEEDED.get(kind)) is not None:
        needed = st.fixed_dictionaries({}, optional={name: more[name]})
        body = st.one_of(
            st.fixed_dictionaries({name: more[name]}, optional=COMMON),
            st.fixed_dictionaries({name: more[name]}, optional=COMMON),
            needed,
        )
    return st.tuples(st.just(kind), body)


REQUESTS = st.sampled_from(KINDS).flatmap(body_of)
GARBAGE = st.sampled_from(
    [
        "now",
        7,
        [1],
        False,
        {"by": 5},
        {"by": "\ud800"},
        {"request_id": "x" * 300},
        {"attest_off": "web01"},
        {"switch": {"mode": "scheduled"}},
        {"switch": {"mode": "scheduled", "at": "2026-01-01T03:00:00"}},
        {"switch": {"resync_interval": TOO_LONG}},
        {"switch": {"downtime_budget": "-PT1S"}},
        {"finalize": "auto_undo"},
        {"finalize": {"after": TOO_LONG}},
        {"finalize": {"after": "PT0S"}},
        {"limits": {"bandwidth_bytes_per_s": 0}},
        {"limits": {"window": {"begin": "25:00", "end": "06:00"}}},
    ]
)
FAILURES = st.sampled_from(
    [
        ("SiteUnreachable", True),
        ("LeaseLost", False),
        ("ReplicaGrown", False),
        ("GuestShutdownTimeout", False),
        ("DiskFull", False),
    ]
)


class Sequence(RuleBasedStateMachine):
    """What people, sites and time do to one run, in any order."""

    parts = Parts()
    fixed: Mapping[str, Any] = MappingProxyType({})
    """What every start request says."""

    @initialize(
        config=CONFIGS,
        ahead=st.sampled_from([0, 5, 10, 25, 25]),
        waited=st.sampled_from([0, 0, 61]),
    )
    def start(self, config: dict[str, Any], ahead: int, waited: int) -> None:
        """`ahead`: so much goes well before anything happens; `waited`: minutes after that."""
        self.decision = "commit"
        self.game = Game(self.parts, **{**config, **self.fixed})
        self._work(ahead, True, False)
        self.game.later(waited * MINUTE)

    @rule(by=st.sampled_from(["ann", "bob", ""]), body=st.fixed_dictionaries({}, optional=COMMON))
    def second_person(self, by: str, body: dict[str, Any]) -> None:
        """Somebody approves what waits."""
        for one in self.game.model.waits[:1]:
            self.game.ask("approve", {**body, "by": by, "of": one.answer.request_id})
            self.game.settle()

    @rule(request=REQUESTS, at_once=st.booleans())
    def person(self, request: tuple[str, dict[str, Any]], at_once: bool) -> None:
        """Somebody asks for something; `at_once`: before the run goes on, more happens."""
        self.game.ask(*request)
        if not at_once:
            self.game.settle()

    @rule(kind=st.sampled_from(KINDS), body=GARBAGE)
    def nonsense(self, kind: str, body: Any) -> None:
        self.game.garbage(kind, body)

    @rule(sure=st.integers(0, 9))
    def cancellation(self, sure: int) -> None:
        if sure == 9 and self.game.outcome is None:
            self.game.cancel()
            self.game.settle()

    def _work(self, count: int, good: bool, lost: bool) -> None:
        for _ in range(count):
            for one in self.game.workable():
                if one.stop() and lost:
                    self.game.stop(one, applied=good)
                else:
                    self.game.finish(one, good=good)
            self.game.settle()

    @rule(count=st.integers(1, 3), good=st.booleans(), lost=st.booleans())
    def work(self, count: int, good: bool, lost: bool) -> None:
        """Operations end; `lost`: those that are to stop do so."""
        refuses = any(h.operation.name == "preflight" for h in self.game.runtime.held)
        self._work(count, good or refuses, lost)

    @rule(count=st.integers(4, 16))
    def much_work(self, count: int) -> None:
        self._work(count, True, False)

    @rule(sure=st.integers(0, 9))
    def refused(self, sure: int) -> None:
        """Preflight finds something."""
        for one in self.game.workable():
            if one.operation.name == "preflight" and sure == 9:
                self.game.finish(one, good=False)
        self.game.settle()

    @rule(failure=FAILURES, applied=st.booleans(), words=st.sampled_from([1, 1, 600]))
    def trouble(self, failure: tuple[str, bool], applied: bool, words: int) -> None:
        """An operation fails for good, whether it was applied or not."""
        code, unreachable = failure
        held: list[Held] = self.game.workable()
        if held:
            error = OperationError(code, "It failed. " * words, unreachable=unreachable)
            self.game.fail(held[0], error, applied=applied)
            self.game.settle()

    @rule(span=st.sampled_from([MINUTE, 10 * MINUTE, 61 * MINUTE, 300 * MINUTE]))
    def time(self, span: timedelta) -> None:
        self.game.later(span)

    @rule()
    def long_history(self) -> None:
        self.game.long_history()
        self.game.settle()

    @rule(
        code=st.sampled_from(["SPLIT_BRAIN", "PROBE_FAILED", "SNAPSHOT_OLD"]),
        words=st.sampled_from([1, 222]),
    )
    def alarm(self, code: str, words: int) -> None:
        self.game.alarm(code, "Two run. " * words)
        self.game.settle()

    @rule(decision=st.sampled_from(["commit", "undo"]))
    def intention(self, decision: str) -> None:
        self.decision = decision

    def teardown(self) -> None:
        if not hasattr(self, "game"):
            return
        try:
            self.game.to_the_end(self.decision)
        finally:
            self.game.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody reads what hundreds of runs log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def play(
    parts: Parts, examples: int, *, seed: int | None = None, shrink: bool = True, **fixed: Any
) -> None:
    """Play so many sequences; without a seed always the same."""

    class Playing(Sequence):
        pass

    Playing.parts, Playing.fixed = parts, fixed
    run_state_machine_as_test(
        Playing if seed is None else hypothesis.seed(seed)(Playing),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=seed is None,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_comes_in_whatever_order_the_promises_hold() -> None:
    play(Parts(), 150)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_more_sequences() -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    examples = int(os.environ.get("EXAMPLES", "5000"))
    print(f"\n{examples} sequences from SEED={seed}")
    play(Parts(), examples, seed=seed)


# --- it bites: with something wrong in the run, some sequence shows it ---


def accepting(*kinds: RequestKind) -> Admit:
    """These requests are accepted at any time."""

    def admit(run: Run, kind: RequestKind, raw: tuple[Any, ...], now: datetime) -> Answer:
        answer = requests.admit(run, kind, raw, now)
        if kind not in kinds or answer.accepted or "not understood" in answer.message:
            return answer
        run.commit_asked |= kind is RequestKind.COMMIT
        run.undo_asked |= kind is RequestKind.UNDO
        return answer.model_copy(update={"accepted": True})

    return admit


def anew(run: Run, kind: RequestKind, raw: tuple[Any, ...], now: datetime) -> Answer:
    """Request ids mean nothing."""
    named = (
        {k: v for k, v in raw[0].items() if k != "request_id"} if isinstance(raw[0], dict) else {}
    )
    return requests.admit(run, kind, (named or raw[0],), now)


def alone(run: Run, kind: RequestKind, raw: tuple[Any, ...], now: datetime) -> Answer:
    """One person is enough to approve."""
    if kind is RequestKind.APPROVE and isinstance(raw[0], dict):
        raw = ({**raw[0], "by": "eve"},)
    return requests.admit(run, kind, raw, now)


class NeverPauses(Engine):
    def _stop(self, step: Step) -> Callable[[], bool]:
        return self._leaving

    async def pause_point(self) -> None:
        if self._leaving():
            raise UndoAsked


class PowersOnFirst(Engine):
    async def forward(self, steps: Iterable[Step]) -> None:
        await super().forward(sorted(steps, key=lambda s: s.name is not StepName.POWER_ON_TARGET))


class UndoesInOrder(Engine):
    """Undo in the order of the work and not backwards: service returns before the target is off."""

    async def step(self, step: Step) -> None:
        if step.name is not StepName.UNDO_POWER_ON_TARGET:
            await super().step(step)
        if step.name is StepName.UNDO_POWER_OFF_REPLICA:
            await super().step(UNDO_POWER_ON_TARGET)


class LeavesSnapshot(Engine):
    async def step(self, step: Step) -> None:
        if step.name is not StepName.UNDO_PROTECT_TARGET:
            await super().step(step)


class GivesUp(Engine):
    async def _ask_operator(self, step: Step, error: OperationError) -> None:
        raise error


class DecidesAlone(Life):
    """The power states are asked for, and what came meanwhile is not looked at."""

    async def _by_itself(self, mode: FinalizeMode, seen: Any) -> None:
        await super()._by_itself(mode, seen)
        if not self._decided():
            self.run.commit_asked = mode is FinalizeMode.AUTO_COMMIT
            self.run.undo_asked = mode is FinalizeMode.AUTO_UNDO


class NeverWaits(Life):
    """After pass 1 the switch begins, whatever was said of it."""

    async def _from_gate(self) -> Outcome:
        note_cycle(self.run, StepName.FREEZE_REPLICA, StepName.TRANSPORT_CHANGES)
        await self.engine.forward(after_gate(self.run.facts.request.destination))
        return await self._from_decision()


BUGS: dict[str, tuple[Parts, dict[str, Any]]] = {
    "commit-while-syncing": (Parts(admit=accepting(RequestKind.COMMIT)), {}),
    "undo-after-commit": (Parts(admit=accepting(RequestKind.UNDO)), {}),
    "repeat-applied-again": (Parts(admit=anew), {}),
    "approves-alone": (Parts(admit=alone), {"approvals": 2}),
    "pause-ignored": (Parts(engine=NeverPauses), {"switch": "manual"}),
    "target-on-before-replica-off": (Parts(engine=PowersOnFirst), {}),
    "replica-on-before-target-off": (Parts(engine=UndoesInOrder), {}),
    "snapshot-left": (Parts(engine=LeavesSnapshot), {}),
    "switches-too-early": (Parts(life=NeverWaits), {}),
    "gives-up": (Parts(engine=GivesUp), {}),
    "decides-although-told-not-to": (
        Parts(life=DecidesAlone),
        {"switch": "auto", "finalize": {"mode": "auto_commit", "after": "PT1H"}},
    ),
}


@pytest.mark.parametrize(("parts", "fixed"), BUGS.values(), ids=BUGS.keys())
def test_a_deliberate_bug_is_noticed(parts: Parts, fixed: dict[str, Any]) -> None:
    with pytest.raises((Wrong, OperationError)):
        play(parts, 400, shrink=False, **fixed)
