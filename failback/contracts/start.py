"""The start request: the one argument of workflow `Failback`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, StringConstraints

from failback.contracts.base import Contract, ReplicaKey, Text
from failback.contracts.words import Destination, GuestTimeoutPolicy, SwitchMode

Address = Annotated[str, StringConstraints(pattern=r"^(scsi|sata|ide|nvme)\d{1,3}:\d{1,3}$")]
"""Address of a disk, `scsi0:2`."""


class DiskMapping(Contract):
    """A replica disk and the target disk that receives it, by address (`scsi0:2`)."""

    replica: Address
    target: Address


class StartRequest(Contract):
    """Fail the replica back. Only `replica` has no default.

    Errors: an unknown key, a replica not in FAILOVER and every other refusal of preflight end the
    workflow with outcome REFUSED and the findings; nothing is changed.
    """

    replica: ReplicaKey
    destination: Destination = Destination.ORIGINAL
    switch: SwitchMode = SwitchMode.AUTO
    power_on_target: bool = True
    protect_target: bool = True
    """Snapshot the target before the first write, so that undo can restore it."""
    enable_tracking: bool = True
    """Switch change tracking on at the replica, so that pass 2 reads only what changed."""
    accept_target_overwrite: bool = False
    """Consent to overwrite a target that runs: what it wrote since its last boot is lost."""
    accept_suspended: bool = False
    """Consent to lose the memory of a suspended replica or target."""
    guest_timeout: timedelta = timedelta(minutes=15)
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
