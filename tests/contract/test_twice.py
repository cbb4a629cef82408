"""Every mutation survives a second call, a lost reply, a lost request, eight callers at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest

from failback.contracts.shell import VmShell
from failback.contracts.vm import DiskAddress, VmIdentity
from failback.contracts.words import PowerState
from failback.errors import SiteUnreachable, VmAmbiguous, VmNotFound
from tests.contract.backends import MIB, Backend, Beats

NAME, MARK = "failback/run-1/x", "run-1"


@dataclass(frozen=True)
class Case:
    """One mutation: how to prepare it, do it, and see that it is done exactly once."""

    call: str
    act: Callable[[Backend, Beats], object]
    done: Callable[[Backend], bool]
    prepare: Callable[[Backend, Beats], object] = lambda backend, beats: None

    def __str__(self) -> str:
        return self.call


def _off(backend: Backend) -> PowerState:
    return backend.site.read([backend.off])[0].power


def _on(backend: Backend) -> PowerState:
    return backend.site.read([backend.on])[0].power


def _names(backend: Backend) -> list[str]:
    return [s.name for s in backend.site.read([backend.off])[0].snapshots]


def _create(backend: Backend, beats: Beats) -> str:
    return backend.site.create_snapshot(backend.off, NAME, MARK, beats)


def _revert(backend: Backend, beats: Beats) -> None:
    snapshot = backend.site.read([backend.off])[0].snapshots[0].moref
    backend.site.revert_to_snapshot(backend.off, snapshot, MARK, beats)


def _grow(backend: Backend, beats: Beats) -> None:
    key = backend.site.read([backend.off])[0].disks[0].key
    backend.site.grow_disk(backend.off, key, 2 * MIB, beats)


def _current(backend: Backend) -> bool:
    view = backend.site.read([backend.off])[0]
    return view.current_snapshot == view.snapshots[0].moref


CASES = [
    Case(
        "power_off",
        lambda b, beats: b.site.power_off(b.on, beats),
        lambda b: _on(b) is PowerState.OFF,
    ),
    Case(
        "power_on",
        lambda b, beats: b.site.power_on(b.off, beats),
        lambda b: _off(b) is PowerState.ON,
    ),
    Case("create_snapshot", _create, lambda b: _names(b) == [NAME]),
    Case("revert_to_snapshot", _revert, _current, prepare=_create),
    Case(
        "remove_snapshot",
        lambda b, beats: b.site.remove_snapshot(b.off, NAME, MARK, beats),
        lambda b: _names(b) == [],
        prepare=_create,
    ),
    Case(
        "set_change_tracking",
        lambda b, beats: b.site.set_change_tracking(b.off, True, beats),
        lambda b: b.site.read([b.off])[0].tracking_enabled,
    ),
    Case("grow_disk", _grow, lambda b: b.site.read([b.off])[0].disks[0].capacity_bytes == 2 * MIB),
    Case(
        "set_attribute",
        lambda b, beats: b.site.set_attribute(b.off, "failback.state", "x", beats),
        lambda b: b.site.get_attribute(b.off, "failback.state") == "x",
    ),
]

SHELL = "shell"


def _wanted(backend: Backend) -> VmShell:
    return VmShell(
        name=SHELL,
        configuration=backend.site.configuration(backend.off),
        placement=backend.placement,
    )


def _shell(backend: Backend, beats: Beats) -> VmIdentity:
    return backend.site.create_vm(_wanted(backend), MARK, beats)


def _register(backend: Backend, beats: Beats) -> VmIdentity:
    path = backend.off.path.replace("off", SHELL)
    return backend.site.register_vm(path, SHELL, backend.placement, MARK, beats)


def _unregistered(backend: Backend, beats: Beats) -> None:
    assert backend.site.unregister_vm(_shell(backend, beats), MARK, beats)


def _named(backend: Backend, name: str) -> int:
    """How many VMs bear the name."""
    try:
        backend.site.find(name)
    except VmNotFound:
        return 0
    except VmAmbiguous:
        return 2
    return 1


def _connect(backend: Backend, beats: Beats) -> None:
    nics = backend.site.read([backend.off])[0].nics
    cards = [nic.model_copy(update={"connected": False}) for nic in nics]
    backend.site.set_nics(backend.off, cards, beats)


# Deleting again must not look for the VM first: by then it is gone.
_MADE: dict[int, VmIdentity] = {}


def _remember(backend: Backend, beats: Beats) -> None:
    _MADE[id(backend)] = _shell(backend, beats)


def _unmarked(backend: Backend) -> bool:
    """Neither found nor shown as this run's any more."""
    found = backend.site.find_made(_wanted(backend), MARK, Beats())
    return found is None and not backend.site.get_attribute(_MADE[id(backend)], "failback.job")


