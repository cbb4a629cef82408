"""Power: off by shutdown or by force, on after proof that no other copy runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from activities.attest import NOBODY_KNOWS, power_of, require_attested, told
from activities.disks import Disks
from activities.edge import Attempt, now
from activities.guests import note_request, until_off
from failback.catalog.repository import Catalog
from failback.contracts.operations import (
    PowerOff,
    PowerOffResult,
    PowerOn,
    PowerOnResult,
)
from failback.contracts.vm import VmView
from failback.contracts.words import GuestTimeoutPolicy, PowerOffWay, PowerState
from failback.errors import (
    ConsentMissing,
    GuestShutdownTimeout,
    ReplicaUsed,
    SplitBrain,
)
from failback.hypervisor.ports import Site, Sites

RUNNING = (PowerState.ON, PowerState.SUSPENDED)
HOST_AWAY = ("HostCommunication", "HostNotConnected", "HostNotReachable")
"""Faults of a vCenter that answers for a host which does not: what it says of a VM there is old."""


@dataclass(frozen=True)
class PowerActivities:
    """Power operations; `sleep` and the clock are injected for tests."""

    sites: Sites
    catalog: Catalog
    disks: Disks
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], datetime] = now

    def power_off(self, argument: PowerOff, attempt: Attempt) -> PowerOffResult:
        """Bring the VM to off.

        Idempotent because off is a state: an attempt that finds it reached reports it, and the wait
        for the guest counts from the first attempt's record, not from this one.
        """
        site, vm, was = self.sites.site(argument.vm.site), argument.vm, PowerState.UNKNOWN
        try:
            view = told(site.read([vm])[0])
            was = view.power
            return self._bring_off(argument, attempt, site, view)
        except NOBODY_KNOWS as error:
            require_attested(error, vm, argument.attest_off)
            if was in RUNNING and error.evidence.get("fault") not in HOST_AWAY:
                raise SplitBrain(
                    f"{vm} was {was} although a person declared it to be off, and is out of reach "
                    f"now: {error.what}",
                    "Bring its site back and send retry, or see that it is off and send retry "
                    f"with attest_off {vm.ref!r}.",
                    runs=vm.ref,
                ) from error
            # Service comes back first; what the site says when it answers is checked later.
            return PowerOffResult(
                was=PowerState.UNKNOWN,
                way=PowerOffWay.ATTESTED,
                at=now(),
                evidence=f"{vm} cannot be asked or reached; a person declared it to be off",
            )

    def _bring_off(
        self, argument: PowerOff, attempt: Attempt, site: Site, view: VmView
    ) -> PowerOffResult:
        was = view.power
        if was is PowerState.OFF:
            return _off(site, argument, was, PowerOffWay.ALREADY_OFF, "was off already")
        if argument.only_look:
            raise ConsentMissing(
                f"{argument.vm} is {was}, and this run was started so that it is not powered off.",
                "Power it off and send retry, or send undo.",
            )
        if was is PowerState.SUSPENDED and not argument.accept_suspended:
            raise ConsentMissing(
                f"{argument.vm} is suspended: powering it off loses its memory.",
                "Resume it and shut it down, or start again with accept_suspended.",
            )
        if argument.hard or was is PowerState.SUSPENDED or not view.tools_running:
            site.power_off(argument.vm, attempt.beat)
            return _off(site, argument, was, PowerOffWay.HARD, "was powered off hard")
        return self._shut_down(argument, attempt, site, view)

    def _shut_down(
        self, argument: PowerOff, attempt: Attempt, site: Site, view: VmView
    ) -> PowerOffResult:
        vm = argument.vm
        first = note_request(self.catalog, argument, view, attempt, self.clock())
        deadline = first + argument.guest_timeout
        on = PowerState.ON
        if not site.shut_down_guest(vm, attempt.beat):
            site.power_off(vm, attempt.beat)
            return _off(site, argument, on, PowerOffWay.HARD, "has no tools: powered off hard")
        if until_off(site, vm, deadline, attempt.beat, self.sleep, self.clock):
            took = f"shut down in {(self.clock() - first).total_seconds():.1f} s"
            return _off(site, argument, on, PowerOffWay.GUEST_SHUTDOWN, took)
        late = f"did not shut down within {argument.guest_timeout}"
        if argument.on_guest_timeout is not GuestTimeoutPolicy.FORCE:
            raise GuestShutdownTimeout(
                f"The guest of {vm} {late}.", "Shut it down by hand and send retry, or send undo."
            )
        site.power_off(vm, attempt.beat)
        return _off(site, argument, on, PowerOffWay.HARD, f"{late}: powered off hard")

    def power_on(self, argument: PowerOn, attempt: Attempt) -> PowerOnResult:
        """Power the VM on after the split-brain check (invariant I1).

        Idempotent because on is a state, and the check is repeated by every attempt.
        """
        for disk in argument.written_disks:
            self.disks.prove_writers_dead(disk, attempt)
        self._prove_off(argument, attempt)
        site = self.sites.site(argument.vm.site)
        used = self._used(argument)
        if power_of(self.sites, argument.vm) is PowerState.ON:
            # Too late to stop: whoever decides must hear of it.
            if used:
                self.catalog.raise_alarm(argument.run.run_id, "REPLICA_USED", used)
            return PowerOnResult(at=now(), evidence=f"{argument.vm} was on already", alarm=used)
        if used:
            raise ReplicaUsed(
                f"{argument.vm} is not powered on. {used}",
                "Send undo with replica_content keep (service goes on there, with all it holds) or "
                "revert (what was written since is lost); retry looks at it again.",
            )
        at = now()
        site.power_on(argument.vm, attempt.beat)
        return PowerOnResult(at=at, evidence=f"{argument.vm} is powered on")

    def _prove_off(self, argument: PowerOn, attempt: Attempt) -> None:
        for other in argument.must_be_off:
            attempt.beat()
            try:
                power = power_of(self.sites, other)
            except NOBODY_KNOWS as error:
                why = (
                    f"{argument.vm} is not powered on because the power state of {other} cannot be "
                    "read: "
                )
                require_attested(error, other, argument.attest_off, why)
                continue
            if power is not PowerState.OFF:
                raise SplitBrain(
                    f"{argument.vm} is not powered on because {other} is {power}: two copies of "
                    "one machine would run.",
                    f"Power {other.name} off and send retry, or send undo.",
                    runs=other.ref,
                )

    def _used(self, argument: PowerOn) -> str:
        """Why the VM that this one is a copy of may hold more by now, as a sentence; empty: it
        does not. The power state says nothing of a VM that ran and is off again."""
        before = argument.unused
        if before is None:
            return ""
        try:
            mark = self.sites.site(before.vm.site).power_mark(before.vm)
        except NOBODY_KNOWS as error:
            require_attested(error, before.vm, argument.attest_off)
            return ""
        if mark == before.power_mark:
            return ""
        since = f"{before.vm} was powered on after its failback protective snapshot was made"
        if mark is None:
            return f"Nobody can say whether {since}: its power-on events cannot be read any more."
        return f"{since}, so it may hold what {argument.vm} does not."


def _off(
    site: Site, argument: PowerOff, was: PowerState, way: PowerOffWay, what: str
) -> PowerOffResult:
    return PowerOffResult(
        was=was,
        way=way,
        at=now(),
        power_mark=site.power_mark(argument.vm),
        evidence=f"{argument.vm} {what}",
    )
