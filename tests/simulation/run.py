"""One run under one seed: lived to its end, and everything checked."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities.registry import Rooms, control, mover
from failback.contracts import operations as ops
from failback.contracts.plan import Tuning
from failback.contracts.requests import Answer, Request
from failback.contracts.start import StartRequest
from failback.contracts.words import Outcome, Phase, ReplicaState, RequestKind, StepName
from failback.disks.copier import CopyOptions
from failback.disks.kinds import DatastoreAccess
from failback.errors import Unexpected
from tests.simulation.crew import BEGIN, Crew, Died, Wrong
from tests.simulation.doubles import SimCatalog, SimDisks, SimLedger, state_dir
from tests.simulation.end import JOB, RUN_ID, check
from tests.simulation.world import KIB, World
from tests.unit.workflows.virtual_runtime import VirtualRuntime
from workflows import operations as op
from workflows import requests
from workflows.engine import Engine, GoOnLater, OperationError, OperationStopped, Run
from workflows.facts import Facts
from workflows.life import Life
from workflows.rebuild import carried as rebuilt
from workflows.steps import Step

MOST_LOOKS = 60
"""So often somebody looks at the run before it is said to have got stuck."""
MOST_ATTEMPTS = 60
LOOK = timedelta(minutes=5)
POINTS_OF_A_LOOK = 100
"""What the sites get done until somebody looks again."""

POINTS_OF_A_RETRY = 10

Works = dict[str, Callable[..., Any]]


@dataclass(frozen=True)
class Bugs:
    """Deliberate bugs, each of which the simulation must notice."""

    no_fence: bool = False
    """Exporters of an earlier attempt are not killed."""
    no_leases: bool = False
    """A beat does not ask whether a newer attempt has taken over."""
    no_marks: bool = False
    """Work of an earlier attempt is not found again."""
    skipped: StepName | None = None
    """A step that is forgotten."""
    swapped: Callable[[Rooms], Sequence[Callable[..., Any]]] = lambda rooms: ()
    """Activities in the place of those of the same name."""


class Gone(Exception):
    """The workflow was terminated."""


@dataclass
class SimRuntime(VirtualRuntime):
    """Operations are the real activities, attempt after attempt, under the crew."""

    crew: Crew = field(default_factory=lambda: Crew(0))
    activities: Works = field(default_factory=dict)
    execution: str = "execution-1"
    terminated: Callable[[], bool] = lambda: False
    breach: Callable[[], bool] = lambda: False
    """Whether the watch would see something."""
    before: Callable[[], None] = lambda: None
    """Somebody steps in between two attempts."""
    idle: Callable[[], None] = lambda: None
    """What the sites get done meanwhile."""
    after_attempt: Callable[[op.Operation[Any, Any], Any], None] = lambda operation, argument: None
    """Checks what an operation has left that has succeeded."""
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def run(
        self, operation: op.Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if operation is op.WATCH_DECISION:
            await self.wait(lambda: stop() or self.terminated() or self.breach())
            if self.terminated():
                raise Gone
            if stop():
                raise OperationStopped
        number = str(next(self.numbers))
        for attempt in range(1, MOST_ATTEMPTS + 1):
            await asyncio.sleep(0)
            if self.terminated():
                raise Gone
            if stop():
                raise OperationStopped
            self.before()
            if attempt > 1:
                # Until the server makes another attempt.
                self.idle()
            answer = self._attempt(operation, argument, number, attempt, stop)
            if answer is not None:
                self.issued.append((operation.name, argument))
                if getattr(answer, "stopped", False):
                    raise OperationStopped
                return answer
        raise Wrong(f"{operation.name} never ends")

    def _attempt(
        self,
        operation: op.Operation[Any, Any],
        argument: Any,
        number: str,
        attempt: int,
        stop: Callable[[], bool],
    ) -> Any:
        """The result of one attempt; None: another one is made. Errors as for `run`."""
        crew, environment = self.crew, ActivityEnvironment()
        environment.info = replace(
            environment.info,
            activity_id=number,
            attempt=attempt,
            workflow_run_id=self.execution,
            heartbeat_timeout=None,
            scheduled_time=datetime.now(UTC),
        )
        crew.stop = stop
        label = f"{operation.name}/{number}/{attempt}"
        work = self.activities[operation.name]
        done = crew.attempt(label, lambda: environment.run(work, argument), environment.cancel)
        crew.note(f"{label} {done.state} {type(done.error).__name__}")
        if done.state == "frozen":
            return None
        error = done.error
        if error is None:
            self.after_attempt(operation, argument)
            if crew.faults > 0 and not crew.quiet and crew.rng.random() < 0.02:
                crew.faults -= 1
                crew.note(f"nobody heard of {label}")
                return None
            return done.result
        return self._ended(label, error)

    @staticmethod
    def _ended(label: str, error: BaseException) -> None:
        if isinstance(error, Died):
            return
        if isinstance(error, CancelledError):
            raise OperationStopped
        if not isinstance(error, ApplicationError):
            raise Wrong(f"{label} ended with {error!r}") from error
        if error.type == Unexpected.__name__:
            raise Wrong(f"{label} ended with {error.message}") from error
        if error.non_retryable:
            details = error.details[0] if error.details else {}
            away = bool(details.get("unreachable", False))
            raise OperationError(error.type or "Unknown", error.message, unreachable=away)


class Simulation:
    """A world, a run in it, and the people who look after it."""

    def __init__(self, seed: int, bugs: Bugs = Bugs()) -> None:
        self.seed, self.bugs = seed, bugs
        self.crew = crew = Crew(seed)
        self.choice = random.Random(f"choices {seed}")
        crew.quiet = True
        self.world = world = World(crew, self.choice, seed, forgets_marks=bugs.no_marks)
        self.request = self._request()
        self.run = Run(Facts(run=ops.RunRef(run_id=RUN_ID, replica="web01"), request=self.request))
        world.run = lambda: self.run
        self.catalog = SimCatalog(crew)
        if bugs.no_leases:
            self.catalog.check_lease = lambda name, epoch: None  # type: ignore[method-assign]
        self.catalog.add_replica("web01", world.replica, world.source, ReplicaState.FAILOVER)
        self.catalog.add_job(JOB, [world.source])
        self.ledger = SimLedger(self.catalog, crew)
        self.disks = world.disks = SimDisks(
            {name: DatastoreAccess({}) for name in ("production", "dr")},
            self.catalog,
            state_dir(),
            timedelta(seconds=3),
            clock=crew.clock,
            wall=crew.wall,
            crew=crew,
            world=world.sites,
            journal=self.ledger,
            fenced=not bugs.no_fence,
        )
        self.activities = self._activities()
        self.outcome: Outcome | None = None
        self.wants = self.choice.choice([RequestKind.COMMIT, RequestKind.UNDO])
        self.lost = False
        self.looks = 0
        self.asked: set[RequestKind] = set()
        """Decisions that were accepted, since the run was last taken up."""
        self.stood: Counter[str] = Counter()
        """How often the operator found it standing, by the code of the error."""
        crew.cut = lambda: self.disks.cut("production", crew.rng)
        crew.people = self._people
        crew.impatient = self._impatient
        crew.quiet = False

    def _request(self) -> StartRequest:
        kind = self.choice.choice(["original", "original", "recovered", "new"])
        more: dict[str, Any] = {"destination": kind, "accept_target_overwrite": True}
        if kind == "recovered":
            more["recovered"] = "production:web01-restored"
        if kind == "new":
            more["new_vm"] = {"name": "web01-home"}
        if self.choice.random() < 0.4:
            more["switch"] = {"mode": "manual", "resync_interval": "PT10M"}
        if self.choice.random() < 0.1:
            more["approvals"] = 2
        return StartRequest.model_validate({"replica": "web01", **more})

    def _activities(self) -> Works:
        crew = self.crew
        rooms = Rooms(
            sites=self.world.sites,
            catalog=self.catalog,
            disks=self.disks,
            ledger=self.ledger,
            tuning=Tuning(heartbeat_timeout=timedelta(seconds=3)),
            segment_bytes=64 * KIB,
            options=CopyOptions(flush_interval_s=0.0),
            clock=crew.clock,
            wall=crew.wall,
            sleep=crew.sleep,
            random=random.Random(0),
        )
        works = (*control(rooms), *mover(rooms), *self.bugs.swapped(rooms))
        return {work.__name__: work for work in works}

    # --- people ---

    def ask(self, kind: RequestKind, by: str, **body: Any) -> Answer:
        """Somebody asks for something; where two must agree, a second one does."""
        run, now = self.run, self.runtime.clock
        before = (run.undo_asked, run.commit_asked, run.switch_asked)
        answer = requests.admit(run, kind, ({"by": by, **body},), now)
        self.crew.note(f"{by}: {kind} {answer.accepted}{' pending' if answer.pending else ''}")
        if answer.pending:
            if before != (run.undo_asked, run.commit_asked, run.switch_asked):
                raise Wrong(f"{kind} did not wait for its approval")
            own = requests.admit(
                run, RequestKind.APPROVE, ({"by": by, "of": answer.request_id},), now
            )
            if own.accepted:
                raise Wrong(f"{by} has approved what {by} asked for")
            agreed = {"by": "carol", "of": answer.request_id}
            answer = requests.admit(run, RequestKind.APPROVE, (agreed,), now)
        if answer.accepted:
            self.asked |= {kind} & {RequestKind.UNDO, RequestKind.COMMIT}
            if "replica_content" in body:
                self.world.may_revert = body["replica_content"] == "revert"
        return answer

    def _people(self) -> None:
        """Somebody asks for something at a moment that nobody foresaw."""
        rng = self.crew.rng
        if rng.random() >= 0.002:
            return
        kind = rng.choice([*RequestKind, RequestKind.PAUSE, RequestKind.SWITCH_OVER])
        body: dict[str, Any] = {}
        if kind is RequestKind.RESCHEDULE:
            body["switch"] = {"mode": rng.choice(["auto", "manual"])}
        if kind is RequestKind.ADJUST:
            body["limits"] = {"bandwidth_bytes_per_s": rng.choice([None, 1 << 30])}
        if kind is RequestKind.RETRY:
            body.update(attest_off=["web01-replica", "web01"], reason="I believe so")
        if kind is RequestKind.COMMIT and self.world.used and not self.world.insists:
            return
        if rng.random() < 0.15:
            self._cancel()
        else:
            self.ask(kind, "ann", **body)

    def _impatient(self) -> None:
        self.ask(RequestKind.UNDO, "ann")

    def _cancel(self) -> None:
        """The workflow is cancelled: an undo, unless production serves or it is decided."""
        run = self.run
        before, issued = run.undo_asked, StepName.POWER_ON_TARGET in run.started()
        requests.cancelled(run, self.runtime.clock)
        self.crew.note(f"cancelled: {run.undo_asked}")
        if run.undo_asked and not before:
            if issued or run.commit_asked or self.request.approvals > 1:
                raise Wrong("a cancellation was taken for an undo that nobody had asked for")
            self.asked.add(RequestKind.UNDO)

    def _operator(self) -> None:
        """Somebody looks every five minutes and does what the run asks for."""
        run, world = self.run, self.world
        self.looks += 1
        if self.looks > MOST_LOOKS:
            raise Wrong(f"it never comes to an end: {run.phase} {run.operator}")
        world.meddle(0.7)
        if world.used and not world.insists:
            self.wants = RequestKind.UNDO
        if run.operator is not None:
            self._answer(run.operator.code)
        elif run.paused:
            self.ask(RequestKind.RESUME, "bob")
        elif run.phase is Phase.READY_TO_SWITCH and self.choice.random() < 0.5:
            self.ask(RequestKind.SWITCH_OVER, "bob")
        elif run.phase is Phase.AWAITING_DECISION:
            self.ask(self.wants, "bob")
        world.sites.tick(POINTS_OF_A_LOOK)
        if self.outcome is None:
            self.runtime.after(LOOK, self._operator)

    def _answer(self, code: str) -> None:
        world, growth = self.world, self.world.growth
        self.crew.note(f"operator sees {code}")
        self.stood[code] += 1
        if code == "ReplicaUsed":
            content = world.somebody.choice(["keep", "revert"])
            self.ask(RequestKind.UNDO, "bob", replica_content=content)
        elif code == "ReplicaGrown" and growth.random() < 0.7:
            self.ask(RequestKind.RETRY, "bob", rebase_target=True)
        elif code == "ReplicaGrown" or (code == "DiskSizeMismatch" and self.stood[code] > 2):
            self.ask(RequestKind.UNDO, "bob")
        elif code == "VmChanged" and world.touched and self.run.operator is not None:
            undoing = self.run.operator.from_phase is Phase.UNDOING
            self.ask(RequestKind.RETRY if undoing else RequestKind.UNDO, "bob")
        else:
            world.power_off_by_hand()
            self.ask(RequestKind.RETRY, "bob")

    # --- the life ---

    def live(self) -> None:
        """Live the run to its end. Wrong says what does not hold."""
        try:
            asyncio.run(self._live())
            self.crew.quiet = True
            self.crew.thaw_all()
            self.world.sites.tick(1 << 30)
            self.crew.point("the end")
        finally:
            self.crew.abandon()

    async def _live(self) -> None:
        taken_up = False
        for execution in itertools.count(1):
            self.runtime = self._runtime(execution)
            life = Life(self._engine(), lambda accepted: None, self._cleanup)
            try:
                self.outcome = await self.runtime.drive(life.live(taken_up=taken_up))
                return
            except GoOnLater:
                carried = self.run.carry(self.runtime.clock, self.runtime.clock)
                self.crew.note("continued as new")
            except Gone:
                carried = self._reconciled()
            self.run, taken_up = Run.take_up(carried), True

    def _runtime(self, execution: int) -> SimRuntime:
        clock = self.runtime.clock if execution > 1 else BEGIN
        made = SimRuntime(
            self.run,
            clock=clock,
            crew=self.crew,
            activities=self.activities,
            execution=f"execution-{execution}",
            terminated=lambda: self.lost,
            breach=lambda: "web01-replica" in self.world.by_somebody,
            before=self.world.meddle,
            idle=lambda: self.world.sites.tick(POINTS_OF_A_RETRY),
            after_attempt=self._after,
        )
        made.long_history = execution == 1 and self.choice.random() < 0.2
        made.after(LOOK, self._operator)
        if not self.lost and execution == 1 and self.choice.random() < 0.15:
            made.after(timedelta(minutes=self.choice.randint(0, 40)), self._terminate)
        return made

    def _after(self, operation: op.Operation[Any, Any], argument: Any) -> None:
        if operation in (op.TRANSPORT_CHANGES, op.VERIFY):
            self.disks.check_pass(argument)
        if operation is op.TRANSPORT_CHANGES and argument.step is StepName.TRANSPORT_CHANGES_2:
            self.world.rot(argument.target)

    def _terminate(self) -> None:
        self.lost = True
        self.crew.note("terminated")

    def _reconciled(self) -> Any:
        """What `reconcile` goes on from: it finishes what the wish was, where that is possible."""
        self.lost = False
        remains = self.activities["inspect_run"]
        argument = ops.InspectRun(run=ops.RunRef(run_id="", replica="web01"), step=StepName.SETTLE)
        found = ActivityEnvironment().run(remains, argument)
        commit = self.wants is RequestKind.COMMIT and "commit" in found.may
        phase = Phase.COMMITTING if commit else Phase.UNDOING
        self.crew.note(f"reconciled to {phase}")
        carried = rebuilt(found, phase, Request(by="ann"), self.runtime.clock)
        # Where something of the switch is missing, an undo is possible until it is done.
        decided = {Phase.COMMITTING: {RequestKind.COMMIT}, Phase.UNDOING: {RequestKind.UNDO}}
        self.asked = decided.get(carried.phase, set())
        return carried

    def _engine(self) -> Engine:
        skipped = self.bugs.skipped

        class Forgetful(Engine):
            async def step(self, step: Step) -> None:
                if step.name is not skipped:
                    await super().step(step)

        return Forgetful(self.run, self.runtime)

    async def _cleanup(self) -> None:
        facts = self.run.facts
        argument = ops.CleanTarget(
            run=facts.run,
            step=StepName.CLEAN_TARGET,
            target=facts.known.target,
            tracking_was=facts.known.target_tracking,
        )
        while True:
            try:
                await self.runtime.run(op.CLEAN_TARGET, argument, "clean", lambda: False)
                return
            except OperationError as error:
                # Nobody waits for it: `reconcile` finishes it one day.
                self.crew.note(f"the cleanup stands: {error.code}")
                self.stood["cleanup"] += 1
                self.world.sites.tick(POINTS_OF_A_LOOK)
                if self.stood["cleanup"] > MOST_LOOKS:
                    raise Wrong(f"the cleanup never ends: {error}") from error


def simulate(seed: int, bugs: Bugs = Bugs()) -> Simulation:
    """Live one seed and check its end; Failed where anything does not hold, or cannot be told."""
    made = Simulation(seed, bugs)
    try:
        made.live()
        check(made)
    except Exception as error:
        raise Failed(made, error) from error
    return made


class Failed(AssertionError):
    """A seed whose run went wrong, with all that had happened."""

    def __init__(self, made: Simulation, error: Exception) -> None:
        self.seed, self.cause = made.seed, error
        self.trace = list(made.crew.trace)
        said = f"{type(error).__name__}: {error}"
        super().__init__("\n  ".join([f"seed {made.seed}: {said}", *self.trace]))
