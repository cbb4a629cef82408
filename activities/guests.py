"""Guest shutdowns: no task at a site tells of them, so that what was asked is in the journal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from activities.attest import told
from activities.edge import Attempt
from failback.catalog.repository import Catalog
from failback.contracts.operations import Done, PowerOff, Settle
from failback.contracts.vm import VmIdentity, VmView
from failback.contracts.words import PowerState
from failback.hypervisor.ports import Beat, Site

Sleep = Callable[[float], None]
Clock = Callable[[], datetime]


def note_request(
    catalog: Catalog, argument: PowerOff, view: VmView, attempt: Attempt, at: datetime
) -> datetime:
    """Record that the guest is about to be asked to shut down; when it was so for the first time
    in this scheduling."""
    return catalog.step_intent(
        argument.run.run_id,
        # A row of its own: the step's row tells when all of it is done.
        f"{argument.step.value}/guest",
        f"{argument.vm} {attempt.scheduling}",
        mark=_boot(view),
        at=at,
    )


def until_off(
    site: Site, vm: VmIdentity, deadline: datetime, beat: Beat, sleep: Sleep, clock: Clock
) -> bool:
    """Wait until the VM is off; False when it is not by the deadline."""
    pause = 0.05
    while True:
        beat()
        if told(site.read([vm])[0]).power is PowerState.OFF:
            return True
        if clock() >= deadline:
            return False
        sleep(pause)
        pause = min(pause * 1.5, 2.0)


def settle_guest(
    site: Site,
    catalog: Catalog,
    vm: VmIdentity,
    argument: Settle,
    attempt: Attempt,
    sleep: Sleep,
    clock: Clock,
) -> Done:
    """Wait for a guest that was asked to shut down and may still do so.

    One that is still on at the end of its time may go down at any later moment, when nobody powers
    it on again. So it is powered off hard where the run may do that and powers it on next; else it
    goes on running, and people are told.
    """
    asked = _asked(catalog, argument.run.run_id, told(site.read([vm])[0]))
    if asked is None:
        return Done()
    if until_off(site, vm, asked + argument.guest_timeout, attempt.beat, sleep, clock):
        return Done(evidence=f"the guest of {vm} shut down, as it was asked to")
    late = f"The guest of {vm} was asked to shut down and is not off after {argument.guest_timeout}"
    if vm in argument.may_force:
        site.power_off(vm, attempt.beat)
        return Done(evidence=f"{late}: powered off hard")
    alarm = f"{late}. It may still go down, and nobody will power it on then: look after it."
    catalog.raise_alarm(argument.run.run_id, "GUEST_MAY_STOP", alarm)
    return Done(alarm=alarm)


def _asked(catalog: Catalog, run_id: str, view: VmView) -> datetime | None:
    """When the guest was asked for what may still happen: by a step that has not come to its end,
    and since the VM was started."""
    if view.power is PowerState.OFF:
        return None
    vm, rows = str(view.identity), catalog.steps(run_id)
    unfinished = {
        f"{row.step}/guest" for row in rows if row.object == vm and row.finished_at is None
    }
    return max(
        (
            row.intent_at
            for row in rows
            if row.step in unfinished
            and row.object.startswith(f"{vm} ")
            # Requests of a former version did not note the start.
            and row.mark in ("", _boot(view))
        ),
        default=None,
    )


def _boot(view: VmView) -> str:
    return view.booted_at.isoformat() if view.booted_at is not None else "-"
