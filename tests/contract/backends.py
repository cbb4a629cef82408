"""What stands behind the port in a contract test: lab, stock simulators, double."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from failback.contracts.placement import Placement
from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import SiteUnreachable
from failback.hypervisor.ports import Site
from failback.hypervisor.testing import FakeSite
from tests.contract.differences import DIFFERENCES, DOUBLE
from tests.helpers.lab import LabHandle

MIB = 1 << 20

SOAP_METHODS = {
    "power_off": "PowerOffVM_Task",
    "power_on": "PowerOnVM_Task",
    "shut_down_guest": "ShutdownGuest",
    "create_snapshot": "CreateSnapshot_Task",
    "revert_to_snapshot": "RevertToSnapshot_Task",
    "remove_snapshot": "RemoveSnapshot_Task",
    "set_change_tracking": "ReconfigVM_Task",
    "grow_disk": "ReconfigVM_Task",
    "set_attribute": "SetField",
    "create_vm": "CreateVM_Task",
    "register_vm": "RegisterVM_Task",
    "unregister_vm": "UnregisterVM",
    "destroy_vm": "Destroy_Task",
    "clear_mark": "ReconfigVM_Task",
    "rename_vm": "Rename_Task",
    "set_nics": "ReconfigVM_Task",
    "add_nic": "ReconfigVM_Task",
    "set_hardware": "ReconfigVM_Task",
    "add_disk": "ReconfigVM_Task",
    "remove_disk": "ReconfigVM_Task",
}
"""The call that changes something, by method of the port."""


class Beats:
    """A beat that counts, and that raises once told to."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


class Backend(Protocol):
    """A site with a VM that is off (`off`, two disks) and one that is on (`on`, two disks)."""

    name: str
    off: VmIdentity
    on: VmIdentity
    placement: Placement
    """Where a VM may be made."""

    @property
    def site(self) -> Site: ...

    def lose_reply(self, call: str) -> None:
        """The next such call is done, but its reply never comes."""

    def break_call(self, call: str) -> None:
        """The next such call fails before it does anything."""

    def write(self, offset_bytes: int, data: bytes) -> None:
        """The guest of `on` writes to its first disk."""

    def foreign_snapshot(self, vm: VmIdentity, name: str, description: str = "") -> None:
        """Somebody else makes a snapshot."""

    def rule(self, key: str, holds: bool) -> None:
        """Assert a rule, or its listed contrary."""


@dataclass
class LabBackend:
    """The driver against the lab, with its extensions or without them, or an older simulator."""

    name: str
    site: Site
    off: VmIdentity
    on: VmIdentity
    lab: LabHandle
    placement: Placement = field(default_factory=Placement)

    def lose_reply(self, call: str) -> None:
        self.lab.control.fault("drop-after", method=SOAP_METHODS[call], count=1)

    def break_call(self, call: str) -> None:
        self.lab.control.fault("drop-before", method=SOAP_METHODS[call], count=1)

    def write(self, offset_bytes: int, data: bytes) -> None:
        self.lab.control.post(
            f"/sites/{self.on.site}/vms/{self.on.name}/guest/write",
            disk=0,
            offset=offset_bytes,
            hex=data.hex(),
        )

    def foreign_snapshot(self, vm: VmIdentity, name: str, description: str = "") -> None:
        self.lab.control.post(
            f"/sites/{vm.site}/vms/{vm.name}/snapshot", name=name, description=description
        )

    def rule(self, key: str, holds: bool) -> None:
        check_rule(self.name, key, holds)


@dataclass
class DoubleBackend:
    """The in-memory double."""

    fake: FakeSite
    off: VmIdentity
    on: VmIdentity
    name: str = DOUBLE
    placement: Placement = field(default_factory=Placement)

    @property
    def site(self) -> Site:
        return self.fake

    def lose_reply(self, call: str) -> None:
        self.fake.fail(call, SiteUnreachable("The reply was lost."), applied=True)

    def break_call(self, call: str) -> None:
        self.fake.fail(call, SiteUnreachable("The connection was lost."))

    def write(self, offset_bytes: int, data: bytes) -> None:
        self.fake.vm(self.on).disks[0].data[offset_bytes : offset_bytes + len(data)] = data

    def foreign_snapshot(self, vm: VmIdentity, name: str, description: str = "") -> None:
        number = len(self.fake.vm(vm).snapshots)
        self.fake.vm(vm).freeze(f"snapshot-foreign-{number}", name, description)

    def rule(self, key: str, holds: bool) -> None:
        check_rule(self.name, key, holds)


def double() -> DoubleBackend:
    """A fresh double with the two VMs."""
    fake = FakeSite("one")
    fake.inventory["datastore"].add("second")
    off = fake.add_vm("off", [bytearray(MIB), bytearray(MIB)])
    on = fake.add_vm("on", [bytearray(MIB), bytearray(MIB)], PowerState.ON)
    fake.add_vm("twin")
    fake.add_vm("twin")
    return DoubleBackend(fake, off, on, placement=Placement(datastore="ds-one"))


def check_rule(backend: str, key: str, holds: bool) -> None:
    reason = DIFFERENCES.get((backend, key))
    if reason is None:
        assert holds, f"{backend}: {key}"
    else:
        assert not holds, f"{backend}: {key} holds by now; remove it from differences.py: {reason}"
