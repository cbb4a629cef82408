"""Network cards: what they are connected to, and changing that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failback.contracts.vm import Nic, VmIdentity
from failback.errors import OperationFailed, PlacementInvalid, VmChanged
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere.api import Ref, moref, vim
from failback.hypervisor.vsphere.devices import NIC_KINDS, device_of, nic_kind, nics_of
from failback.hypervisor.vsphere.inventory import read_proven, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.properties import Read, read_object, read_objects
from failback.hypervisor.vsphere.session import Session
from failback.hypervisor.vsphere.tasks import Tasks


@dataclass(frozen=True)
class Network:
    """A standard network, or a port group of a distributed switch."""

    ref: Ref
    name: str
    portgroup: str = ""
    switch: str = ""

    def backing(self) -> Any:
        """What connects a card to it."""
        kind = vim.vm.device.VirtualEthernetCard
        if self.portgroup:
            port = vim.dvs.PortConnection(portgroupKey=self.portgroup, switchUuid=self.switch)
            return kind.DistributedVirtualPortBackingInfo(port=port)
        return kind.NetworkBackingInfo(deviceName=self.name, network=self.ref)


def read_networks(
    session: Session, networks: Sequence[Ref], beat: Beat | None = None
) -> list[Network]:
    """Name of each network, and how a port group of a distributed switch is addressed.

    Port groups are networks too, and sites differ in which of two fitting property lists counts:
    so each kind is read by itself.
    """
    groups = [n for n in networks if isinstance(n, vim.dvs.DistributedVirtualPortgroup)]
    others = [n for n in networks if not isinstance(n, vim.dvs.DistributedVirtualPortgroup)]
    found = []
    if others:
        for entry in read_objects(session, others, {"Network": ("name",)}, beat=beat):
            found.append(Network(entry.ref, entry.get("name") or moref(entry.ref)))
    if groups:
        kind = "dvs.DistributedVirtualPortgroup"
        paths = {kind: ("name", "key", "config.distributedVirtualSwitch")}
        read = read_objects(session, groups, paths, beat=beat)
        switches = {moref(s): s for e in read if (s := e.get("config.distributedVirtualSwitch"))}
        uuids = {
            moref(entry.ref): str(entry.get("uuid") or "")
            for entry in _switches(session, list(switches.values()), beat)
        }
        for entry in read:
            switch = entry.get("config.distributedVirtualSwitch")
            uuid = uuids.get(moref(switch), "") if switch is not None else ""
            name = entry.get("name") or moref(entry.ref)
            found.append(Network(entry.ref, name, str(entry.get("key") or ""), uuid))
    return found


def _switches(session: Session, switches: Sequence[Ref], beat: Beat | None) -> list[Read]:
    if not switches:
        return []
    return read_objects(session, switches, {"DistributedVirtualSwitch": ("uuid",)}, beat=beat)


def names_of(networks: Iterable[Network]) -> dict[str, str]:
    """Names by moref and by port group key."""
    listed = list(networks)
    return {moref(n.ref): n.name for n in listed} | {n.portgroup: n.name for n in listed}


def set_nics(tasks: Tasks, vm: VmIdentity, nics: Sequence[Nic], beat: Beat) -> None:
    """Give cards, found by key, their network, address and connection.

    Idempotent because cards that are as wanted already are left alone.
    """

    def change() -> tuple[Ref, str, tuple[object, ...]]:
        found, networks, now = _look(tasks.session, vm, beat)
        edits = [
            vim.vm.device.VirtualDeviceSpec(
                operation="edit",
                device=_edited(vm, found.get("config.hardware.device"), networks, nic),
            )
            for nic in nics
            if not any(nic.key == one.key and _same(nic, one) for one in now)
        ]
        return vm_ref(vm), "ReconfigVM_Task", (vim.vm.ConfigSpec(deviceChange=edits),)

    def done() -> bool:
        now = {nic.key: nic for nic in _look(tasks.session, vm, beat)[2]}
        return all(nic.key in now and _same(nic, now[nic.key]) for nic in nics)

    tasks.make_true(vm, Job(Operation.RECONFIGURE, "connect the network of", change, done), beat)


def add_nic(tasks: Tasks, vm: VmIdentity, card: Nic, known: Sequence[int], beat: Beat) -> int:
    """Add a card of this kind and network; returns its key.

    Idempotent because a card of that kind and network that is not `known` is taken for the one
    added, and the change names the version of the VM that it saw.
    """

    def added() -> int | None:
        now = _look(tasks.session, vm, beat)[2]
        keys = [
            nic.key
            for nic in now
            if nic.key not in known and (nic.kind, nic.network) == (card.kind, card.network)
        ]
        return min(keys, default=None)

    def change() -> tuple[Ref, str, tuple[object, ...]]:
        found, networks, _ = _look(tasks.session, vm, beat)
        device = NIC_KINDS[card.kind](
            key=-1,
            backing=_network(vm, networks, card.network).backing(),
            addressType="assigned",
            connectable=vim.vm.device.VirtualDevice.ConnectInfo(
                startConnected=card.connected, allowGuestControl=True
            ),
        )
        add = vim.vm.device.VirtualDeviceSpec(operation="add", device=device)
        version = found.get("config.changeVersion")
        spec = vim.vm.ConfigSpec(deviceChange=[add], changeVersion=version)
        return vm_ref(vm), "ReconfigVM_Task", (spec,)

    job = Job(Operation.RECONFIGURE, "add a network card to", change, lambda: added() is not None)
    tasks.make_true(vm, job, beat)
    key = added()
    assert key is not None
    return key


def _look(
    session: Session, vm: VmIdentity, beat: Beat
) -> tuple[Read, dict[str, Network], tuple[Nic, ...]]:
    """The VM's devices, the networks of its host by name, and its cards."""
    paths = ("config.hardware.device", "config.changeVersion", "runtime.host")
    found = read_proven(session, vm, paths, beat)
    at = found.get("runtime.host")
    if at is None:
        raise OperationFailed(
            f"{vm} is on no host now, so its networks cannot be read.",
            "Bring its host back, then retry.",
        )
    host = read_object(session, at, ("network",), beat)
    here = read_networks(session, host.get("network") or (), beat)
    now = nics_of(found.get("config.hardware.device") or (), names_of(here))
    return found, {n.name: n for n in here}, now


def _network(vm: VmIdentity, networks: Mapping[str, Network], name: str) -> Network:
    if name not in networks:
        raise PlacementInvalid(
            f"The host of {vm} has no network {name}.",
            f"Networks there: {', '.join(sorted(networks)[:8]) or 'none'}.",
        )
    return networks[name]


def _same(wanted: Nic, now: Nic) -> bool:
    mac = wanted.address_type != "manual" or wanted.mac.lower() == now.mac.lower()
    return mac and (wanted.network, wanted.connected) == (now.network, now.connected)


def _edited(vm: VmIdentity, devices: Any, networks: Mapping[str, Network], nic: Nic) -> Any:
    device = device_of(devices or (), nic.key)
    if device is None or nic_kind(device) not in NIC_KINDS:
        raise VmChanged(f"{vm} has no network card {nic.key} any more.", "Plan the failback anew.")
    device.backing = _network(vm, networks, nic.network).backing()
    if nic.address_type == "manual":
        device.addressType, device.macAddress = "manual", nic.mac
    if device.connectable is None:
        device.connectable = vim.vm.device.VirtualDevice.ConnectInfo(allowGuestControl=True)
    device.connectable.startConnected = nic.connected
    return device
