"""Every error the product raises on purpose.

FailbackError
 |- SettingsInvalid            the settings file is wrong
 |- RunRefused                 preflight found a reason not to start
 |- SiteError
 |   |- SiteUnreachable        no answer from a vCenter or host             (retryable)
 |   |   `- VmDisconnected     no answer from the host or storage of a VM   (retryable)
 |   |- SiteBusy               the object is in use by another task         (retryable)
 |   |- CertificateUntrusted   the TLS certificate is not the trusted one
 |   |- LoginRefused           user name or password not accepted
 |   |- PrivilegeMissing       the account may not do this
 |   |- OperationUnsupported   the site does not offer this operation
 |   |- OperationFailed        the site tried and failed
 |   `- PlacementInvalid       a placement names what the site does not have
 |- VmError
 |   |- VmNotFound, VmAmbiguous, VmChanged
 |   |   `- ReplicaGrown       disks of the replica have grown since the plan
 |   |- NameTaken              another VM bears the wanted name
 |   |- SnapshotMissing, SnapshotAmbiguous
 |   |- TrackingUnusable       changed areas cannot be read or trusted
 |   |- GuestShutdownTimeout   the guest did not shut down in time
 |   |- ConsentMissing         the operation loses data and nobody agreed
 |   |- SplitBrain             another copy of the VM runs, or may run
 |   |- ReplicaUsed            the replica ran after its protective snapshot
 |   |- TargetNotRestorable    what undo needs to restore the target is gone
 |   `- TargetNotOurs          a VM that the run made holds what it did not make
 |- CatalogError
 |   |- CatalogUnavailable     locked, full or not to be reached            (retryable)
 |   |- ReplicaUnknown, StateConflict, ClaimHeld
 |- DiskError
 |   |- DiskUnavailable        the exporter or its connection failed        (retryable)
 |   |   `- DiskMoved          the file is not where it was                 (retryable)
 |   |- DiskReadFailed, DiskWriteFailed, DiskFlushFailed                    (retryable)
 |   |- DiskFull, DiskReadOnly, DiskSizeMismatch, DiskHasParent
 |   |- NoRoomSoon             a datastore has less free room than the reserve
 |   |- DiskMismatch           partition tables of a pair name different disks
 |   |- ExporterAlive          an earlier writer is not proven dead         (retryable)
 |   |- TransferStalled        no progress for too long                     (retryable)
 |   `- VerifyMismatch         both sides differ after a full comparison
 |- LeaseLost                  a newer attempt has taken over; this one must stop   (retryable)
 `- Stopped                    cancelled, paused or shutting down, at a checkpoint  (retryable)
     `- WindowClosed           outside the hours in which disks may be copied       (retryable)

A class name is the stable type name that crosses the wire (`ApplicationError.type`), so it is never
renamed. The message is one sentence that says what happened and to which object, then the remedy.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class Audience(StrEnum):
    """Who can do something about it."""

    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"
    DEVELOPER = "developer"


class FailbackError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what happened, to which object; a sentence.
        remedy: what to do about it; a sentence, may be empty.
        evidence: small facts for people and programs (ids, offsets in bytes); no secrets.
    """

    retryable: bool = False
    unreachable: bool = False
    """True where waiting may cure it by itself: a person need not be asked first."""
    audience: Audience = Audience.OPERATOR

    def __init__(self, what: str, remedy: str = "", **evidence: str | int | None) -> None:
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy
        self.evidence: dict[str, str | int | None] = evidence

    @property
    def type(self) -> str:
        """The stable name of this error on the wire."""
        return self.__class__.__name__


class SettingsInvalid(FailbackError):
    """The settings file is missing, unreadable or wrong."""

    audience = Audience.ADMINISTRATOR


class RunRefused(FailbackError):
    """Preflight found a reason not to start."""


class SiteError(FailbackError):
    """Something between us and a vCenter or host."""

    audience = Audience.ADMINISTRATOR


class SiteUnreachable(SiteError):
    """No answer: connection refused, reset, timed out, or HTTP 5xx."""

    retryable = True
    unreachable = True


class VmDisconnected(SiteUnreachable):
    """The site answers, but not the VM's host or storage: what it shows of the VM is a memory."""


class SiteBusy(SiteError):
    """The object is locked or another task runs on it."""

    retryable = True


class CertificateUntrusted(SiteError):
    """The certificate shown is not one that the settings trust."""


class LoginRefused(SiteError):
    """User name or password not accepted."""


class PrivilegeMissing(SiteError):
    """The account lacks a privilege; the message names it."""


class OperationUnsupported(SiteError):
    """The site does not offer this operation (MethodNotFound, NotSupported, licence)."""