CASES += [
    Case("create_vm", _shell, lambda b: _named(b, SHELL) == 1),
    Case("register_vm", _register, lambda b: _named(b, SHELL) == 1, prepare=_unregistered),
    Case(
        "unregister_vm",
        lambda b, beats: b.site.unregister_vm(_MADE[id(b)], MARK, beats),
        lambda b: _named(b, SHELL) == 0,
        prepare=_remember,
    ),
    Case(
        "destroy_vm",
        lambda b, beats: b.site.destroy_vm(_MADE[id(b)], MARK, beats),
        lambda b: _named(b, SHELL) == 0,
        prepare=_remember,
    ),
    Case(
        "clear_mark",
        lambda b, beats: b.site.clear_mark(_MADE[id(b)], MARK, beats),
        _unmarked,
        prepare=_remember,
    ),
    Case(
        "rename_vm",
        lambda b, beats: b.site.rename_vm(b.off, "renamed", "", beats),
        lambda b: _named(b, "renamed") == 1,
    ),
    Case(
        "set_nics",
        _connect,
        lambda b: not any(nic.connected for nic in b.site.read([b.off])[0].nics),
    ),
]


def _add_nic(backend: Backend, beats: Beats) -> int:
    """One more card like the first; what was there before is what the VM had at its making."""
    first = min(backend.site.read([backend.off])[0].nics, key=lambda nic: nic.key)
    return backend.site.add_nic(backend.off, first, [first.key], beats)


def _new_file(backend: Backend) -> str:
    folder = backend.site.read([backend.off])[0].disks[0].file.rpartition("/")[0]
    return f"{folder}/failback-run-1-scsi0-5.vmdk"


def _add_disk(backend: Backend, beats: Beats) -> int:
    address = DiskAddress(controller="scsi", bus=0, unit=5)
    return backend.site.add_disk(backend.off, address, MIB, _new_file(backend), beats)


def _new_files(backend: Backend) -> int:
    disks = backend.site.read([backend.off])[0].disks
    return sum(disk.file == _new_file(backend) for disk in disks)


CASES += [
    Case("add_nic", _add_nic, lambda b: len(b.site.read([b.off])[0].nics) == 2),
    Case("add_disk", _add_disk, lambda b: _new_files(b) == 1),
    Case(
        "remove_disk",
        lambda b, beats: b.site.remove_disk(b.off, _new_file(b), beats),
        lambda b: _new_files(b) == 0,
        prepare=_add_disk,
    ),
    Case(
        "set_hardware",
        lambda b, beats: b.site.set_hardware(b.off, 3, 2048, beats),
        lambda b: [(v.cpus, v.memory_mb) for v in b.site.read([b.off])] == [(3, 2048)],
    ),
]

every_mutation = pytest.mark.parametrize("case", CASES, ids=str)


def again_until_done(case: Case, backend: Backend, beats: Beats) -> int:
    """Repeat as an activity would on a retryable error; returns how many attempts failed."""
    for failed in range(4):
        with suppress(SiteUnreachable):
            case.act(backend, beats)
            return failed
    raise AssertionError(f"{case} never succeeded")


@every_mutation
def test_issued_twice_it_is_done_once(backend: Backend, beats: Beats, case: Case) -> None:
    case.prepare(backend, beats)
    case.act(backend, beats)
    assert case.done(backend)
    case.act(backend, beats)
    assert case.done(backend)


@every_mutation
def test_a_lost_reply_is_looked_up(backend: Backend, beats: Beats, case: Case) -> None:
    case.prepare(backend, beats)
    backend.lose_reply(case.call)
    assert again_until_done(case, backend, beats) <= 1
    assert case.done(backend)


@every_mutation
def test_a_lost_request_is_sent_again_by_the_next_attempt(
    backend: Backend, beats: Beats, case: Case
) -> None:
    case.prepare(backend, beats)
    backend.break_call(case.call)
    assert again_until_done(case, backend, beats) == 1
    assert case.done(backend)


@every_mutation
def test_eight_callers_reach_the_same_end(backend: Backend, beats: Beats, case: Case) -> None:
    case.prepare(backend, beats)
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(case.act, backend, Beats()) for _ in range(8)]:
            future.result()
    assert case.done(backend)
