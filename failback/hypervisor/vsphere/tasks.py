"""vSphere tasks: wait for them, find running ones again, and issue a mutation exactly as needed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from failback.contracts.vm import VmIdentity
from failback.errors import FailbackError, SiteBusy
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults, questions
from failback.hypervisor.vsphere.api import Ref, moref, vim, vmodl
from failback.hypervisor.vsphere.inventory import gone, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.properties import Read, read_object, read_objects, walk
from failback.hypervisor.vsphere.session import BEAT_S, ReplyLost, Session

log = logging.getLogger(__name__)

ROUNDS = 4

_INFO = ("info.state", "info.error", "info.result", "info.descriptionId", "info.name")
_OPEN = frozenset({"queued", "running"})


@dataclass(frozen=True, slots=True)
class Polling:
    """How often to look; the clock and the sleep are replaceable."""

    first_s: float = 0.01
    most_s: float = 2.0
    lost_look_s: float = 3.0
    """How long the trace of a mutation without reply is looked for: it may still be queued."""
    done_look_s: float = 60.0
    """How long the state may lag behind a task that reported success (power on through DRS)."""
    held_s: float = 60.0
    """How long a call is repeated while somebody holds a file or has switched the method off."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def turns(self, beat: Beat) -> Iterator[float]:
        """Endless turns, each after a longer pause and a beat; yields seconds since the start."""
        began, pause = self.clock(), self.first_s
        while True:
            yield self.clock() - began
            self.sleep(pause)
            beat()
            pause = min(pause * 1.5, self.most_s)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended: with a fault, or gone from the site's list before we could read it."""

    fault: Any = None
    gone: bool = False


