"""How a test steers a site in memory: what is there, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import (
    SiteUnreachable,
    SnapshotAmbiguous,
    SnapshotMissing,
    VmChanged,
    VmNotFound,
)
from failback.hypervisor.testing_vm import FakeDisk, FakeSnapshot, FakeVm


@dataclass
class _Failure:
    error: Exception
    nth: int
    times: int
    applied: bool


class Steering:
    """What a test does to a site. Set `down` to make every call fail as if nobody answered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.vms: dict[str, FakeVm] = {}
        self.unregistered: dict[str, FakeVm] = {}
        """VMs whose files are there, by path, without being in the inventory."""
        self.inventory: dict[str, set[str]] = {
            "host": {f"{name}-host"},
            "cluster": {f"{name}-cluster"},
            "pool": {"pool"},
            "folder": {"vm"},
            "datastore": {f"ds-{name}"},
            "network": {"VM Network"},
        }
        """Names of what a placement may name."""
        self.down = False
        self.tells_power_ons = True
        """False: events cannot be read, as on hosts that keep none."""
        self.api_version = "8.0.3.0"
        self.calls: list[str] = []
        self._failures: dict[str, list[_Failure]] = {}
        self._meanwhile: dict[str, Callable[[], object]] = {}
        self._lock = threading.RLock()
        self._number = 100

    def add_vm(
        self,
        name: str,
        disks: Sequence[bytearray] = (),
        power: PowerState = PowerState.OFF,
        **fields: object,
    ) -> VmIdentity:
        """Add a VM; `fields` are further fields of FakeVm."""
        number = self.next_number()
        identity = VmIdentity(
            site=self.name,
            vcenter_uuid=f"vcenter-{self.name}",
            moref=f"vm-{number}",
            name=name,
            instance_uuid=f"50 {self.name} {number}",
            bios_uuid=f"42 {self.name} {number}",
            path=f"[ds-{self.name}] {name}/{name}.vmx",
        )
        made = [
            FakeDisk(2000 + unit, unit, f"[ds-{self.name}] {name}/disk{unit}.vmdk", data)
            for unit, data in enumerate(disks)
        ]
        vm = FakeVm(identity, made, PowerState.OFF, **fields)  # type: ignore[arg-type]
        for disk in made:
            disk.tracking = int(vm.tracking)
        vm.turn(power)
        self.vms[identity.moref] = vm
        return identity

    def fail(
        self, call: str, error: Exception, *, nth: int = 1, times: int = 1, applied: bool = False
    ) -> None:
        """Fail the nth call (from now on) of a method, `times` times in a row.

        `applied`: the work is done first, so that only the reply is lost.
        """
        with self._lock:
            self._failures.setdefault(call, []).append(_Failure(error, nth, times, applied))

    def meanwhile(self, call: str, act: Callable[[], object]) -> None:
        """What somebody else does right before the next call of a method is carried out."""
        self._meanwhile[call] = act

    def vm(self, vm: VmIdentity) -> FakeVm:
        """The VM itself, for a test to look into or change."""
        found = self.vms.get(vm.moref)
        if found is None:
            raise VmNotFound(f"{vm} is not in the inventory any more.", "Find it again.")
        if found.identity.instance_uuid != vm.instance_uuid:
            raise VmChanged(f"{vm} is now another VM.", "Register it anew.")
        return found

    def named(self, vm: FakeVm, name: str) -> FakeSnapshot | None:
        """The one snapshot of this name."""
        found = [s for s in vm.snapshots if s.shown.name == name]
        if len(found) > 1:
            raise SnapshotAmbiguous(f"{vm.identity} has two snapshots {name}.", "Remove one.")
        return found[0] if found else None

    def snapshot(self, vm: FakeVm, snapshot: str) -> FakeSnapshot:
        """The snapshot of this moref."""
        for found in vm.snapshots:
            if found.shown.moref == snapshot:
                return found
        raise SnapshotMissing(f"Snapshot {snapshot} of {vm.identity} is gone.", "Find out why.")

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """One call of the port: counted, alone, and failing where a test said so."""
        with self._lock:
            self.calls.append(name)
            if self.down:
                raise SiteUnreachable(f"Site {self.name} did not answer.", "It is tried again.")
            if (act := self._meanwhile.pop(name, None)) is not None:
                act()
            failure = self._due(name)
            if failure is not None and not failure.applied:
                raise failure.error
            yield
            if failure is not None:
                raise failure.error

    def _due(self, call: str) -> _Failure | None:
        for failure in self._failures.get(call, []):
            failure.nth -= 1
            if -failure.times < failure.nth <= 0:
                return failure
        return None

    def next_number(self) -> int:
        """A number nobody has yet."""
        with self._lock:
            self._number += 1
            return self._number


def check_mark(vm: FakeVm, snapshot: FakeSnapshot, mark: str) -> None:
    """Refuse what does not carry the mark."""
    if not mark or mark not in snapshot.shown.description:
        raise VmChanged(f"A snapshot of {vm.identity} carries another mark.", "Check who made it.")
