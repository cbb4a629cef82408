"""The vSphere sites: the driver behind the port."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import wraps
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from failback.contracts.placement import Placement, PlacementView
from failback.contracts.shell import VmConfiguration, VmShell
from failback.contracts.site import SiteAbout
from failback.contracts.vm import Disk, DiskAddress, Nic, VmIdentity, VmView
from failback.errors import SettingsInvalid
from failback.hypervisor.connection import SiteConnection
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import (
    attributes,
    configuration,
    creation,
    disks,
    faults,
    finding,
    inventory,
    nics,
    nvram,
    placement,
    power,
    questions,
    reconfigure,
    removal,
    snapshots,
    tracking,
)
from failback.hypervisor.vsphere.api import vmodl
from failback.hypervisor.vsphere.session import Session
from failback.hypervisor.vsphere.tasks import Polling, Tasks

P = ParamSpec("P")
R = TypeVar("R")


def _typed(
    method: Callable[Concatenate[VsphereSite, P], R],
) -> Callable[Concatenate[VsphereSite, P], R]:
    """A vSphere fault that no room below has understood leaves the driver as our error."""

    @wraps(method)
    def call(self: VsphereSite, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except vmodl.MethodFault as fault:
            doing = method.__name__.replace("_", " ")
            subject = next((f" {arg}" for arg in args if isinstance(arg, (VmIdentity, str))), "")
            raise faults.typed(fault, self.name, doing + subject) from fault

    return call


class VsphereSite:
    """One vCenter or ESXi host below one inventory root. Thread-safe; logs in at its first call."""

    def __init__(self, connection: SiteConnection, polling: Polling | None = None) -> None:
        self._session = Session(connection)
        self._tasks = Tasks(self._session, polling or Polling())

    @property
    def name(self) -> str:
        return self._session.site

    @_typed
    def about(self) -> SiteAbout:
        about = self._session.login().content.about
        return SiteAbout(
            product=str(about.fullName or about.name)[:255],
            api_version=str(about.apiVersion),
            vcenter=about.apiType != "HostAgent",
            uuid=self._session.vcenter_uuid(),
        )

    @_typed
    def keep_alive(self) -> bool:
        return self._session.keep_alive()

    @_typed
    def ping(self) -> str:
        self._session.read(inventory.service_instance(), "CurrentTime")
        finding.root_of(self._session)
        about = self.about()
        return f"{about.product} (API {about.api_version})"

    @_typed
    def find(self, name_or_path: str) -> VmIdentity:
        return finding.find(self._session, name_or_path)

    @_typed
    def find_again(self, vm: VmIdentity) -> VmIdentity:
        return finding.find_again(self._session, vm)

    @_typed
    def read(self, vms: Sequence[VmIdentity]) -> list[VmView]:
        return inventory.read(self._session, vms)

    @_typed
    def snapshot_disks(self, vm: VmIdentity, snapshot: str) -> tuple[Disk, ...]:
        return snapshots.snapshot_disks(self._tasks, vm, snapshot)

    @_typed
    def power_mark(self, vm: VmIdentity) -> str | None:
        return power.power_mark(self._tasks, vm)

    @_typed
    def missing_privileges(
        self, vms: Sequence[VmIdentity], privileges: Sequence[str]
    ) -> dict[str, tuple[str, ...]]:
        return inventory.missing_privileges(self._session, vms, privileges)

    @_typed
    def refresh_datastores(self, datastores: Sequence[str]) -> None:
        inventory.refresh_datastores(self._session, datastores)

    @_typed
    def shut_down_guest(self, vm: VmIdentity, beat: Beat) -> bool:
        return power.shut_down_guest(self._tasks, vm, beat)

    @_typed
    def power_off(self, vm: VmIdentity, beat: Beat) -> None:
        power.power_off(self._tasks, vm, beat)

    @_typed
    def power_on(self, vm: VmIdentity, beat: Beat) -> None:
        power.power_on(self._tasks, vm, beat)

    @_typed
    def answer_question(self, vm: VmIdentity, message_id: str, choice: str, beat: Beat) -> bool:
        return questions.answer_question(self._session, vm, message_id, choice, beat)

    @_typed
    def create_snapshot(self, vm: VmIdentity, name: str, description: str, beat: Beat) -> str:
        return snapshots.create_snapshot(self._tasks, vm, name, description, beat)

    @_typed
    def revert_to_snapshot(self, vm: VmIdentity, snapshot: str, mark: str, beat: Beat) -> None:
        snapshots.revert_to_snapshot(self._tasks, vm, snapshot, mark, beat)

    @_typed
    def remove_snapshot(self, vm: VmIdentity, name: str, mark: str, beat: Beat) -> bool:
        return snapshots.remove_snapshot(self._tasks, vm, name, mark, beat)

    @_typed
    def set_change_tracking(self, vm: VmIdentity, enabled: bool, beat: Beat) -> bool:
        return reconfigure.set_change_tracking(self._tasks, vm, enabled, beat)

    def changed_areas(
        self, vm: VmIdentity, snapshot: str, disk: Disk, since: str, beat: Beat
    ) -> Iterator[tuple[int, int]]:
        return tracking.changed_areas(self._tasks, vm, snapshot, disk, since, beat)

    @_typed
    def grow_disk(self, vm: VmIdentity, disk_key: int, capacity_bytes: int, beat: Beat) -> None:
        reconfigure.grow_disk(self._tasks, vm, disk_key, capacity_bytes, beat)

    @_typed
    def get_attribute(self, vm: VmIdentity, name: str) -> str:
        return attributes.get_attribute(self._session, vm, name)

    @_typed
    def set_attribute(self, vm: VmIdentity, name: str, value: str, beat: Beat) -> None:
        attributes.set_attribute(self._session, vm, name, value, beat)

    @_typed
    def configuration(self, vm: VmIdentity) -> VmConfiguration:
        return configuration.configuration(self._session, vm)

    @_typed
    def place(self, where: Placement, name: str) -> PlacementView:
        return placement.place(self._session, where, name)

    @_typed
    def find_made(self, shell: VmShell, mark: str, beat: Beat) -> VmIdentity | None:
        return creation.find_made(self._tasks, shell, mark, beat)

    @_typed
    def create_vm(self, shell: VmShell, mark: str, beat: Beat) -> VmIdentity:
        return creation.create_vm(self._tasks, shell, mark, beat)

    @_typed
    def register_vm(
        self, path: str, name: str, where: Placement, mark: str, beat: Beat
    ) -> VmIdentity:
        return creation.register_vm(self._tasks, path, name, where, mark, beat)

    @_typed
    def unregister_vm(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        return removal.unregister_vm(self._tasks, vm, mark, beat)

    @_typed
    def destroy_vm(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        return removal.destroy_vm(self._tasks, vm, mark, beat)

    @_typed
    def clear_mark(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        return removal.clear_mark(self._tasks, vm, mark, beat)

    @_typed
    def rename_vm(self, vm: VmIdentity, name: str, folder: str, beat: Beat) -> None:
        removal.rename_vm(self._tasks, vm, name, folder, beat)

    @_typed
    def set_nics(self, vm: VmIdentity, cards: Sequence[Nic], beat: Beat) -> None:
        nics.set_nics(self._tasks, vm, cards, beat)

    @_typed
    def add_nic(self, vm: VmIdentity, card: Nic, known: Sequence[int], beat: Beat) -> int:
        return nics.add_nic(self._tasks, vm, card, known, beat)

    @_typed
    def set_hardware(self, vm: VmIdentity, cpus: int, memory_mb: int, beat: Beat) -> bool:
        return reconfigure.set_hardware(self._tasks, vm, cpus, memory_mb, beat)

    @_typed
    def add_disk(
        self, vm: VmIdentity, address: DiskAddress, capacity_bytes: int, file: str, beat: Beat
    ) -> int:
        return disks.add_disk(self._tasks, vm, address, capacity_bytes, file, beat)

    @_typed
    def remove_disk(self, vm: VmIdentity, file: str, beat: Beat) -> bool:
        return disks.remove_disk(self._tasks, vm, file, beat)

    @_typed
    def read_nvram(self, vm: VmIdentity) -> bytes:
        return nvram.read_nvram(self._session, vm)

    @_typed
    def write_nvram(self, vm: VmIdentity, data: bytes, mark: str, beat: Beat) -> None:
        nvram.write_nvram(self._tasks, vm, data, mark, beat)

    @_typed
    def settle(self, vm: VmIdentity, timeout: timedelta, beat: Beat) -> str:
        return self._tasks.settle(vm, timeout, beat)

    def close(self) -> None:
        """Log out; the next call logs in again."""
        self._session.close()


class VsphereSites:
    """All sites of the settings, one session each. Use as a context manager, or `close` it."""

    def __init__(
        self, connections: Iterable[SiteConnection], polling: Polling | None = None
    ) -> None:
        self._sites: dict[str, VsphereSite] = {}
        for connection in connections:
            if connection.name in self._sites:
                raise SettingsInvalid(
                    f"Two sites are named {connection.name}.", "Give each site its own name."
                )
            self._sites[connection.name] = VsphereSite(connection, polling)

    def site(self, name: str) -> VsphereSite:
        try:
            return self._sites[name]
        except KeyError:
            raise SettingsInvalid(
                f"The settings have no site {name}.",
                f"Known sites: {', '.join(sorted(self._sites)) or 'none'}.",
            ) from None

    def close(self) -> None:
        """Log out everywhere."""
        for site in self._sites.values():
            site.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