@dataclass(slots=True)
class Tasks:
    """Tasks on the VMs of one site."""

    session: Session
    polling: Polling = field(default_factory=Polling)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _locks: dict[tuple[str, Operation], threading.Lock] = field(default_factory=dict)

    def open_on_folder(self, folder: Ref, operation: Operation, beat: Beat) -> list[Ref]:
        """Running and queued tasks of a kind on a folder: those that make VMs in it."""
        select = (walk("Folder", "recentTask"),)
        for attempt in range(ROUNDS):
            try:
                # A busy folder lists hundreds of tasks that are over: only the others are read.
                states = read_objects(
                    self.session, [folder], {"Task": ("info.state",)}, select, beat
                )
                found = [entry.ref for entry in states if entry.get("info.state") in _OPEN]
                if not found:
                    return []
                read = read_objects(self.session, found, {"Task": _INFO}, beat=beat)
                return [entry.ref for entry in read if operation.fits(entry)]
            except vmodl.fault.ManagedObjectNotFound as fault:
                # Purged while the list was read: it is over, the others may not be.
                if not isinstance(fault.obj, vim.Task) or attempt + 1 == ROUNDS:
                    raise
        raise AssertionError("unreachable")

    def recent(self, vm: VmIdentity, beat: Beat) -> list[Read]:
        """The site's recent tasks on the VM, finished ones included."""
        try:
            found = read_objects(
                self.session,
                [vm_ref(vm)],
                {"Task": _INFO},
                (walk("VirtualMachine", "recentTask"),),
                beat,
            )
        except vmodl.fault.ManagedObjectNotFound as fault:
            if isinstance(fault.obj, vim.Task):
                return []  # purged while the list was read
            raise gone(self.session, fault, [vm]) from fault
        return [entry for entry in found if entry.kind == "Task"]

    def wait_alone(self, task: Ref, beat: Beat) -> Ended:
        """Wait until a task ends that is about no VM that exists yet."""
        for _ in self.polling.turns(beat):
            try:
                found = read_objects(self.session, [task], {"Task": _INFO}, beat=beat)
            except vmodl.fault.ManagedObjectNotFound:
                return Ended(gone=True)
            state = found[0].get("info.state")
            if state not in _OPEN:
                return Ended(found[0].get("info.error") if state == "error" else None)
        raise AssertionError("unreachable")

    def wait(
        self, vm: VmIdentity, task: Ref, beat: Beat, answers: Mapping[str, str] | None = None
    ) -> Ended:
        """Wait until the task ends. A question of the VM blocks it: one of `answers` is given,
        for any other OperationFailed says which it is."""
        for _ in self.polling.turns(beat):
            try:
                found = read_objects(
                    self.session,
                    [task, vm_ref(vm)],
                    {"Task": _INFO, "VirtualMachine": ("runtime.question",)},
                    beat=beat,
                )
            except vmodl.fault.ManagedObjectNotFound as fault:
                if fault.obj is not None and moref(fault.obj) == vm.moref:
                    raise gone(self.session, fault, [vm]) from fault
                return Ended(gone=True)
            by_kind = {entry.kind: entry for entry in found}
            state = by_kind["Task"].get("info.state")
            if state not in _OPEN:
                return Ended(by_kind["Task"].get("info.error") if state == "error" else None)
            asked = by_kind["VirtualMachine"].get("runtime.question")
            if asked is not None:
                questions.answer_known(self.session, vm, asked, answers or {}, beat)
        raise AssertionError("unreachable")

    def make_true(self, vm: VmIdentity, job: Job, beat: Beat) -> bool:
        """Bring the job's end about; returns whether anything had to be issued.

        Order: reattach to running tasks of the same kind, look at the state, issue, wait, look.
        """
        with self.alone(vm.moref, job.operation, beat):
            return self._make_true(vm, job, beat)

    @contextmanager
    def alone(self, subject: str, operation: Operation, beat: Beat) -> Iterator[None]:
        """One thread at a time per VM and kind: nothing at the site makes look-and-issue atomic."""
        with self._guard:
            lock = self._locks.setdefault((subject, operation), threading.Lock())
        while not lock.acquire(timeout=BEAT_S):
            beat()
        try:
            yield
        finally:
            lock.release()

    def _make_true(self, vm: VmIdentity, job: Job, beat: Beat) -> bool:
        refused: FailbackError | None = None
        held_until = self.polling.clock() + self.polling.held_s
        rounds = 0
        while rounds < ROUNDS:
            rounds += 1
            known = self._reattach(vm, job, beat)
            if job.done is not None and job.done():
                return refused is not None
            target, method, args = job.call()
            try:
                task = self.session.mutate(target, method, *args, beat=beat)
            except ReplyLost as lost:
                ended = self._look_for_trace(vm, job, known, beat)
                if ended is None:
                    raise lost
            except vmodl.MethodFault as fault:
                ended = Ended(fault)
            else:
                ended = self.wait(vm, task, beat, job.answers)
            if ended.fault is None and not ended.gone:
                self._until_done(vm, job, beat)
                return True
            if ended.fault is not None:
                refused = faults.typed(ended.fault, self.session.site, f"{job.doing} {vm}")
                then = faults.meaning(ended.fault).then
                if then is faults.Then.RAISE:
                    raise refused
                if job.done is not None and job.done():
                    return True
                if isinstance(ended.fault, vmodl.fault.ManagedObjectNotFound):
                    raise refused
                if then is faults.Then.LOOK and not isinstance(refused, SiteBusy):
                    raise refused
                if then is faults.Then.WAIT:
                    self._wait_for_all(vm, beat)
                if then is faults.Then.AGAIN:
                    self._let_go(refused, held_until, beat)
                    rounds = 0
            else:
                refused = SiteBusy(
                    f"The task to {job.doing} {vm} vanished from site {self.session.site}.",
                    "It is looked up and tried again.",
                )
        assert refused is not None
        raise refused

    def settle(self, vm: VmIdentity, timeout: timedelta, beat: Beat) -> str:
        """Wait until two looks in a row find no open task; returns what was waited for."""
        seen: dict[str, str] = {}
        quiet = 0
        for elapsed in self.polling.turns(beat):
            tasks = [task for task in self.recent(vm, beat) if task.get("info.state") in _OPEN]
            seen.update({moref(task.ref): _label(task) for task in tasks})
            quiet = 0 if tasks else quiet + 1
            if quiet == 2:
                return ", ".join(f"{label} ({moid})" for moid, label in seen.items())
            if tasks and elapsed >= timeout.total_seconds():
                raise SiteBusy(
                    f"{_label(tasks[0])} still runs on {vm} after {timeout}.",
                    "Wait for it or cancel it in the vSphere Client, then retry.",
                    task=moref(tasks[0].ref),
                )
        raise AssertionError("unreachable")

    def _reattach(self, vm: VmIdentity, job: Job, beat: Beat) -> set[str]:
        """Wait for running tasks of these kinds; returns the ids of all tasks known by then."""
        tasks = self.recent(vm, beat)
        for task in tasks:
            kinds = (job.operation, *job.after)
            if task.get("info.state") in _OPEN and any(kind.fits(task) for kind in kinds):
                log.info(
                    "reattached to task",
                    extra={"site": vm.site, "vm": vm.moref, "task": moref(task.ref)},
                )
                self.wait(vm, task.ref, beat, job.answers)
        return {moref(task.ref) for task in tasks}

    def _look_for_trace(
        self, vm: VmIdentity, job: Job, known: set[str], beat: Beat
    ) -> Ended | None:
        """After a lost reply: the end of the task it started, None when there is no trace."""
        for elapsed in self.polling.turns(beat):
            for task in self.recent(vm, beat):
                if moref(task.ref) in known or not job.operation.fits(task):
                    continue
                ended = self.wait(vm, task.ref, beat, job.answers)
                if ended.fault is not None or job.done is None or job.done():
                    return ended
                known.add(moref(task.ref))  # somebody else's, of the same kind
            if job.done is not None and job.done():
                return Ended()
            if elapsed >= self.polling.lost_look_s:
                return None
        raise AssertionError("unreachable")

    def _wait_for_all(self, vm: VmIdentity, beat: Beat) -> None:
        # Even when the task in the way is not listed: asking again at once would change nothing.
        self.polling.sleep(self.polling.first_s)
        for task in self.recent(vm, beat):
            if task.get("info.state") in _OPEN:
                self.wait(vm, task.ref, beat)

    def _let_go(self, refused: FailbackError, until: float, beat: Beat) -> None:
        """Pause before a held file or method is tried again; raises when that took too long."""
        if self.polling.clock() >= until:
            raise refused
        self.polling.sleep(self.polling.most_s)
        beat()

    def _until_done(self, vm: VmIdentity, job: Job, beat: Beat) -> None:
        for elapsed in self.polling.turns(beat):
            if job.done is None or job.done():
                return
            # A VM started by DRS may ask after the task that started it has ended.
            asked = read_object(self.session, vm_ref(vm), ("runtime.question",), beat)
            if asked.get("runtime.question") is not None:
                question = asked.get("runtime.question")
                questions.answer_known(self.session, vm, question, job.answers, beat)
            if elapsed >= self.polling.done_look_s:
                raise SiteBusy(
                    f"Site {self.session.site} reported success to {job.doing} {vm}, "
                    "but its state does not show it yet.",
                    "It is looked up and tried again.",
                )


def _label(task: Read) -> str:
    return str(task.get("info.descriptionId") or task.get("info.name") or "a task")
