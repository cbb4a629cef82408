"""The start request: the one argument of workflow `Failback`."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from failback.contracts.base import Contract, ReplicaKey, Text
from failback.contracts.words import Destination, GuestTimeoutPolicy, SwitchMode


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
    by: Text = ""
    reason: Text = ""
