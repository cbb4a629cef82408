"""What people send to a running failback, and the answers."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from failback.contracts.base import Contract, Name, Text
from failback.contracts.policies import FinalizePolicy, Limits, SwitchPolicy
from failback.contracts.words import Phase, ReplicaContent, RequestKind


class Request(Contract):
    """Body of every request; all fields optional, so that a bare signal works.

    A field that the named request does not use is ignored.
    """

    request_id: Name = ""
    """Makes a repeat harmless: a second request of the same id answers like the first."""
    by: Name = ""
    reason: Text = ""
    power_on_replica: bool | None = None
    """undo: power the replica on; None: if it ran when the run began."""
    replica_content: ReplicaContent | None = None
    """undo: the choice when the replica ran after its protective snapshot."""
    attest_off: tuple[Name, ...] = Field(default=(), max_length=8)
    """undo, retry: VMs that the sender declares to be off while their site or host cannot be asked,
    each by what fits no other VM of the run: name, moref, `site:name` or `site:moref`. It counts
    until a site says otherwise, and at the latest until the decision: a commit wants its own."""
    accept_target_not_restored: bool = False
    """undo: go on although the target cannot get its old content back."""
    rebase_target: bool = False
    """retry: the replica's disks have grown; grow the target's too, and compare everything again.
    Undo cannot shrink them."""
    ignore_budget: bool = False
    """switch_over: switch although the predicted downtime is over the budget."""
    switch: SwitchPolicy | None = None
    """reschedule: the new policy."""
    limits: Limits | None = None
    """adjust: bandwidth and window."""
    finalize: FinalizePolicy | None = None
    """adjust: who decides at the end."""
    of: Name = ""
    """approve: the request id that is approved."""


class Answer(Contract):
    """Answer of an update; also the record kept of every request."""

    kind: RequestKind
    accepted: bool
    message: Text = ""
    phase: Phase | None = None
    at: datetime | None = None
    request_id: Name = ""
    by: Name = ""
    reason: Text = ""
    pending: bool = False
    """Accepted, and waits for the approval of a second person."""
    approved_by: Name = ""
