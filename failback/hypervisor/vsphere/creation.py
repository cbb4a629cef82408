"""Making VMs: created or registered once, found again by the mark they carry from the start.

A VM that does not exist yet has no state to read and no list of tasks. What stands in for both is
the folder: at most one child has the wanted name, and its advanced settings tell which run made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from failback.contracts.placement import Placement
from failback.contracts.shell import VmShell
from failback.contracts.vm import VmIdentity
from failback.errors import FailbackError, NameTaken, PlacementInvalid, SiteBusy, VmChanged
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import Ref, moref, vim, vmodl
from failback.hypervisor.vsphere.attributes import get_attribute, set_attribute
from failback.hypervisor.vsphere.configuration import MARK_OPTION, instance_uuid, specification
from failback.hypervisor.vsphere.jobs import Operation
from failback.hypervisor.vsphere.placement import escaped, resolve
from failback.hypervisor.vsphere.properties import Read, read_object
from failback.hypervisor.vsphere.session import ReplyLost
from failback.hypervisor.vsphere.tasks import ROUNDS, Tasks
from failback.hypervisor.vsphere.views import IDENTITY_PATHS, identity_of

MARK_ATTRIBUTE = "failback.job"
"""Custom attribute with the run that made the VM, for people; programs look at MARK_OPTION too."""

Look = Callable[[], VmIdentity | None]


def create_vm(tasks: Tasks, shell: VmShell, mark: str, beat: Beat) -> VmIdentity:
    """Make the VM with empty disks, off; returns it.

    Idempotent because the specification itself carries the mark: a VM of this name, or of the
    instance UUID that follows from mark and name, is returned if it bears the mark.
    """
    place = resolve(tasks.session, shell.placement, beat)
    spec = specification(shell, place, mark)

    def look() -> VmIdentity | None:
        return _by_uuid(tasks, shell, mark, beat) or _by_name(
            tasks, place.folder, shell.name, mark, beat
        )

    made = _make(
        tasks,
        place.folder,
        Operation.CREATE_VM,
        f"create VM {shell.name}",
        ("CreateVM_Task", (spec, place.pool, place.host)),
        look,
        beat,
    )
    set_attribute(tasks.session, made, MARK_ATTRIBUTE, mark, beat)
    return made


def find_made(tasks: Tasks, shell: VmShell, mark: str, beat: Beat) -> VmIdentity | None:
    """The VM that an attempt of `create_vm` made, after its tasks have ended; None."""
    try:
        folder = resolve(tasks.session, shell.placement, beat).folder
    except PlacementInvalid:
        # The place has gone since: nothing more can be made there, but a VM may have moved away.
        return _by_uuid(tasks, shell, mark, beat)

    def look() -> VmIdentity | None:
        found = _by_uuid(tasks, shell, mark, beat)
        try:
            return found or _by_name(tasks, folder, shell.name, mark, beat)
        except NameTaken:
            return None

    # A request that was sent may not have become a task yet.
    return look() or _trace(tasks, folder, Operation.CREATE_VM, look, beat)


def register_vm(
    tasks: Tasks, path: str, name: str, placement: Placement, mark: str, beat: Beat
) -> VmIdentity:
    """Register the VM of a configuration file, `[datastore] folder/name.vmx`; returns it.

    Idempotent because a VM registered from this very file counts, unless another run's mark is
    on it.
    """
    place = resolve(tasks.session, placement, beat)
    center = _datacenter_of(tasks, place.folder, beat)

    def look() -> VmIdentity | None:
        index = tasks.session.login(beat).content.searchIndex
        found = tasks.session.read(index, "FindByDatastorePath", center, path, beat=beat)
        entry = _entry(tasks, found, beat)
        if entry is None:
            return None
        identity = identity_of(tasks.session, entry)
        marked = _mark_of(entry) or get_attribute(tasks.session, identity, MARK_ATTRIBUTE, beat)
        if marked not in ("", mark):
            raise VmChanged(
                f"{identity}, registered from {path}, belongs to run {marked}.",
                "End that run first.",
            )
        return identity

    made = _make(
        tasks,
        place.folder,
        Operation.REGISTER_VM,
        f"register {path}",
        ("RegisterVM_Task", (path, name, False, place.pool, place.host)),
        look,
        beat,
    )
    set_attribute(tasks.session, made, MARK_ATTRIBUTE, mark, beat)
    return made


def _make(
    tasks: Tasks,
    folder: Ref,
    operation: Operation,
    doing: str,
    call: tuple[str, tuple[Any, ...]],
    look: Look,
    beat: Beat,
) -> VmIdentity:
    refused: FailbackError | None = None
    with tasks.alone(f"{moref(folder)}: {doing}", operation, beat):
        for _ in range(ROUNDS):
            # An earlier attempt's task may still be running: its VM is not in the folder yet.
            for task in tasks.open_on_folder(folder, operation, beat):
                tasks.wait_alone(task, beat)
            if (found := look()) is not None:
                return found
            try:
                task = tasks.session.mutate(folder, call[0], *call[1], beat=beat)
                fault = tasks.wait_alone(task, beat).fault
            except ReplyLost as lost:
                if (found := _trace(tasks, folder, operation, look, beat)) is None:
                    raise lost
                return found
            except vmodl.MethodFault as raised:
                fault = raised
            if fault is None:
                refused = None
                break
            refused = faults.typed(fault, tasks.session.site, doing)
            if faults.meaning(fault).then is faults.Then.RAISE:
                raise refused
    if (found := look()) is not None:
        return found
    raise refused or SiteBusy(
        f"Site {tasks.session.site} reported success to {doing}, but there is no such VM.",
        "It is looked up and tried again.",
    )


def _trace(
    tasks: Tasks, folder: Ref, operation: Operation, look: Look, beat: Beat
) -> VmIdentity | None:
    """After a lost reply: the VM, once it is there; None when nothing was begun."""
    for elapsed in tasks.polling.turns(beat):
        for task in tasks.open_on_folder(folder, operation, beat):
            tasks.wait_alone(task, beat)
        if (found := look()) is not None:
            return found
        if elapsed >= tasks.polling.lost_look_s:
            return None
    raise AssertionError("unreachable")


def _by_uuid(tasks: Tasks, shell: VmShell, mark: str, beat: Beat) -> VmIdentity | None:
    """Ours under another name or in another folder: somebody has moved it meanwhile."""
    index = tasks.session.login(beat).content.searchIndex
    uuid = instance_uuid(shell, mark)
    # Unique within a vCenter, so one answer is all there is.
    found = tasks.session.read(index, "FindByUuid", None, uuid, True, True, beat=beat)
    entry = _entry(tasks, found, beat)
    if entry is not None and _mark_of(entry) == mark:
        return identity_of(tasks.session, entry)
    return None


def _by_name(tasks: Tasks, folder: Ref, name: str, mark: str, beat: Beat) -> VmIdentity | None:
    index = tasks.session.login(beat).content.searchIndex
    child = tasks.session.read(index, "FindChild", folder, escaped(name), beat=beat)
    if child is None:
        return None
    entry = _entry(tasks, child, beat) if isinstance(child, vim.VirtualMachine) else None
    if entry is None or _mark_of(entry) != mark:
        raise NameTaken(
            f"The folder on site {tasks.session.site} has another object named {name} already "
            f"({moref(child)}).",
            "Choose another name or folder, or rename what is there.",
        )
    return identity_of(tasks.session, entry)


def _entry(tasks: Tasks, vm: Ref | None, beat: Beat) -> Read | None:
    if vm is None:
        return None
    try:
        return read_object(tasks.session, vm, (*IDENTITY_PATHS, "config.extraConfig"), beat)
    except vmodl.fault.ManagedObjectNotFound:
        return None  # gone between search and look


def _mark_of(entry: Read) -> str:
    options = {o.key: o.value for o in entry.get("config.extraConfig") or ()}
    return str(options.get(MARK_OPTION) or "")


def _datacenter_of(tasks: Tasks, folder: Ref, beat: Beat) -> Ref:
    at = folder
    while not isinstance(at, vim.Datacenter):
        at = read_object(tasks.session, at, ("parent",), beat).get("parent")
    return at
