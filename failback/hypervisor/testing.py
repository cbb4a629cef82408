"""An in-memory double of the sites, for tests of whatever stands on the port.

    sites = FakeSites()
    production = sites.add("production")
    vm = production.add_vm("web", disks=[bytearray(1 << 20)], power=PowerState.ON)
    production.fail("power_off", SiteUnreachable("The wire was cut."), applied=True)

It passes the contract tests of the vSphere driver and follows the same rules: a snapshot freezes
the bytes and moves the file name, a hard power-off and a revert reset change tracking.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from failback.contracts.site import SiteAbout
from failback.contracts.vm import Disk, VmIdentity, VmView
from failback.contracts.words import PowerState
from failback.errors import (
    OperationFailed,
    SettingsInvalid,
    SiteBusy,
    TrackingUnusable,
    VmAmbiguous,
    VmChanged,
    VmNotFound,
)
from failback.hypervisor.ports import Beat
from failback.hypervisor.testing_making import Making
from failback.hypervisor.testing_site import check_mark

BLOCK = 64 * 1024


class FakeSite(Making):
    """One site, as the port shows it; how a test steers it is in the base class."""

    def ping(self) -> str:
        with self.call("ping"):
            return "In-memory site 1.0"

    def find(self, name_or_path: str) -> VmIdentity:
        with self.call("find"):
            found = [
                vm.identity
                for vm in self.vms.values()
                if name_or_path in {vm.identity.moref, vm.identity.name, vm.identity.path}
            ]
        if len(found) > 1:
            raise VmAmbiguous(f"{len(found)} VMs are named {name_or_path}.", "Give a moref.")
        if not found:
            raise VmNotFound(f"Site {self.name} has no VM {name_or_path}.", "Check the name.")
        return found[0]

    def keep_alive(self) -> bool:
        with self.call("keep_alive"):
            return True

    def find_again(self, vm: VmIdentity) -> VmIdentity:
        with self.call("find_again"):
            fitting = [
                other.identity
                for other in self.vms.values()
                if (vm.instance_uuid == other.identity.instance_uuid)
                + (vm.bios_uuid == other.identity.bios_uuid)
                + (vm.path == other.identity.path)
                >= 2
            ]
            if len(fitting) > 1:
                raise VmAmbiguous(f"{len(fitting)} VMs may be {vm}.", "Find out which one it is.")
            if not fitting:
                raise VmNotFound(f"{vm} is not in the inventory.", "Register it again.")
            return fitting[0]

    def read(self, vms: Sequence[VmIdentity]) -> list[VmView]:
        with self.call("read"):
            for vm in vms:
                self.vm(vm).looked_at()
            return [self.vm(vm).view() for vm in vms]

    def snapshot_disks(self, vm: VmIdentity, snapshot: str) -> tuple[Disk, ...]:
        with self.call("snapshot_disks"):
            return self.snapshot(self.vm(vm), snapshot).disks

    def power_mark(self, vm: VmIdentity) -> str | None:
        with self.call("power_mark"):
            found = self.vm(vm)
            if not self.tells_power_ons:
                return None
            return f"event:{found.power_ons} boot:{found.booted_at or '-'}"

    def about(self) -> SiteAbout:
        with self.call("about"):
            return SiteAbout(
                product="In-memory site 1.0", api_version=self.api_version, uuid=self.name
            )

    def missing_privileges(
        self, vms: Sequence[VmIdentity], privileges: Sequence[str]
    ) -> dict[str, tuple[str, ...]]:
        with self.call("missing_privileges"):
            return {
                vm.moref: tuple(p for p in privileges if p in self.vm(vm).missing_privileges)
                for vm in vms
            }

    def refresh_datastores(self, datastores: Sequence[str]) -> None:
        with self.call("refresh_datastores"):
            for vm in self.vms.values():
                vm.changes |= vm.after_refresh

    def shut_down_guest(self, vm: VmIdentity, beat: Beat) -> bool:
        """Idempotent because a guest that is off is not asked."""
        with self.call("shut_down_guest"):
            found = self.vm(vm)
            if found.power is not PowerState.ON or not found.tools:
                return False
            beat()
            if not found.ignores_shutdown and found.stopping is None:
                found.stopping = found.shutdown_looks
                found.looked_at()
            return True

    def power_off(self, vm: VmIdentity, beat: Beat) -> None:
        """Idempotent because a VM that is off is left alone."""
        with self.call("power_off"):
            found = self.vm(vm)
            if found.power is not PowerState.OFF:
                beat()
                found.turn(PowerState.OFF, hard=True)

    def power_on(self, vm: VmIdentity, beat: Beat) -> None:
        """Idempotent because a VM that is on is left alone."""
        with self.call("power_on"):
            found = self.vm(vm)
            if found.power is PowerState.ON:
                return
            beat()
            if found.question and found.question != "msg.uuid.altered":
                raise OperationFailed(f"{vm} asks: {found.question}", "Answer it, then retry.")
            found.question = None
            found.turn(PowerState.ON)

    def answer_question(self, vm: VmIdentity, message_id: str, choice: str, beat: Beat) -> bool:
        """Idempotent because a question that was answered is gone."""
        with self.call("answer_question"):
            found = self.vm(vm)
            if found.question is None:
                return False
            if found.question != message_id:
                raise OperationFailed(f"{vm} asks {found.question}.", "Answer that one.")
            beat()
            found.answers.append((message_id, choice))
            found.question = None
            return True

    def create_snapshot(self, vm: VmIdentity, name: str, description: str, beat: Beat) -> str:
        """Idempotent because a snapshot of this name is returned instead of a second one."""
        with self.call("create_snapshot"):
            found = self.vm(vm)
            existing = self.named(found, name)
            if existing is not None:
                return existing.shown.moref
            beat()
            return found.freeze(f"snapshot-{self.next_number()}", name, description)

    def revert_to_snapshot(self, vm: VmIdentity, snapshot: str, mark: str, beat: Beat) -> None:
        """Idempotent because reverting again gives the same content."""
        with self.call("revert_to_snapshot"):
            found = self.vm(vm)
            to = self.snapshot(found, snapshot)
            check_mark(found, to, mark)
            beat()
            found.revert(to)

    def remove_snapshot(self, vm: VmIdentity, name: str, mark: str, beat: Beat) -> bool:
        """Idempotent because a snapshot that is gone counts as removed."""
        with self.call("remove_snapshot"):
            found = self.vm(vm)
            existing = self.named(found, name)
            if existing is None:
                return False
            check_mark(found, existing, mark)
            beat()
            found.remove(existing)
            return True

    def set_change_tracking(self, vm: VmIdentity, enabled: bool, beat: Beat) -> bool:
        """Idempotent because the current setting is read first."""
        with self.call("set_change_tracking"):
            found = self.vm(vm)
            if found.tracking is enabled:
                return False
            beat()
            found.track(enabled, self.next_number())
            return True

    def changed_areas(
        self, vm: VmIdentity, snapshot: str, disk: Disk, since: str, beat: Beat
    ) -> Iterator[tuple[int, int]]:
        with self.call("changed_areas"):
            found = self.vm(vm)
            frozen = self.snapshot(found, snapshot)
            live = next(d for d in found.disks if d.key == disk.key)
            now, before = frozen.contents[disk.key], live.past.get(since)
            same = (disk.change_id or "").rpartition("/")[0] == since.rpartition("/")[0]
        if not disk.change_id or not same or before is None:
            raise TrackingUnusable(f"{vm} has no trusted tracking since {since}.", "Compare.")
        for at in range(0, len(now), BLOCK):
            beat()
            if now[at : at + BLOCK] != before[at : at + BLOCK]:
                yield at, min(BLOCK, len(now) - at)

    def grow_disk(self, vm: VmIdentity, disk_key: int, capacity_bytes: int, beat: Beat) -> None:
        """Idempotent because a disk that is large enough is left alone."""
        with self.call("grow_disk"):
            found = self.vm(vm)
            disk = next((d for d in found.disks if d.key == disk_key), None)
            if disk is None:
                raise VmChanged(f"{vm} has no disk {disk_key} any more.", "Plan anew.")
            if len(disk.data) >= capacity_bytes:
                return
            if found.snapshots:
                raise OperationFailed(f"{vm} has snapshots.", "Remove them first.")
            beat()
            disk.data.extend(bytes(capacity_bytes - len(disk.data)))
            disk.track(reset=True)

    def get_attribute(self, vm: VmIdentity, name: str) -> str:
        with self.call("get_attribute"):
            return self.vm(vm).attributes.get(name, "")

    def set_attribute(self, vm: VmIdentity, name: str, value: str, beat: Beat) -> None:
        """Idempotent because setting it again gives the same value."""
        with self.call("set_attribute"):
            found = self.vm(vm)
            if found.attributes.get(name, "") != value:
                beat()
                found.attributes[name] = value

    def settle(self, vm: VmIdentity, timeout: timedelta, beat: Beat) -> str:
        with self.call("settle"):
            found = self.vm(vm)
        waited, deadline = "", time.monotonic() + timeout.total_seconds()
        while found.open_task:
            waited = found.open_task
            if time.monotonic() >= deadline:
                raise SiteBusy(f"{waited} still runs on {vm}.", "Wait for it, then retry.")
            beat()
            time.sleep(0.01)
        return waited


class FakeSites:
    """All sites of a test."""

    def __init__(self) -> None:
        self._sites: dict[str, FakeSite] = {}

    def add(self, name: str) -> FakeSite:
        """Add an empty site."""
        self._sites[name] = FakeSite(name)
        return self._sites[name]

    def site(self, name: str) -> FakeSite:
        if name not in self._sites:
            raise SettingsInvalid(f"The settings have no site {name}.", "Add it.")
        return self._sites[name]
