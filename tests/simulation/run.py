"""One run under one seed: lived to its end, and everything checked."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities.registry import Rooms, control, mover
from failback.catalog import schema
from failback.catalog.ledger import SqlLedgerStore
from failback.contracts import operations as ops
from failback.contracts.plan import Tuning
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.vm import VmIdentity
from failback.contracts.words import Outcome, Phase, PowerState, ReplicaState, RequestKind, StepName
from failback.disks.copier import CopyOptions
from failback.disks.kinds import DatastoreAccess
from failback.errors import Unexpected
from failback.hypervisor.testing_vm import FakeVm
from tests.simulation.crew import Crew, Died
from tests.simulation.doubles import SimCatalog, SimDisks, SimSite, SimSites, state_dir
from tests.unit.workflows.virtual_runtime import VirtualRuntime
from workflows import operations as op
from workflows import requests
from workflows.engine import Engine, GoOnLater, OperationError, OperationStopped, Run
from workflows.facts import Facts
from workflows.life import Life
from workflows.rebuild import carried as rebuilt
from workflows.steps import Step

KIB = 1024
SIZE = 256 * KIB
RUN_ID = "run-1"
MOST_LOOKS = 60
"""So often somebody looks at the run before it is said to have got stuck."""


@dataclass(frozen=True)
class Bugs:
    """Deliberate bugs, each of which the simulation must notice."""

    flush_lies: bool = False
    """Segments are in the journal before their bytes are durable."""
    no_fence: bool = False
    skipped: StepName | None = None
    """A compensation that undo forgets."""
    no_marks: bool = False
    """Work of an earlier attempt is not found again."""


class Wrong(AssertionError):
    """Something that must hold does not."""


class Gone(Exception):
    """The workflow was terminated."""


@dataclass
class SimRuntime(VirtualRuntime):
    """Operations are the real activities, attempt after attempt, under the crew."""

    crew: Crew = field(default_factory=lambda: Crew(0))
    activities: dict[str, Callable[..., Any]] = field(default_factory=dict)
    execution: str = "execution-1"
    terminated: Callable[[], bool] = lambda: False
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def run(
        self, operation: op.Operation[Any, Any], argument: Any, title: str, stop: Callable[[], bool]
    ) -> Any:
        if operation is op.WATCH_DECISION:
            await self.wait(lambda: stop() or self.terminated())
            raise Gone if self.terminated() else OperationStopped
        number = str(next(self.numbers))
        for attempt in itertools.count(1):
            await asyncio.sleep(0)
            if self.terminated():
                raise Gone
            if stop():
                raise OperationStopped
            answer = self._attempt(operation, argument, number, attempt, stop)
            if answer is not None:
                self.issued.append((operation.name, argument))
                if getattr(answer, "stopped", False):
                    raise OperationStopped
                return answer
            if attempt > 60:
                raise Wrong(f"{operation.name} never ends")
        raise AssertionError

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
            if crew.faults > 0 and not crew.quiet and crew.rng.random() < 0.02:
                crew.faults -= 1
                crew.note(f"nobody heard of {label}")
                return None
            return done.result
        if isinstance(error, Died):
            return None
        if isinstance(error, CancelledError):
            raise OperationStopped
        if isinstance(error, ApplicationError):
            if error.type == Unexpected.__name__:
                raise Wrong(f"{label} ended with {error.message}") from error
            if not error.non_retryable:
                return None
            details = error.details[0] if error.details else {}
            away = bool(details.get("unreachable", False))
            raise OperationError(error.type or "Unknown", error.message, unreachable=away)
        raise Wrong(f"{label} ended with {error!r}") from error


class Simulation:
    """A world, a run in it, and what must be true at its end."""

    def __init__(self, seed: int, folder: Path, bugs: Bugs = Bugs()) -> None:
        self.seed, self.bugs = seed, bugs
        self.crew = Crew(seed)
        self.choice = random.Random(f"choices {seed}")
        self.sites = SimSites()
        self.production, self.dr = (
            self.sites.put(SimSite(name, self.crew, forgets_marks=bugs.no_marks))
            for name in ("production", "dr")
        )
        self.crew.quiet = True
        self._vms()
        url = f"sqlite:///{folder}/catalog.db"
        (folder / "catalog.db").write_bytes(_empty_catalog())
        self.catalog = SimCatalog(url, self.crew)
        self.catalog.add_replica("web01", self.replica, self.source, ReplicaState.FAILOVER)
        self.disks = SimDisks(
            {name: DatastoreAccess({}) for name in ("production", "dr")},
            self.catalog,
            state_dir(),
            timedelta(seconds=3),
            crew=self.crew,
            world=self.sites,
            fenced=not bugs.no_fence,
            lies=bugs.flush_lies,
        )
        for site in (self.production, self.dr):
            site.reverted = self._reverted
        self.activities = self._activities()
        self.request = self._request()
        self.run = Run(Facts(run=ops.RunRef(run_id=RUN_ID, replica="web01"), request=self.request))
        self.before = self._picture()
        self.outcome: Outcome | None = None
        self.wants = self.choice.choice([RequestKind.COMMIT, RequestKind.UNDO])
        self.lost = False
        self.looks = 0
        self.growth = random.Random(f"growth {seed}")
        self.grows = self.growth.random() < 0.2
        """Whether somebody will make the replica's disks larger."""
        self.stranger = random.Random(f"stranger {seed}")
        self.strays = self.stranger.random() < 0.2
        """Whether somebody will run the replica for a moment while it must be off."""
        self.dr.vm(self.replica).shutdown_looks = self.stranger.choice([0, 0, 0, 2])
        self.kept: dict[int, tuple[int, int]] = {}
        """What the last byte of a disk of the replica must be at the end, by key."""
        self.stood: Counter[str] = Counter()
        """How often the operator found it standing, by the code of the error."""
        self.crew.cut, self.crew.guest = self._cut, self._guest
        self.crew.people, self.crew.watch = self._people, self._at_most_one
        self.crew.quiet = False

    # --- the world ---

    def _vms(self) -> None:
        rng = self.choice
        old = [bytearray(rng.randbytes(SIZE)) for _ in range(2)]
        new = [bytearray(rng.randbytes(SIZE)) for _ in range(2)]
        new[0][64 * KIB : 128 * KIB] = bytes(64 * KIB)
        self.source = self.production.add_vm("web01", old, PowerState.OFF, tracking=True)
        self.restored = self.production.add_vm(
            "web01-restored", [bytearray(rng.randbytes(SIZE)) for _ in range(2)], PowerState.OFF
        )
        self.replica = self.dr.add_vm("web01-replica", new, PowerState.ON)

    def _request(self) -> StartRequest:
        kind = self.choice.choice(["original", "original", "recovered", "new"])
        # A guest is looked at once and then forced: nothing may hang on the machine's clock.
        more: dict[str, Any] = {"destination": kind, "guest_timeout": "PT0S"}
        if kind == "recovered":
            more["recovered"] = "production:web01-restored"
        if kind == "new":
            more["new_vm"] = {"name": "web01-home"}
        if self.choice.random() < 0.4:
            more["switch"] = {"mode": "manual", "resync_interval": "PT10M"}
        return StartRequest.model_validate({"replica": "web01", **more})

    def _activities(self) -> dict[str, Callable[..., Any]]:
        rooms = Rooms(
            sites=self.sites,
            catalog=self.catalog,
            disks=self.disks,
            ledger=SqlLedgerStore(self.catalog),
            tuning=Tuning(heartbeat_timeout=timedelta(seconds=3)),
            segment_bytes=64 * KIB,
            options=CopyOptions(flush_interval_s=0.0),
        )
        return {work.__name__: work for work in (*control(rooms), *mover(rooms))}

    def _reverted(self, vm: VmIdentity) -> None:
        for disk in self.sites.site(vm.site).vm(vm).disks:
            self.disks.volume(disk).settled()

    def _cut(self) -> None:
        """The production storage loses power: what was not flushed may be lost."""
        for name in list(self.disks.writers):
            for disk in self.disks.writers.pop(name):
                disk.close()
        for volume in self.disks.volumes.values():
            volume.power_cut(self.crew.rng)

    def _guest(self) -> None:
        """The guest of the VM that serves writes now and then."""
        vm = self.dr.vm(self.replica)
        if vm.power is PowerState.ON and self.crew.rng.random() < 0.02:
            disk = self.crew.rng.choice(vm.disks)
            offset = self.crew.rng.randrange(0, SIZE - 4096)
            disk.data[offset : offset + 4096] = self.crew.rng.randbytes(4096)
        self._stray(vm)
        # No disk grows under a snapshot.
        can = self.grows and vm.power is PowerState.ON and not vm.snapshots
        # After pass 1 the target can follow; before it, the run is refused or undone.
        often = 0.03 if self.run.facts.base else 0.0006
        if can and self.growth.random() < often:
            self._grow(vm)

    def _stray(self, vm: FakeVm) -> None:
        """Somebody powers the replica on, writes, and shuts it down again: nobody may lose that.
        Not right before the target is powered on: between look and deed nobody can know."""
        acting = self.crew.current.name if self.crew.current is not None else ""
        can = self.strays and self.run.phase is Phase.SWITCHING and vm.power is PowerState.OFF
        if can and not acting.startswith("power_on") and self.stranger.random() < 0.02:
            self.strays = False
            vm.turn(PowerState.ON)
            disk = self.stranger.choice(vm.disks)
            at = len(disk.data) - 1
            disk.data[at] ^= 0xFF
            self.kept[disk.key] = at, disk.data[at]
            vm.turn(PowerState.OFF)
            self.crew.note("somebody ran the replica")

    def _grow(self, vm: FakeVm) -> None:
        self.grows = False
        disk = self.growth.choice(vm.disks)
        disk.data.extend(self.growth.randbytes(4096) + bytes(60 * KIB))
        disk.track(reset=True)
        self.crew.note(f"the replica's disk {disk.key} has grown")

    def _people(self) -> None:
        """Somebody asks for something at a moment that nobody foresaw."""
        if self.crew.rng.random() < 0.0015:
            kinds = [RequestKind.UNDO, RequestKind.PAUSE, RequestKind.SWITCH_OVER]
            kind = self.crew.rng.choice([*kinds, RequestKind.RESUME, RequestKind.COMMIT])
            answer = requests.admit(self.run, kind, ({"by": "ann"},), self.runtime.clock)
            self.crew.note(f"{kind} asked: {answer.accepted}")

    def _at_most_one(self) -> None:
        """Invariant I1, from the moment on when the replica was first off."""
        target = self._target()
        if target is None or StepName.POWER_OFF_REPLICA not in self.run.started():
            return
        ons = [vm.identity.name for vm in self._all() if vm.power is PowerState.ON]
        if len(ons) > 1:
            raise Wrong(f"two copies run: {ons}")

    def _all(self) -> list[FakeVm]:
        return [*self.production.vms.values(), *self.dr.vms.values()]

    def _target(self) -> FakeVm | None:
        plan = self.run.facts.plan
        if plan is None or not plan.target_exists:
            return None
        return self.production.vms.get(plan.target.moref)

    def _target_name(self) -> str:
        plan = self.run.facts.plan
        return plan.target.name if plan is not None else ""

    # --- the life ---

    def live(self) -> None:
        """Live the run to its end and check everything. Wrong says what does not hold."""
        with closing(self.catalog):
            asyncio.run(self._live())
            self.crew.quiet = True
            self.crew.thaw_all()
            self._check()

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
        clock = self.runtime.clock if execution > 1 else datetime(2026, 1, 1, tzinfo=UTC)
        made = SimRuntime(
            self.run,
            clock=clock,
            crew=self.crew,
            activities=self.activities,
            execution=f"execution-{execution}",
            terminated=lambda: self.lost,
        )
        made.long_history = execution == 1 and self.choice.random() < 0.2
        made.after(timedelta(minutes=5), self._operator)
        if not self.lost and execution == 1 and self.choice.random() < 0.15:
            made.after(timedelta(minutes=self.choice.randint(0, 40)), self._terminate)
        return made

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
        return rebuilt(found, phase, Request(by="ann"), self.runtime.clock)

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
        try:
            await self.runtime.run(op.CLEAN_TARGET, argument, "clean", lambda: False)
        except OperationError as error:
            raise Wrong(f"nobody is asked about the cleanup: {error}") from error

    def _operator(self) -> None:
        """Somebody looks every five minutes and does what the run asks for."""
        run, now = self.run, self.runtime.clock

        def ask(kind: RequestKind, **body: Any) -> None:
            answer = requests.admit(run, kind, ({"by": "bob", **body},), now)
            self.crew.note(f"bob: {kind} {answer.accepted}")

        self.looks += 1
        if self.looks > MOST_LOOKS:
            raise Wrong(f"it never comes to an end: {run.phase} {run.operator}")
        if run.operator is not None:
            self.crew.note(f"operator sees {run.operator.code}")
            code = run.operator.code
            self.stood[code] += 1
            if code == "ReplicaUsed":
                ask(RequestKind.UNDO, replica_content="keep")
            elif code == "ReplicaGrown" and self.growth.random() < 0.7:
                ask(RequestKind.RETRY, rebase_target=True)
            elif code == "ReplicaGrown" or (code == "DiskSizeMismatch" and self.stood[code] > 2):
                ask(RequestKind.UNDO)
            else:
                ask(RequestKind.RETRY)
        elif run.paused:
            ask(RequestKind.RESUME)
        elif run.phase is Phase.READY_TO_SWITCH and self.choice.random() < 0.5:
            ask(RequestKind.SWITCH_OVER)
        elif run.phase is Phase.AWAITING_DECISION:
            ask(self.wants)
        if self.outcome is None:
            self.runtime.after(timedelta(minutes=5), self._operator)

    # --- the end ---

    def _picture(self) -> dict[str, Any]:
        """Everything that undo gives back."""
        return {
            vm.identity.name: {
                "power": vm.power,
                "tracking": vm.tracking,
                "snapshots": [s.shown.name for s in vm.snapshots],
                "attributes": {k: v for k, v in vm.attributes.items() if v},
                "nics": list(vm.nics),
                "data": [bytes(disk.data) for disk in vm.disks],
            }
            for vm in self._all()
        }

    def _check(self) -> None:
        if self.catalog.claims():
            raise Wrong(f"claims remain: {self.catalog.claims()}")
        now = self._picture()
        replica = now["web01-replica"]
        held = {disk.key: disk.data for disk in self.dr.vm(self.replica).disks}
        if lost := {key for key, (at, byte) in self.kept.items() if held[key][at] != byte}:
            raise Wrong(f"what somebody wrote to the replica is lost: disks {lost}")
        state = self.catalog.get_replica("web01").state
        if self.outcome is Outcome.COMMITTED:
            self._check_commit(now, state)
            return
        # The replica serves again and keeps what its guest wrote.
        self.before["web01-replica"]["data"] = replica["data"]
        for name in ("web01", "web01-restored"):
            # Undo does not shrink what was grown; behind the old content there is nothing.
            for number, old in enumerate(self.before[name]["data"]):
                found = now[name]["data"][number]
                room = len(replica["data"][number]) - len(old)
                if name == self._target_name() and found == old + bytes(room):
                    self.before[name]["data"][number] = found
        if self.dr.vm(self.replica).stopping is not None:
            raise Wrong("the guest of the replica goes down after the undo")
        if now != self.before:
            raise Wrong(f"after {self.outcome}: {_difference(self.before, now)}")
        if state is not ReplicaState.FAILOVER:
            raise Wrong(f"after {self.outcome} the replica is {state}")

    def _check_commit(self, now: dict[str, Any], state: ReplicaState) -> None:
        replica, target = now["web01-replica"], self._target()
        if target is None:
            raise Wrong("committed without a target")
        mine = now[target.identity.name]
        if mine["data"] != replica["data"]:
            raise Wrong("the committed target differs from the replica")
        if state is not ReplicaState.READY:
            raise Wrong(f"after commit the replica is {state}")
        if (mine["power"], replica["power"]) != (PowerState.ON, PowerState.OFF):
            raise Wrong(f"after commit: target {mine['power']}, replica {replica['power']}")
        if mine["snapshots"] or mine["attributes"] or target.mark:
            found = mine["snapshots"], mine["attributes"], target.mark
            raise Wrong(f"left on the target: {found}")
        if mine["tracking"] is not self.before.get(target.identity.name, {}).get("tracking", False):
            raise Wrong(f"tracking of the target is {mine['tracking']}")
        if replica["snapshots"] != [f"failback/{RUN_ID}/protective"]:
            raise Wrong(f"snapshots of the replica: {replica['snapshots']}")
        source = self.catalog.get_replica("web01").source
        if source.moref != target.identity.moref:
            raise Wrong(f"the source VM is {source}")
        extra = set(now) - set(self.before) - {target.identity.name}
        if extra:
            raise Wrong(f"left over: {extra}")


@cache
def _empty_catalog() -> bytes:
    """A catalog as the migrations make it, made once: they take longer than a run."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as folder:
        schema.migrate(f"sqlite:///{folder}/catalog.db")
        return (Path(folder) / "catalog.db").read_bytes()


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    texts = [f"VMs {sorted(before)} became {sorted(now)}"] if set(before) != set(now) else []
    for name in set(before) & set(now):
        for key, value in before[name].items():
            if now[name][key] != value:
                shown = "bytes" if key == "data" else f"{value} became {now[name][key]}"
                texts.append(f"{name} {key}: {shown}")
    return "; ".join(texts)


def simulate(seed: int, bugs: Bugs = Bugs()) -> Simulation:
    """Live one seed in a folder of its own; Wrong where something does not hold."""
    memory = Path("/dev/shm")
    base = str(memory) if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=base) as folder:
        made = Simulation(seed, Path(folder), bugs)
        made.live()
        return made
