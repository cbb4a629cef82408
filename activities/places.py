"""Where a disk is at this moment: the host of its VM, and its file after it moved.

A balancer may move a VM to another host, or a disk to another datastore, between the plan and the
moment a mover opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from failback.contracts.operations import DiskCall
from failback.contracts.vm import DiskOpening, VmView
from failback.errors import DiskMoved, SiteError, VmChanged, VmError
from failback.hypervisor.ports import Sites

T = TypeVar("T")
CHECK_S = 0.25


def host_of(sites: Sites, opening: DiskOpening) -> str:
    """The ESXi host that serves the VM's disks; empty where the site does not tell it.

    Not knowing it is no reason to stop: the disk then counts against a host of no name."""
    try:
        return _view(sites, opening).host or ""
    except (SiteError, VmError):
        return ""


def moved_to(sites: Sites, call: DiskCall, opening: DiskOpening, moved: DiskMoved) -> str:
    """The file of this disk now, after its old one was not found.

    It is the same disk if key, controller address and capacity are the same, in the snapshot if
    one is read. Raises `moved` if the site still says the old name, VmChanged if the disk is gone
    or another, or is a target's: what we wrote is then somewhere that nobody has proven."""
    if opening.snapshot is None:
        disks = _view(sites, opening).disks
    else:
        site = sites.site(opening.site)
        disks = site.snapshot_disks(site.find(opening.vm_moref), opening.snapshot)
    found = next((disk for disk in disks if disk.key == opening.disk_key), None)
    same = (
        found is not None
        and str(found.address) == call.plan.address
        and found.capacity_bytes == opening.capacity_bytes
    )
    if found is None or not same:
        raise VmChanged(
            f"Disk {call.plan.address} of {opening.vm_moref} ({opening.file}) is no longer there"
            " as it was when this was planned.",
            "Send undo and start again.",
        ) from moved
    if found.file == opening.file:
        raise moved
    if opening is call.target and found.file not in call.guard.files:
        raise VmChanged(
            f"TARGET_DRIFTED: disk {call.plan.address} of {call.guard.target} moved from"
            f" {opening.file} to {found.file} during the run.",
            "Send undo and start again; keep storage migration off the target meanwhile.",
        ) from moved
    return found.file


def meanwhile(work: Callable[[], T], check: Callable[[], None]) -> T:
    """The result of `work`, which waits for a site; `check` keeps open what is open."""
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(work)
        while True:
            try:
                return future.result(CHECK_S)
            except TimeoutError:
                if future.done():
                    raise  # it is the work's own
                check()
    finally:
        # A site that does not answer keeps its thread until its own time limit.
        pool.shutdown(wait=False, cancel_futures=True)


def _view(sites: Sites, opening: DiskOpening) -> VmView:
    site = sites.site(opening.site)
    return site.read([site.find(opening.vm_moref)])[0]
