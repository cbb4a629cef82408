"""Power: on, off, guest shutdown, and the mark of the newest power-on."""

from __future__ import annotations

import logging

from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState
from failback.errors import OperationFailed, OperationUnsupported
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults, questions
from failback.hypervisor.vsphere.api import vim, vmodl
from failback.hypervisor.vsphere.inventory import read_proven, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.session import ReplyLost
from failback.hypervisor.vsphere.tasks import Tasks
from failback.hypervisor.vsphere.views import aware, power_state

log = logging.getLogger(__name__)

_POWERED_ON = ("VmPoweredOnEvent", "DrsVmPoweredOnEvent")
"""DRS reports its own class; a filter by the base class alone misses it."""


def power_of(tasks: Tasks, vm: VmIdentity, beat: Beat | None) -> PowerState:
    """Power state now."""
    found = read_proven(tasks.session, vm, ("runtime.powerState",), beat)
    return power_state(found.get("runtime.powerState"))


def power_off(tasks: Tasks, vm: VmIdentity, beat: Beat) -> None:
    """Hard power off.

    Idempotent because a VM that is off is left alone and a running power-off is waited for.
    """
    job = Job(
        Operation.POWER_OFF,
        "power off",
        lambda: (vm_ref(vm), "PowerOffVM_Task", ()),
        lambda: power_of(tasks, vm, beat) is PowerState.OFF,
    )
    tasks.make_true(vm, job, beat)


def power_on(tasks: Tasks, vm: VmIdentity, beat: Beat) -> None:
    """Power on and wait for the state: with DRS the task may end before the VM runs.

    The question whether it was moved or copied is answered by itself (moved: it stays the machine
    it was); any other ends with OperationFailed, which names message, text and choices.
    Idempotent because a VM that is on is left alone and a running power-on is waited for.
    """
    job = Job(
        Operation.POWER_ON,
        "power on",
        lambda: (vm_ref(vm), "PowerOnVM_Task", (None,)),
        lambda: power_of(tasks, vm, beat) is PowerState.ON,
        answers=questions.MOVED,
    )
    tasks.make_true(vm, job, beat)


def shut_down_guest(tasks: Tasks, vm: VmIdentity, beat: Beat) -> bool:
    """Ask the guest to shut down; False when it cannot be asked.

    Idempotent because a guest that is off or shutting down ignores a second request.
    """
    session = tasks.session
    state = read_proven(session, vm, ("runtime.powerState", "guest.toolsRunningStatus"), beat)
    if power_state(state.get("runtime.powerState")) is not PowerState.ON:
        return False
    # Some sites shut down without tools as well; ours is a clean shutdown or none.
    if state.get("guest.toolsRunningStatus") != "guestToolsRunning":
        return False
    try:
        session.mutate(vm_ref(vm), "ShutdownGuest", beat=beat)
    except ReplyLost:
        if power_of(tasks, vm, beat) is PowerState.OFF:
            return True
        raise
    except vim.fault.ToolsUnavailable:
        return False
    except vmodl.MethodFault as fault:
        if power_of(tasks, vm, beat) is PowerState.OFF:
            return True
        error = faults.typed(fault, session.site, f"shut down the guest of {vm}")
        if not isinstance(error, (OperationFailed, OperationUnsupported)):
            raise error from fault
        # A guest that cannot be asked is no dead end: the power-off policy decides.
        log.warning(
            "guest shutdown refused",
            extra={"site": vm.site, "vm": vm.moref, "fault": faults.fault_name(fault)},
        )
        return False
    return True


def power_mark(tasks: Tasks, vm: VmIdentity) -> str | None:
    """`event:<key of the newest power-on> boot:<time>`; None when the events cannot be read."""
    session = tasks.session
    state = read_proven(session, vm, ("runtime.bootTime",), None)
    newest = vim.event.EventFilterSpec(
        entity=vim.event.EventFilterSpec.ByEntity(
            entity=vm_ref(vm), recursion=vim.event.EventFilterSpec.RecursionOption.self
        ),
        eventTypeId=[*_POWERED_ON, *(f"vim.event.{name}" for name in _POWERED_ON)],
    )
    try:
        events = session.read(session.login().content.eventManager, "QueryEvents", newest)
    except vmodl.MethodFault as fault:
        log.warning(
            "events cannot be read",
            extra={"site": vm.site, "vm": vm.moref, "fault": faults.fault_name(fault)},
        )
        return None
    key = max((int(event.key) for event in events or ()), default=0)
    booted = aware(state.get("runtime.bootTime"))
    return f"event:{key} boot:{booted.isoformat() if booted is not None else '-'}"