class OperationFailed(SiteError):
    """The site tried and failed; the fault's name is in the evidence."""


class PlacementInvalid(SiteError):
    """A placement names something that the site does not have, or has more than once."""


class VmError(FailbackError):
    """Something about one virtual machine."""


class VmNotFound(VmError):
    """No such VM in the site's inventory."""


class VmAmbiguous(VmError):
    """More than one VM fits; none is touched."""


class NameTaken(VmError):
    """The folder has another VM of the wanted name; it is left alone."""


class VmChanged(VmError):
    """The VM is not what the plan says: identity, disks, sizes or modes differ."""


class ReplicaGrown(VmChanged):
    """Disks of the replica are larger than when the run began, and nothing else has changed."""


class SnapshotMissing(VmError):
    """A snapshot that a step recorded is gone."""


class SnapshotAmbiguous(VmError):
    """Two snapshots carry the same mark."""


class TrackingUnusable(VmError):
    """Changed areas cannot be read, or cannot be trusted; compare instead."""


class GuestShutdownTimeout(VmError):
    """The guest did not shut down in time and the policy is not to force it."""


class ConsentMissing(VmError):
    """Going on would lose data (suspended memory, a running target) and nobody agreed."""


class SplitBrain(VmError):
    """Another copy of the same machine runs, or its power state cannot be read. Evidence `runs` is
    the reference of a VM that was seen not to be off, whatever a person declared."""


class ReplicaUsed(VmError):
    """The replica ran after its protective snapshot: reverting it would destroy somebody's data."""


class TargetNotRestorable(VmError):
    """What undo needs to restore the target is gone."""


class TargetNotOurs(VmError):
    """A VM that the run made holds something it did not make: it is not deleted."""


class CatalogError(FailbackError):
    """Something about our own records."""


class CatalogUnavailable(CatalogError):
    """The database is locked, full or not to be reached."""

    retryable = True
    unreachable = True
    audience = Audience.ADMINISTRATOR


class ReplicaUnknown(CatalogError):
    """The catalog has no replica of that key."""


class StateConflict(CatalogError):
    """A compare-and-set found another state, or another run's record."""


class ClaimHeld(CatalogError):
    """Another run holds the replica or the target."""


class DiskError(FailbackError):
    """Something about one disk; evidence carries `offset` in bytes where there is one."""

    audience = Audience.ADMINISTRATOR


class DiskUnavailable(DiskError):
    """The exporter did not start, died, or its connection broke."""

    retryable = True


class DiskMoved(DiskUnavailable):
    """The disk's file is not where it was: the VM or its storage moved, or it is gone."""


class DiskReadFailed(DiskError):
    """A read failed."""

    retryable = True


class DiskWriteFailed(DiskError):
    """A write failed."""

    retryable = True


class DiskFlushFailed(DiskError):
    """FLUSH failed: nothing since the last good one counts as written."""

    retryable = True


class DiskFull(DiskError):
    """No room on the datastore."""


class NoRoomSoon(DiskError):
    """A datastore has less free room than the reserve: a person makes room, then sends retry."""


class DiskReadOnly(DiskError):
    """The disk refuses writes."""


class DiskSizeMismatch(DiskError):
    """The disk has another size than the plan says."""


class DiskMismatch(DiskError):
    """Both disks of a pair carry partition tables that name different disks."""


class DiskHasParent(DiskError):
    """The file is one link of a snapshot chain, so its bytes are not the disk's bytes."""


class ExporterAlive(DiskError):
    """An earlier exporter of this disk is not proven dead yet."""

    retryable = True


class TransferStalled(DiskError):
    """No byte moved for too long."""

    retryable = True


class VerifyMismatch(DiskError):
    """Both sides differ even after a comparison of the whole disk."""


class Unexpected(FailbackError):
    """An error that no adapter has named: a defect, here or in something that we rest on."""

    retryable = True
    audience = Audience.DEVELOPER


class VersionMismatch(FailbackError):
    """What the run asks does not fit what this worker knows: another version scheduled it."""

    audience = Audience.ADMINISTRATOR


class LeaseLost(FailbackError):
    """A newer attempt has taken over, or our lease lapsed; this attempt must not touch anything."""

    retryable = True
    audience = Audience.DEVELOPER


class Stopped(FailbackError):
    """Stopped at a checkpoint: cancelled, paused, or the worker is shutting down."""

    retryable = True
    audience = Audience.DEVELOPER


class WindowClosed(Stopped):
    """Outside the hours in which disks may be copied; another attempt asks again later."""

    audience = Audience.OPERATOR
    again_after = timedelta(0)
    """When to ask again."""
