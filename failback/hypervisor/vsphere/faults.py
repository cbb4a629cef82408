"""What a vSphere fault, a broken connection or a bad certificate means: the one table."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from enum import Enum
from xml.parsers.expat import ExpatError

from failback.errors import (
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
from failback.hypervisor.vsphere.unreachable import NETWORK, unreachable, untrusted

TRANSPORT_ERRORS = (OSError, http.client.HTTPException, ExpatError)
"""What a call raises when no whole answer came: socket, TLS and HTTP errors, a cut-off reply."""

NOT_UNDERSTOOD = (AttributeError, KeyError, TypeError, ValueError)
"""What pyVmomi raises for a complete answer that does not fit its type tables."""


class Then(Enum):
    """What a mutation does on a fault before it gives up."""

    RAISE = "raise"
    LOOK = "look at the state: the wanted end may be reached already"
    WAIT = "wait for the task in the way, then look and try again"
    AGAIN = "somebody holds it, and mostly lets go soon: look and try again for a while"


@dataclass(frozen=True, slots=True)
class Meaning:
    error: type[FailbackError]
    remedy: str
    then: Then = Then.RAISE


_BUSY = "A run tries again by itself; if it stays so, look for a task or a backup on it."
_LOST = NETWORK
_HOST = "Check the host's connection to its vCenter; a run tries again by itself."
_STORE = "Check the datastore's connection to the host, then retry."
_PLACE = "Choose another host, cluster or datastore for it, or make room."
_LICENCE = "The site's licence forbids it; another edition is needed."
_CONFIG = "Change the VM's configuration as the message says, then retry."
_TASK = "The task's entry in the vSphere Client tells more."

MEANINGS: dict[str, Meaning] = {
    # In use for now. Whether it was us, the state tells.
    "TaskInProgress": Meaning(SiteBusy, _BUSY, Then.WAIT),
    "VAppOperationInProgress": Meaning(SiteBusy, _BUSY),
    "ConcurrentAccess": Meaning(SiteBusy, _BUSY, Then.LOOK),
    "FileLocked": Meaning(
        SiteBusy, "A disk is still open; it is tried again once released.", Then.AGAIN
    ),
    "ResourceInUse": Meaning(SiteBusy, _BUSY),
    "SnapshotLocked": Meaning(SiteBusy, _BUSY),
    "MethodDisabled": Meaning(
        SiteBusy, "Another product, mostly a backup, holds the VM; end its job.", Then.AGAIN
    ),
    "InsufficientResourcesFault": Meaning(SiteBusy, "Free resources on the host or cluster."),
    "RequestCanceled": Meaning(SiteBusy, "Somebody cancelled the task; it is tried again."),
    "InsufficientStorageSpace": Meaning(OperationFailed, "Free space on the datastore."),
    # No way through for now.
    "HostCommunication": Meaning(SiteUnreachable, _HOST, Then.LOOK),
    "HostNotConnected": Meaning(SiteUnreachable, _HOST),
    "HostNotReachable": Meaning(SiteUnreachable, _HOST),
    "Timedout": Meaning(SiteUnreachable, _LOST, Then.LOOK),
    "NotAuthenticated": Meaning(SiteUnreachable, "The session ended; it is opened again."),
    "SessionNotFound": Meaning(SiteUnreachable, "The session ended; it is opened again."),
    "DatabaseError": Meaning(SiteUnreachable, "Check the vCenter's own services.", Then.LOOK),
    # The state decides.
    "InvalidPowerState": Meaning(OperationFailed, "Check the VM's power state.", Then.LOOK),
    "InvalidState": Meaning(OperationFailed, "Check the VM's state.", Then.LOOK),
    "InvalidHostState": Meaning(
        OperationFailed, "Take the host out of maintenance or standby, and connect it.", Then.LOOK
    ),
    "InvalidDatastoreState": Meaning(
        OperationFailed, "Take the datastore out of maintenance.", Then.LOOK
    ),
    "QuestionPending": Meaning(OperationFailed, "Answer the VM's question.", Then.LOOK),
    "DuplicateName": Meaning(OperationFailed, "Rename the other object.", Then.LOOK),
    "AlreadyExists": Meaning(OperationFailed, "Check what is there.", Then.LOOK),
    "ManagedObjectNotFound": Meaning(VmNotFound, "Check the site's inventory.", Then.LOOK),
    "NotFound": Meaning(OperationFailed, "Check the site's inventory.", Then.LOOK),
    "ToolsUnavailable": Meaning(
        OperationFailed, "Start VMware Tools in the guest, or let it be switched off.", Then.LOOK
    ),
    # Never by itself: rights and licences.
    "NoPermission": Meaning(PrivilegeMissing, "Give the account this privilege."),
    "RestrictedByAdministrator": Meaning(PrivilegeMissing, "Ask who restricted it."),
    "SecurityError": Meaning(PrivilegeMissing, "Give the account the role of the documentation."),
    "InvalidLogin": Meaning(LoginRefused, "Correct username or the password file."),
    "PasswordExpired": Meaning(LoginRefused, "Set a new password for the account."),
    "InvalidLocale": Meaning(LoginRefused, "The site lacks a language we did not ask for."),
    "NotSupported": Meaning(OperationUnsupported, "Use another host, or switch the option off."),
    "NotImplemented": Meaning(OperationUnsupported, "The site's version lacks it."),
    "MethodNotFound": Meaning(OperationUnsupported, "The site's version lacks it."),
    "InvalidRequest": Meaning(OperationUnsupported, "The site's version does not know it."),
    "UnsupportedVimApiVersion": Meaning(OperationUnsupported, "Upgrade the host."),
    "RestrictedVersion": Meaning(OperationUnsupported, "The host's licence forbids changes."),
    "NotEnoughLicenses": Meaning(OperationUnsupported, _LICENCE),
    "HostAccessRestrictedToManagementServer": Meaning(
        OperationUnsupported, "Reach the host through the vCenter that manages it."
    ),
    "OperationDisallowedOnHost": Meaning(OperationUnsupported, "Use another host."),
    "DisallowedOperationOnFailoverHost": Meaning(OperationUnsupported, "Use another host."),
    # Never by itself: files and datastores.
    "NoDiskSpace": Meaning(OperationFailed, "Free space on the datastore."),
    "FileNotFound": Meaning(OperationFailed, "Check that the VM's files are all there."),
    "FileAlreadyExists": Meaning(OperationFailed, "Move the file away, or choose another name."),
    "FileNotWritable": Meaning(OperationFailed, _STORE),
    "CannotAccessFile": Meaning(OperationFailed, _STORE),
    "FileTooLarge": Meaning(OperationFailed, "Choose a datastore that takes files of this size."),
    "FileFault": Meaning(OperationFailed, _STORE),
    "InvalidDatastore": Meaning(OperationFailed, _STORE),
    "NoConnectedDatastore": Meaning(OperationFailed, _STORE),
    "UnsupportedDatastore": Meaning(OperationFailed, _PLACE),
    # Never by itself: snapshots.
    "TooManySnapshotLevels": Meaning(OperationFailed, "Remove older snapshots first."),
    "SnapshotDisabled": Meaning(OperationFailed, "Allow snapshots in the VM's configuration."),
    "SnapshotIncompatibleDeviceInVm": Meaning(
        OperationFailed, "Remove or change the device that forbids snapshots."
    ),
    "MemorySnapshotOnIndependentDisk": Meaning(
        OperationFailed, "Remove or change the device that forbids snapshots."
    ),
    "SnapshotFault": Meaning(OperationFailed, _TASK),
    # Never by itself: what was asked for.
    "InvalidArgument": Meaning(OperationFailed, "Report it with the site's version."),
    "InvalidProperty": Meaning(OperationUnsupported, "The site's version lacks it."),
    "InvalidPrivilege": Meaning(OperationUnsupported, "The site's version lacks it."),
    "InvalidDeviceOperation": Meaning(OperationFailed, "A disk with snapshots cannot be changed."),
    "InvalidDeviceSpec": Meaning(OperationFailed, _CONFIG),
    "InvalidVmConfig": Meaning(OperationFailed, _CONFIG),
    "GenericVmConfigFault": Meaning(OperationFailed, _TASK),
    "CannotAccessVmComponent": Meaning(
        OperationFailed, "Give the host the disk, network or device that is named."
    ),
    "VirtualHardwareCompatibilityIssue": Meaning(
        OperationFailed, "Use a host that offers this hardware."
    ),
    "CpuIncompatible": Meaning(OperationFailed, "Use a host with processors like the old one."),
    "VmConfigFault": Meaning(OperationFailed, _CONFIG),
    "InvalidName": Meaning(OperationFailed, "Choose another name."),
    "InvalidFolder": Meaning(OperationFailed, "Choose another folder."),
    "OutOfBounds": Meaning(OperationFailed, "Report it with the site's version."),
    "VmToolsUpgradeFault": Meaning(OperationFailed, _TASK),
    "VmFaultToleranceIssue": Meaning(OperationFailed, "Switch fault tolerance off for the VM."),
    "CustomizationFault": Meaning(OperationFailed, _CONFIG),
    "MigrationFault": Meaning(OperationFailed, _PLACE),
    "NoCompatibleHost": Meaning(OperationFailed, _PLACE),
    "NoCompatibleDatastore": Meaning(OperationFailed, _PLACE),
    "HostConfigFault": Meaning(OperationFailed, "Check the host's own configuration."),
    "HostConnectFault": Meaning(OperationFailed, "Check the host's connection to its vCenter."),
    "DasConfigFault": Meaning(OperationFailed, "Check the cluster's availability settings."),
    "DvsFault": Meaning(OperationFailed, "Check the distributed switch."),
    "VsanFault": Meaning(OperationFailed, "Check the vSAN cluster."),
    "OvfFault": Meaning(OperationFailed, _TASK),
    "ReplicationFault": Meaning(OperationFailed, "Another replication holds the VM; end it."),
    "LimitExceeded": Meaning(OperationFailed, "Remove what is not needed there any more."),
    "SystemError": Meaning(OperationFailed, "Look into the host's and the vCenter's log files."),
    "UnexpectedFault": Meaning(OperationFailed, "Look into the vCenter's log files."),
    # What is left, by its two roots.
    "VimFault": Meaning(OperationFailed, _TASK),
    "MethodFault": Meaning(OperationFailed, _TASK),
}
"""By fault name; a fault not listed takes the meaning of its nearest listed base class."""


def meaning(fault: BaseException) -> Meaning:
    """The table's row for this fault."""
    # Hosts report a locked disk as GenericVmConfigFault and tell it only in the text.
    if "failed to lock the file" in text(fault).lower():
        return MEANINGS["FileLocked"]
    return MEANINGS[row(type(fault))]


