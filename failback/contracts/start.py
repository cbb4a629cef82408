"""The start request: the one argument of workflow `Failback`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, StringConstraints

from failback.contracts.base import Contract, Name, ReplicaKey, Text
from failback.contracts.placement import Placement
from failback.contracts.policies import FinalizePolicy, Hook, Limits, Positive, Span, SwitchPolicy
from failback.contracts.words import CarryOver, Destination, GuestTimeoutPolicy, OldSource

Address = Annotated[str, StringConstraints(pattern=r"^(scsi|sata|ide|nvme)\d{1,3}:\d{1,3}$")]
"""Address of a disk, `scsi0:2`."""


class DiskMapping(Contract):
    """A replica disk and the target disk that receives it, by address (`scsi0:2`)."""

    replica: Address
    target: Address


class NewVm(Contract):
    """The VM that destination `new` makes."""

    site: Name = ""
    """Site it is made at; empty: the source VM's."""
    name: Name = ""
    """Its final name; empty: the replica's."""
    placement: Placement = Placement()
    keep_macs: bool = False
    """Give its cards the replica's addresses; right when the old source VM stays off for good."""
    keep_bios_uuid: bool = True


class StartRequest(Contract):
    """Fail the replica back. Only `replica` has no default.

    Errors: an unknown key, a replica not in FAILOVER and every other refusal of preflight end the
    workflow with outcome REFUSED and the findings; nothing is changed.
    """

    replica: ReplicaKey
    destination: Destination = Destination.ORIGINAL
    recovered: Text = ""
    """recovered: the VM that takes the source VM's place, `SITE:NAME_OR_PATH`."""
    new_vm: NewVm = NewVm()
    """new: the VM to make."""
    old_source: OldSource = OldSource.POWER_OFF
    """recovered, new: what to do when the old source VM is there and runs."""
    switch: SwitchPolicy = SwitchPolicy()
    finalize: FinalizePolicy = FinalizePolicy()
    limits: Limits = Limits()
    hooks: tuple[Hook, ...] = Field(default=(), max_length=32)
    approvals: int = Field(default=1, ge=1, le=2)
    """2: switch_over, commit and undo wait for the approval of a second person."""
    approval_expiry: Positive = timedelta(hours=4)
    """A request that nobody approved in this time is void."""
    plan_hash: Name = ""
    """Hash that a plan gave: refuse if the world is another one now."""
    carry_over: tuple[CarryOver, ...] = Field(default=(), max_length=4)
    """What was added to the replica and is to be added to the target too."""
    power_on_target: bool = True
    protect_target: bool = True
    """Snapshot the target before the first write, so that undo can restore it."""
    enable_tracking: bool = True
    """Switch change tracking on at the replica, so that pass 2 reads only what changed."""
    accept_target_overwrite: bool = False
    """Consent to overwrite a target that runs: what it wrote since its last boot is lost."""
    accept_suspended: bool = False
    """Consent to lose the memory of a suspended replica or target."""
    guest_timeout: Span = timedelta(minutes=15)
    on_guest_timeout: GuestTimeoutPolicy = GuestTimeoutPolicy.FORCE
    auto_retry: bool = True
    """Go on by itself when a site that could not be reached is back."""
    grow_target: bool = False
    """Consent to grow target disks that are smaller than the replica's: undo cannot shrink them."""
    verify_whole_disk: bool = False
    leave_behind: tuple[Text, ...] = Field(default=(), max_length=64)
    """Addresses (`scsi0:2`) of replica disks without partner whose data stays on DR."""
    disk_map: tuple[DiskMapping, ...] = Field(default=(), max_length=64)
    """Pairs of disks that do not sit at the same address."""
    accept_pair: tuple[Text, ...] = Field(default=(), max_length=64)
    """Addresses of replica disks whose partner may carry another partition table's name."""
    expected_change_percent: int = Field(default=20, ge=0, le=100)
    """Share of each disk that is expected to differ, for the question whether there is room."""
    by: Text = ""
    reason: Text = ""
