"""Power, and the mark of the newest power-on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from failback.contracts.words import PowerState
from failback.errors import LeaseLost, Stopped
from tests.contract.backends import Backend, Beats


def power(backend: Backend, which: str) -> PowerState:
    return backend.site.read([getattr(backend, which)])[0].power


def test_power_off_twice_is_off(backend: Backend, beats: Beats) -> None:
    backend.site.power_off(backend.on, beats)
    assert power(backend, "on") is PowerState.OFF
    assert beats.count >= 1
    backend.site.power_off(backend.on, beats)
    assert power(backend, "on") is PowerState.OFF


def test_power_on_twice_is_on(backend: Backend, beats: Beats) -> None:
    backend.site.power_on(backend.off, beats)
    backend.site.power_on(backend.off, beats)
    assert power(backend, "off") is PowerState.ON


def test_a_guest_with_tools_shuts_down(backend: Backend, beats: Beats) -> None:
    asked = backend.site.shut_down_guest(backend.on, beats)
    backend.rule("tools run in a powered-on VM", asked)
    if asked:
        backend.site.settle(backend.on, timedelta(seconds=10), beats)
        for _ in range(200):
            if power(backend, "on") is PowerState.OFF:
                break
        backend.site.shut_down_guest(backend.on, beats)


def test_a_vm_that_is_off_is_not_asked_to_shut_down(backend: Backend, beats: Beats) -> None:
    assert backend.site.shut_down_guest(backend.off, beats) is False
    assert beats.count == 0


def test_the_power_mark_moves_with_every_power_on_only(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    before = site.power_mark(vm)
    assert before is not None
    site.create_snapshot(vm, "failback/r/mark", "run r", beats)
    site.remove_snapshot(vm, "failback/r/mark", "run r", beats)
    assert site.power_mark(vm) == before
    site.power_on(vm, beats)
    running = site.power_mark(vm)
    site.power_off(vm, beats)
    after = site.power_mark(vm)
    assert len({before, running}) == 2
    assert after != before
    assert site.power_mark(vm) == after


@pytest.mark.parametrize("error", [LeaseLost("newer attempt"), Stopped("paused")])
def test_nothing_is_sent_without_a_lease(
    backend: Backend, beats: Beats, error: LeaseLost | Stopped
) -> None:
    beats.error = error
    with pytest.raises(type(error)):
        backend.site.power_on(backend.off, beats)
    assert power(backend, "off") is PowerState.OFF


def test_settle_finds_nothing_on_a_quiet_vm(backend: Backend, beats: Beats) -> None:
    assert backend.site.settle(backend.off, timedelta(seconds=10), beats) == ""