def row(kind: type) -> str:
    """Name of the table's row for a class of faults: its own, or its nearest base's."""
    for base in kind.__mro__:
        # pyVmomi names classes `vim.fault.FileLocked`.
        name = base.__name__.rpartition(".")[2]
        if name in MEANINGS:
            return name
    raise TypeError(f"{kind.__name__} is no vSphere fault")


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


def typed(error: BaseException, site: str, doing: str, at: str = "") -> FailbackError:
    """Our error for anything a call raises. `doing` is a clause such as `power on vm-7`, `at`
    the host and port that were called."""
    if isinstance(error, FailbackError):
        return error
    if is_fault(error):
        return _from_fault(error, site, doing)
    if isinstance(error, ssl.SSLCertVerificationError):
        return untrusted(error, site, at)
    if isinstance(error, TRANSPORT_ERRORS):
        return unreachable(error, site, at, doing)
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
    on = _object(fault)
    said = text(fault)
    what = f"Site {site} could not {doing}: {name}{f' ({said})' if said else ''}."
    if name == "InvalidLogin":
        what = f"Site {site} did not let us {doing}: user name or password is wrong."
    if found.error is PrivilegeMissing and privilege:
        what = f"The account may not {doing} at site {site}: it lacks {privilege}"
        what += f" on {on}." if on else "."
        remedy = f"Give the account the privilege {privilege} there."
    return found.error(what, remedy, fault=name, privilege=privilege or None, object=on)


def _object(fault: BaseException) -> str | None:
    for name in ("obj", "object"):
        moid = getattr(getattr(fault, name, None), "_moId", None)
        if moid is not None:
            return str(moid)
    return None
