"""What a vSphere fault, a broken connection or a bad certificate means: the one table."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from enum import Enum
from xml.parsers.expat import ExpatError

from failback.errors import (
    CertificateUntrusted,
    FailbackError,
    LoginRefused,
    OperationFailed,
    OperationUnsupported,
    PrivilegeMissing,
    SiteBusy,
    SiteUnreachable,
    VmNotFound,
)
from failback.hypervisor.vsphere.api import vmodl

TRANSPORT_ERRORS = (OSError, http.client.HTTPException, ExpatError)
"""What a call raises when no whole answer came: socket, TLS and HTTP errors, a cut-off reply."""

NOT_UNDERSTOOD = (AttributeError, KeyError, TypeError, ValueError)
"""What pyVmomi raises for a complete answer that does not fit its type tables."""


class Then(Enum):
    """What a mutation does on a fault before it gives up."""

    RAISE = "raise"
    LOOK = "look at the state: the wanted end may be reached already"
    WAIT = "wait for the task in the way, then look and try again"


@dataclass(frozen=True, slots=True)
class Meaning:
    error: type[FailbackError]
    remedy: str
    then: Then = Then.RAISE


_BUSY = "A run tries again by itself; if it stays so, look for a task or a backup on it."
_LOST = "Check the site's network and services; a run tries again by itself."
_HOST = "Check the host's connection to its vCenter; a run tries again by itself."

MEANINGS: dict[str, Meaning] = {
    # In use for now. Whether it was us, the state tells.
    "TaskInProgress": Meaning(SiteBusy, _BUSY, Then.WAIT),
    "ConcurrentAccess": Meaning(SiteBusy, _BUSY, Then.LOOK),
    "FileLocked": Meaning(SiteBusy, "A disk is still open; it is tried again once released."),
    "ResourceInUse": Meaning(SiteBusy, _BUSY),
    "SnapshotLocked": Meaning(SiteBusy, _BUSY),
    "MethodDisabled": Meaning(SiteBusy, "Another product holds the VM; end its job."),
    "InsufficientResourcesFault": Meaning(SiteBusy, "Free resources on the host or cluster."),
    "RequestCanceled": Meaning(SiteBusy, "Somebody cancelled the task; it is tried again."),
    # No way through for now.
    "HostCommunication": Meaning(SiteUnreachable, _HOST, Then.LOOK),
    "HostNotConnected": Meaning(SiteUnreachable, _HOST),
    "HostNotReachable": Meaning(SiteUnreachable, _HOST),
    "Timedout": Meaning(SiteUnreachable, _LOST, Then.LOOK),
    "NotAuthenticated": Meaning(SiteUnreachable, "The session ended; it is opened again."),
    # The state decides.
    "InvalidPowerState": Meaning(OperationFailed, "Check the VM's power state.", Then.LOOK),
    "InvalidState": Meaning(OperationFailed, "Check the VM's state.", Then.LOOK),
    "DuplicateName": Meaning(OperationFailed, "Rename the other object.", Then.LOOK),
    "AlreadyExists": Meaning(OperationFailed, "Check what is there.", Then.LOOK),
    "ManagedObjectNotFound": Meaning(VmNotFound, "Check the site's inventory.", Then.LOOK),
    # Never by itself.
    "NoPermission": Meaning(PrivilegeMissing, "Give the account this privilege."),
    "InvalidLogin": Meaning(LoginRefused, "Correct username or the password file."),
    "NotSupported": Meaning(OperationUnsupported, "Use another host, or switch the option off."),
    "MethodNotFound": Meaning(OperationUnsupported, "The site's version lacks it."),
    "RestrictedVersion": Meaning(OperationUnsupported, "The host's licence forbids changes."),
    "NoDiskSpace": Meaning(OperationFailed, "Free space on the datastore."),
    "TooManySnapshotLevels": Meaning(OperationFailed, "Remove older snapshots first."),
    "SnapshotIncompatibleDeviceInVm": Meaning(
        OperationFailed, "Remove or change the device that forbids snapshots."
    ),
    "InvalidDeviceOperation": Meaning(OperationFailed, "A disk with snapshots cannot be changed."),
}
"""By fault name; a fault not listed takes the meaning of its nearest listed base class."""

_ANY = Meaning(OperationFailed, "The task's entry in the vSphere Client tells more.")


def meaning(fault: BaseException) -> Meaning:
    """The table's row for this fault."""
    for kind in type(fault).__mro__:
        # pyVmomi names classes `vim.fault.FileLocked`.
        found = MEANINGS.get(kind.__name__.rpartition(".")[2])
        if found is not None:
            return found
    # Hosts report a locked disk as GenericVmConfigFault and tell it only in the text.
    if "failed to lock the file" in text(fault).lower():
        return MEANINGS["FileLocked"]
    return _ANY


def fault_name(fault: BaseException) -> str:
    """Short name of a fault class: `FileLocked`."""
    return type(fault).__name__.rpartition(".")[2]


def text(fault: BaseException) -> str:
    """The fault's own words, all of them: the cause is often only in faultMessage."""
    parts = [str(getattr(fault, "msg", "") or "")]
    parts += [str(m.message) for m in getattr(fault, "faultMessage", None) or () if m.message]
    return " ".join(dict.fromkeys(part for part in parts if part))[:500]


def is_fault(error: BaseException) -> bool:
    """Whether vSphere itself said this (an answer came), in contrast to a broken connection."""
    return isinstance(error, vmodl.MethodFault)


def typed(error: BaseException, site: str, doing: str) -> FailbackError:
    """Our error for anything a call raises. `doing` is a clause such as `power on vm-7`."""
    if isinstance(error, FailbackError):
        return error
    if is_fault(error):
        return _from_fault(error, site, doing)
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateUntrusted(
            f"The certificate of site {site} is not trusted: "
            f"{getattr(error, 'verify_message', '') or error.strerror or error}.",
            "Set ca_file to the authority that signed it, or thumbprint_sha256 to its thumbprint.",
        )
    if isinstance(error, TRANSPORT_ERRORS):
        return SiteUnreachable(
            f"Site {site} did not answer while asked to {doing} "
            f"({type(error).__name__}: {error}).".replace("\n", " "),
            _LOST,
            cause=type(error).__name__,
        )
    if isinstance(error, NOT_UNDERSTOOD):
        return OperationFailed(
            f"Site {site} answered in a way we do not understand while asked to {doing} "
            f"({type(error).__name__}: {error}).",
            "Report it with the site's version.",
            cause=type(error).__name__,
        )
    raise error


def _from_fault(fault: BaseException, site: str, doing: str) -> FailbackError:
    found = meaning(fault)
    name = fault_name(fault)
    remedy = found.remedy
    privilege = str(getattr(fault, "privilegeId", "") or "")
    if found.error is PrivilegeMissing and privilege:
        remedy = f"Give the account the privilege {privilege}."
    said = text(fault)
    return found.error(
        f"Site {site} could not {doing}: {name}{f' ({said})' if said else ''}.",
        remedy,
        fault=name,
        privilege=privilege or None,
        object=_object(fault),
    )


def _object(fault: BaseException) -> str | None:
    for name in ("obj", "object"):
        moid = getattr(getattr(fault, name, None), "_moId", None)
        if moid is not None:
            return str(moid)
    return None
