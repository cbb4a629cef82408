"""Finding and reading VMs."""

from __future__ import annotations

import pytest

from failback.contracts.words import PowerState
from failback.errors import VmChanged, VmNotFound
from tests.contract.backends import MIB, Backend


def test_ping_says_what_answers(backend: Backend) -> None:
    assert backend.site.ping()


def test_a_vm_is_found_by_name_and_by_moref(backend: Backend) -> None:
    assert backend.site.find("off") == backend.off
    assert backend.site.find(backend.off.moref) == backend.off
    assert backend.off.instance_uuid
    assert backend.off.path.endswith(".vmx")


@pytest.mark.parametrize("unknown", ["nobody", "vm-999999", "/DC0/vm/nobody", "host-1"])
def test_an_unknown_vm_is_not_found(backend: Backend, unknown: str) -> None:
    with pytest.raises(VmNotFound, match=unknown):
        backend.site.find(unknown)


def test_views_come_in_the_order_asked(backend: Backend) -> None:
    views = backend.site.read([backend.on, backend.off, backend.on])
    assert [view.identity for view in views] == [backend.on, backend.off, backend.on]
    assert [view.power for view in views] == [PowerState.ON, PowerState.OFF, PowerState.ON]


def test_a_view_tells_disks_power_and_tools(backend: Backend) -> None:
    on, off = backend.site.read([backend.on, backend.off])
    assert [str(disk.address) for disk in off.disks] == ["scsi0:0", "scsi0:1"]
    assert [disk.capacity_bytes for disk in off.disks] == [MIB, MIB]
    assert all(disk.file.startswith("[") and not disk.refusals for disk in off.disks)
    assert all(disk.parent_file is None for disk in off.disks)
    assert len({disk.key for disk in off.disks}) == 2
    assert off.connection_state == "connected"
    assert off.booted_at is None
    assert off.memory_mb
    assert off.cpus
    assert off.host
    assert not (off.tools_running or off.is_template or off.fault_tolerant or off.in_maintenance)
    backend.rule("tools run in a powered-on VM", on.tools_running)
    backend.rule("a running VM has a boot time", on.booted_at is not None)


def test_nothing_asked_nothing_read(backend: Backend) -> None:
    assert backend.site.read([]) == []


def test_a_vm_that_is_gone_is_named(backend: Backend) -> None:
    gone = backend.off.model_copy(update={"moref": "vm-424242", "name": "gone"})
    with pytest.raises(VmNotFound, match="gone"):
        backend.site.read([backend.on, gone])


def test_a_moref_that_names_another_vm_is_refused(backend: Backend) -> None:
    other = backend.off.model_copy(update={"instance_uuid": "50 another"})
    with pytest.raises(VmChanged, match="another VM"):
        backend.site.read([other])


def test_privileges_we_have_are_not_missing(backend: Backend) -> None:
    wanted = ["VirtualMachine.Interact.PowerOn", "VirtualMachine.State.CreateSnapshot"]
    both = [backend.off, backend.on]
    none: dict[str, tuple[str, ...]] = {vm.moref: () for vm in both}
    assert backend.site.missing_privileges(both, wanted) == none
    assert backend.site.missing_privileges(both, []) == none
