"""Renaming, unregistering and destroying VMs: the last two only those that carry our mark, which is
taken from a VM that stays."""

from __future__ import annotations

from failback.contracts.vm import VmIdentity
from failback.errors import NameTaken, OperationFailed, VmChanged, VmNotFound
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import moref, vmodl
from failback.hypervisor.vsphere.attributes import (
    get_attribute,
    get_option,
    set_attribute,
    set_option,
)
from failback.hypervisor.vsphere.configuration import MARK_OPTION
from failback.hypervisor.vsphere.creation import MARK_ATTRIBUTE
from failback.hypervisor.vsphere.inventory import read_proven, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.placement import escaped, folder_named
from failback.hypervisor.vsphere.session import ReplyLost
from failback.hypervisor.vsphere.tasks import Tasks


def unregister_vm(tasks: Tasks, vm: VmIdentity, mark: str, beat: Beat) -> bool:
    """Take the VM out of the inventory; its files stay. False: it was gone.

    Idempotent because a VM that is gone counts as unregistered.
    """
    if not require_ours_and_off(tasks, vm, mark, "unregistered", beat):
        return False
    try:
        tasks.session.mutate(vm_ref(vm), "UnregisterVM", beat=beat)
    except ReplyLost:
        if not _gone_soon(tasks, vm, beat):
            raise
    except vmodl.fault.ManagedObjectNotFound:
        return True  # somebody was quicker, after we had looked
    except vmodl.MethodFault as fault:
        if not _gone(tasks, vm, beat):
            raise faults.typed(fault, tasks.session.site, f"unregister {vm}") from fault
    return True


def destroy_vm(tasks: Tasks, vm: VmIdentity, mark: str, beat: Beat) -> bool:
    """Delete the VM and its files. False: it was gone.

    Idempotent because a VM that is gone counts as destroyed and a running deletion is awaited.
    """
    if not require_ours_and_off(tasks, vm, mark, "deleted", beat):
        return False
    job = Job(
        Operation.DESTROY,
        "delete",
        lambda: (vm_ref(vm), "Destroy_Task", ()),
        lambda: _gone(tasks, vm, beat),
    )
    try:
        tasks.make_true(vm, job, beat)
    except VmNotFound:
        return True  # with the VM goes the list of its tasks
    return True


def clear_mark(tasks: Tasks, vm: VmIdentity, mark: str, beat: Beat) -> bool:
    """Take the mark from the VM, in its file and for people. False: it does not bear this mark.

    Idempotent because both are read first.
    """
    marked = get_option(tasks.session, vm, MARK_OPTION, beat) == mark
    if marked:
        set_option(tasks, vm, MARK_OPTION, "", beat)
    shown = get_attribute(tasks.session, vm, MARK_ATTRIBUTE, beat) == mark
    if shown:
        set_attribute(tasks.session, vm, MARK_ATTRIBUTE, "", beat)
    return marked or shown


def rename_vm(tasks: Tasks, vm: VmIdentity, name: str, folder: str, beat: Beat) -> None:
    """Give the VM another name, and move it to another folder unless that is empty.

    Idempotent because name and folder are read first.
    """
    if folder:
        where = folder_named(tasks.session, folder, vm, beat)
        move = Job(
            Operation.MOVE,
            f"move to folder {folder}",
            lambda: (where, "MoveIntoFolder_Task", ([vm_ref(vm)],)),
            lambda: (
                moref(read_proven(tasks.session, vm, ("parent",), beat).get("parent"))
                == moref(where)
            ),
        )
        tasks.make_true(vm, move, beat)
    index = tasks.session.login(beat).content.searchIndex
    parent = read_proven(tasks.session, vm, ("parent",), beat).get("parent")
    bearer = None
    if parent is not None:  # the members of a vApp have no folder
        bearer = tasks.session.read(index, "FindChild", parent, escaped(name), beat=beat)
    if bearer is not None and moref(bearer) != vm.moref:
        raise NameTaken(
            f"{vm} cannot be named {name}: {moref(bearer)} in the same folder bears that name.",
            "Rename what is there, or choose another name.",
        )
    job = Job(
        Operation.RENAME,
        "rename",
        lambda: (vm_ref(vm), "Rename_Task", (escaped(name),)),
        lambda: read_proven(tasks.session, vm, ("name",), beat).get("name") == escaped(name),
    )
    tasks.make_true(vm, job, beat)


def require_ours_and_off(tasks: Tasks, vm: VmIdentity, mark: str, done: str, beat: Beat) -> bool:
    """False when the VM is gone; refuses what is not this run's, or runs."""
    try:
        found = read_proven(tasks.session, vm, ("config.extraConfig", "runtime.powerState"), beat)
        options = {o.key: o.value for o in found.get("config.extraConfig") or ()}
        marks = {options.get(MARK_OPTION), get_attribute(tasks.session, vm, MARK_ATTRIBUTE, beat)}
    except VmNotFound:
        return False
    if not mark or mark not in marks:
        raise VmChanged(
            f"{vm} does not carry the mark of this run, so it is not {done}.", "Check who made it."
        )
    if found.get("runtime.powerState") != "poweredOff":
        raise OperationFailed(
            f"{vm} is not {done} while it is on or suspended.", "Power it off first."
        )
    return True


def _gone(tasks: Tasks, vm: VmIdentity, beat: Beat) -> bool:
    try:
        read_proven(tasks.session, vm, ("name",), beat)
    except VmNotFound:
        return True
    return False


def _gone_soon(tasks: Tasks, vm: VmIdentity, beat: Beat) -> bool:
    for elapsed in tasks.polling.turns(beat):
        if _gone(tasks, vm, beat):
            return True
        if elapsed >= tasks.polling.lost_look_s:
            return False
    raise AssertionError("unreachable")
