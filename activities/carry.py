"""Adding to the target what was added to the replica, and taking it away again."""

from __future__ import annotations

from dataclasses import dataclass

from activities.edge import Attempt
from failback.contracts.operations import CarryOverHardware, Done
from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import VmChanged
from failback.hypervisor.ports import Site, Sites


@dataclass(frozen=True)
class CarryActivities:
    """Changes of the target's hardware."""

    sites: Sites

    def carry_over(self, argument: CarryOverHardware, attempt: Attempt) -> Done:
        """Give the target more CPUs, memory and network cards, or what it had before.

        Idempotent because CPUs and memory are states that are read first, and a card that the
        target did not have before is taken for this step's own.
        """
        site = self.sites.site(argument.target.site)
        if argument.back:
            return self._back(site, argument, attempt)
        target, carry = argument.target, argument.carry
        _require_off(site, target)
        site.set_hardware(target, carry.cpus, carry.memory_mb, attempt.beat)
        keys = list(carry.nic_keys_before)
        for card in carry.nics:
            keys.append(site.add_nic(target, card, keys, attempt.beat))
        added = len(keys) - len(carry.nic_keys_before)
        return Done(
            evidence=f"{target} has {carry.cpus} CPUs and {carry.memory_mb} MB, "
            f"{added} network cards added"
        )

    def _back(self, site: Site, argument: CarryOverHardware, attempt: Attempt) -> Done:
        """Network cards bear no mark, so none is removed here: they go with the revert to the
        protective snapshot, without which they are not carried over."""
        target, carry = argument.target, argument.carry
        if argument.reverted_next:
            return Done(evidence="goes with the revert to the target protective snapshot")
        _require_off(site, target)
        site.set_hardware(target, carry.cpus_before, carry.memory_mb_before, attempt.beat)
        return Done(
            evidence=f"{target} has {carry.cpus_before} CPUs and {carry.memory_mb_before} MB again"
        )


def _require_off(site: Site, target: VmIdentity) -> None:
    power = site.read([target])[0].power
    if power is not PowerState.OFF:
        raise VmChanged(
            f"{target} is {power} although it was powered off for this run.",
            "Power it off and send retry, or send undo.",
        )
