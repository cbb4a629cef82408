"""Hardware that is added to a VM, and goes again with a revert."""

from __future__ import annotations

import pytest

from failback.errors import PlacementInvalid
from tests.contract.backends import Backend, Beats

MARK = "run run-1"


def test_a_revert_takes_added_hardware_away(backend: Backend, beats: Beats) -> None:
    site, vm = backend.site, backend.off
    before = site.read([vm])[0]
    (card,) = before.nics
    snapshot = site.create_snapshot(vm, "failback/1/target", MARK, beats)

    assert site.set_hardware(vm, before.cpus + 2, before.memory_mb + 1024, beats) is True
    assert site.set_hardware(vm, before.cpus + 2, before.memory_mb + 1024, beats) is False
    first = site.add_nic(vm, card, [card.key], beats)
    second = site.add_nic(vm, card, [card.key, first], beats)
    after = site.read([vm])[0]
    assert (after.cpus, after.memory_mb) == (before.cpus + 2, before.memory_mb + 1024)
    assert [nic.key for nic in after.nics] == [card.key, first, second]
    assert {(nic.kind, nic.network) for nic in after.nics} == {(card.kind, card.network)}
    assert len({nic.mac for nic in after.nics if nic.mac}) in (2, 3)

    site.revert_to_snapshot(vm, snapshot, MARK, beats)
    back = site.read([vm])[0]
    backend.rule(
        "a revert restores the hardware",
        (back.cpus, back.memory_mb, back.nics) == (before.cpus, before.memory_mb, before.nics),
    )


def test_a_card_needs_a_network_that_is_there(backend: Backend, beats: Beats) -> None:
    (card,) = backend.site.read([backend.off])[0].nics
    elsewhere = card.model_copy(update={"network": "no such"})
    with pytest.raises(PlacementInvalid, match="no such"):
        backend.site.add_nic(backend.off, elsewhere, [card.key], beats)
