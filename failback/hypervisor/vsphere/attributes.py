"""Custom attributes of VMs: where marks live.

A host without vCenter has no custom attributes; there a mark is an option in the VM's own file.
"""

from __future__ import annotations

from failback.contracts.vm import VmIdentity
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import Ref, vim, vmodl
from failback.hypervisor.vsphere.inventory import read_proven, read_proven_beside, vm_ref
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.properties import Read, read_object
from failback.hypervisor.vsphere.session import ReplyLost, Session
from failback.hypervisor.vsphere.tasks import Tasks


def get_attribute(session: Session, vm: VmIdentity, name: str, beat: Beat | None = None) -> str:
    """Value of the attribute; empty when it is unset or undefined."""
    manager = session.login(beat).content.customFieldsManager
    if manager is None:
        return get_option(session, vm, name, beat)
    return _look(session, vm, name, manager, beat)[0]


def set_attribute(session: Session, vm: VmIdentity, name: str, value: str, beat: Beat) -> None:
    """Set the attribute, defining it first when missing.

    Idempotent because the value is read first and setting it again gives the same value.
    """
    manager = session.login(beat).content.customFieldsManager
    if manager is None:
        set_option(Tasks(session), vm, name, value, beat)
        return
    found, key = _look(session, vm, name, manager, beat)
    if found == value:
        return
    try:
        if key is None:  # 0 is a key
            key = _define(session, manager, name, beat)
        session.mutate(manager, "SetField", vm_ref(vm), key, value, beat=beat)
    except ReplyLost:
        if _look(session, vm, name, manager, beat)[0] != value:
            raise
    except vmodl.MethodFault as fault:
        raise faults.typed(fault, session.site, f"set attribute {name} of {vm}") from fault


def _look(
    session: Session, vm: VmIdentity, name: str, manager: Ref, beat: Beat | None
) -> tuple[str, int | None]:
    """Value of the attribute on the VM, and its key at the site; None where it is not defined."""
    entry, fields = read_proven_beside(session, vm, ("customValue",), {manager: ("field",)}, beat)
    key = _key_of(fields, name)
    values = {value.key: str(value.value or "") for value in entry.get("customValue") or ()}
    return (values.get(key, "") if key is not None else ""), key


def get_option(session: Session, vm: VmIdentity, name: str, beat: Beat | None) -> str:
    """Value of an option in the VM's own file; empty when there is none."""
    options = read_proven(session, vm, ("config.extraConfig",), beat).get("config.extraConfig")
    return next((str(option.value) for option in options or () if option.key == name), "")


def set_option(tasks: Tasks, vm: VmIdentity, name: str, value: str, beat: Beat) -> bool:
    """Set an option in the VM's own file; returns whether a change was needed.

    Idempotent because the value is read first.
    """
    # An empty value removes the option.
    spec = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key=name, value=value)])
    job = Job(
        Operation.RECONFIGURE,
        f"set {name} in the file of",
        lambda: (vm_ref(vm), "ReconfigVM_Task", (spec,)),
        lambda: get_option(tasks.session, vm, name, beat) == value,
    )
    return tasks.make_true(vm, job, beat)


def _define(session: Session, manager: Ref, name: str, beat: Beat) -> int:
    try:
        made = session.mutate(
            manager, "AddCustomFieldDef", name, vim.VirtualMachine, None, None, beat=beat
        )
        return int(made.key)
    except (ReplyLost, vim.fault.DuplicateName):
        # Either it was ours, or another run defined it first.
        key = _key_of(read_object(session, manager, ("field",), beat), name)
        if key is None:
            raise
        return key


def _key_of(fields: Read, name: str) -> int | None:
    kinds = (None, vim.VirtualMachine)
    return next(
        (
            int(field.key)
            for field in fields.get("field") or ()
            if field.name == name and field.managedObjectType in kinds
        ),
        None,
    )
