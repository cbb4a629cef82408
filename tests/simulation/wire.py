"""The wire between the product and the sites in memory: what is sent may be lost, refused, slow, or
applied when whoever sent it has long died.

A task is made where the product says that it sends now, by its beat: what it read before may be old
when the task is carried out, and only `settle` and a search by mark find it then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, cast

from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import SiteBusy, SiteUnreachable
from failback.hypervisor.ports import Beat
from failback.hypervisor.testing import FakeSite, FakeSites
from tests.simulation.crew import Crew, Wrong

READS = frozenset(
    {
        "read",
        "power_mark",
        "get_attribute",
        "snapshot_disks",
        "ping",
        "about",
        "missing_privileges",
        "configuration",
        "place",
        "find",
        "find_again",
        "changed_areas",
        "read_nvram",
        "keep_alive",
        "refresh_datastores",
    }
)
AT_ONCE = frozenset({"set_attribute", "write_nvram", "shut_down_guest"})
"""Changes that are no tasks: they are done when they are answered."""
TASKS = frozenset(
    {
        "power_off",
        "power_on",
        "create_snapshot",
        "revert_to_snapshot",
        "remove_snapshot",
        "set_change_tracking",
        "grow_disk",
        "create_vm",
        "destroy_vm",
        "rename_vm",
        "set_nics",
        "set_hardware",
    }
)
SLOW = 0.05
"""Of the tasks."""
LONGEST = (20, 60, 300)
"""Points that a slow task takes."""


class _Sent(BaseException):
    """The task is with the site; what made it hears of it later, or never."""


@dataclass
class Task:
    """Work that a site has accepted and not done yet."""

    what: str
    object: str
    left: int
    apply: Callable[[], Any]
    done: bool = False
    result: Any = None
    error: Exception | None = None


class SimSite(FakeSite):
    """A site with tasks under way."""

    def __init__(self, name: str, *, forgets_marks: bool = False) -> None:
        super().__init__(name)
        self.forgets_marks = forgets_marks
        """A deliberate bug: what an earlier attempt made is not looked for."""
        self.tasks: list[Task] = []

    def busy(self, name: str) -> bool:
        """Whether a task is under way on this object."""
        return any(task.object == name for task in self.tasks)

    def tick(self, points: int = 1) -> None:
        """Tasks come nearer to their ends."""
        for task in list(self.tasks):
            task.left -= points
            if task.left <= 0:
                self.tasks.remove(task)
                try:
                    task.result = task.apply()
                except Exception as error:
                    task.error = error
                task.done = True

    def create_snapshot(self, vm: VmIdentity, name: str, description: str, beat: Beat) -> str:
        if not self.forgets_marks:
            return super().create_snapshot(vm, name, description, beat)
        beat()
        return self.freeze(vm, name, description)

    def freeze(self, vm: VmIdentity, name: str, description: str) -> str:
        """As a site does what it was told: names may repeat."""
        return self.vm(vm).freeze(f"snapshot-{self.next_number()}", name, description)


class Wire:
    """What the product takes for the site."""

    def __init__(self, site: SimSite, sites: SimSites) -> None:
        self._site, self._sites, self._crew = site, sites, sites.crew

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._site, name)
        if name in READS:
            return partial(self._read, name, found)
        if name in AT_ONCE | TASKS:
            return partial(self._change, name, found)
        return found

    def _read(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        label = f"{self._site.name}.{name}"
        self._crew.point(f"{label} sent", lost=True)
        result = work(*arguments)
        if isinstance(result, Iterator):
            result = iter(list(result))
        self._crew.point(f"{label} done", lost=True)
        return result

    def _change(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        *rest, beat = arguments
        label = f"{self._site.name}.{name}"
        self._crew.point(f"{label} sent", lost=True, mutating=True)
        left = self._left(name)
        object_ = self._object(name, rest)

        def send() -> None:
            beat()
            if name in TASKS and self._site.busy(object_):
                raise SiteBusy(f"A task runs on {object_}.", "It is tried again.")
            self._sites.sending(name, rest)
            if left:
                raise _Sent

        try:
            result = work(*rest, send)
            self._sites.changed(name, rest)
        except _Sent:
            result = self._later(label, name, work, rest, left, beat)
        self._crew.point(f"{label} done", lost=True, mutating=True)
        return result

    def _left(self, name: str) -> int:
        crew = self._crew
        if name not in TASKS or crew.quiet or crew.current is None:
            return 0
        if crew.rng.random() >= SLOW:
            return 0
        return crew.rng.randint(1, crew.rng.choice(LONGEST))

    @staticmethod
    def _object(name: str, rest: list[Any]) -> str:
        return "a VM that is made" if name == "create_vm" else rest[0].moref

    def _later(
        self,
        label: str,
        name: str,
        work: Callable[..., Any],
        rest: list[Any],
        left: int,
        beat: Beat,
    ) -> Any:
        site, crew = self._site, self._crew

        def apply() -> Any:
            if name == "create_snapshot":
                result: Any = site.freeze(*rest)
            else:
                result = work(*rest, lambda: None)
            self._sites.changed(name, rest)
            crew.note(f"{label} is done late")
            return result

        task = Task(label, self._object(name, rest), left, apply)
        site.tasks.append(task)
        crew.note(f"{label} takes {left} points")
        if crew.spend(0.4):
            if crew.rng.random() < 0.5:
                task.left += max(LONGEST)
                crew.impatient()
            raise SiteUnreachable(f"Nobody heard of {label}.", "It is tried again.")
        while not task.done:
            beat()
            crew.point(f"{label} runs", lost=True, mutating=True)
        if task.error is not None:
            raise task.error
        return task.result

    # --- what waits for tasks ---

    def settle(self, vm: VmIdentity, timeout: timedelta, beat: Beat) -> str:
        """As the port says."""
        self._crew.point(f"{self._site.name}.settle sent", lost=True)
        self._site.vm(vm)
        return self._wait(vm.moref, beat)

    def find_made(self, shell: Any, mark: str, beat: Beat) -> VmIdentity | None:
        """As the port says."""
        self._crew.point(f"{self._site.name}.find_made sent", lost=True)
        self._wait(self._object("create_vm", []), beat)
        return self._site.find_made(shell, mark, beat)

    def _wait(self, name: str, beat: Beat) -> str:
        waited = ""
        while self._site.busy(name):
            waited = f"a task on {name}"
            beat()
            self._crew.point(f"{self._site.name} waits", lost=True)
        return waited


class SimSites(FakeSites):
    """Sites of the simulation: the product gets wires, the world the sites themselves."""

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self.crew = crew
        self.rewritten: Callable[[VmIdentity], None] = lambda vm: None
        """The site itself, or somebody beside us, wrote the VM's disks."""
        self.copies: Callable[[], list[Any]] = list
        """VMs of which one may run at a time."""
        self._wires: dict[str, Wire] = {}

    def put(self, site: SimSite) -> SimSite:
        self._sites[site.name] = site
        self._wires[site.name] = Wire(site, self)
        return site

    def site(self, name: str) -> FakeSite:
        return cast(FakeSite, self._wires[name]) if name in self._wires else super().site(name)

    def raw(self, name: str) -> SimSite:
        """The site, without the wire."""
        return cast(SimSite, self._sites[name])

    def tick(self, points: int = 1) -> None:
        """Tasks of all sites come nearer to their ends."""
        for name in self._sites:
            self.raw(name).tick(points)

    def sending(self, name: str, rest: list[Any]) -> None:
        """Invariant I1: nothing is powered on while another copy runs."""
        if name != "power_on":
            return
        on = [
            vm.identity.name
            for vm in self.copies()
            if vm.power is PowerState.ON and vm.identity.moref != rest[0].moref
        ]
        if on:
            self.crew.wrong = Wrong(f"{rest[0].name} is powered on while {on} runs")

    def changed(self, name: str, rest: list[Any]) -> None:
        """Tell the disks what the site did to them."""
        if name in ("revert_to_snapshot", "grow_disk", "power_on"):
            self.rewritten(rest[0])
