"""The table of faults."""

from __future__ import annotations

import http.client
import ssl
from typing import Any

import pytest

from failback.errors import (
    Audience,
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
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import ref, vim, vmodl
from tests.unit.hypervisor.declared import all_faults, declared_faults


@pytest.mark.parametrize("name", sorted(faults.MEANINGS))
def test_every_name_in_the_table_is_a_fault_of_vsphere(name: str) -> None:
    assert any(hasattr(space, name) for space in (vim.fault, vmodl.fault, vmodl.query, vmodl))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (vim.fault.TaskInProgress(), SiteBusy),
        # Not in the table themselves: their base class is.
        (vim.fault.InsufficientCpuResourcesFault(unreserved=1, requested=2), SiteBusy),
        (vim.fault.NotSupportedHost(), OperationFailed),
        (vim.fault.ToolsUnavailable(), OperationFailed),
        (vmodl.fault.MethodNotFound(method="x"), OperationUnsupported),
        (vim.fault.GenericVmConfigFault(reason="x"), OperationFailed),
        (vim.fault.GenericVmConfigFault(msg="Failed to lock the file", reason="x"), SiteBusy),
        (vim.fault.NoPermission(privilegeId="VirtualMachine.State.X"), PrivilegeMissing),
        (TimeoutError("slow"), SiteUnreachable),
        (http.client.HTTPException("503 Service Unavailable"), SiteUnreachable),
        (ssl.SSLError("handshake"), SiteUnreachable),
        (ssl.SSLCertVerificationError("self-signed"), CertificateUntrusted),
        (KeyError("no such type"), OperationFailed),
    ],
)
def test_each_becomes_one_of_our_errors(fault: Any, expected: type[FailbackError]) -> None:
    error = faults.typed(fault, "production", "power on web01")
    assert type(error) is expected
    assert "production" in error.what
    assert error.what.endswith(".")
    assert error.remedy


def test_a_missing_privilege_is_named() -> None:
    fault = vim.fault.NoPermission(privilegeId="VirtualMachine.State.CreateSnapshot")
    error = faults.typed(fault, "production", "create a snapshot")
    assert "VirtualMachine.State.CreateSnapshot" in error.remedy
    assert error.evidence["privilege"] == "VirtualMachine.State.CreateSnapshot"


def test_our_own_errors_pass_and_bugs_are_not_hidden() -> None:
    ours = SiteBusy("x")
    assert faults.typed(ours, "production", "x") is ours
    with pytest.raises(ZeroDivisionError):
        faults.typed(ZeroDivisionError(), "production", "x")


RAISE, LOOK, WAIT, AGAIN = faults.Then
"""Give up, look whether it is done, wait for the task in the way, try again for a while."""

BY_FAULT: dict[str, tuple[type[FailbackError], bool, faults.Then]] = {
    # To be tried again.
    "TaskInProgress": (SiteBusy, True, WAIT),
    "ConcurrentAccess": (SiteBusy, True, LOOK),
    "FileLocked": (SiteBusy, True, AGAIN),
    "ResourceInUse": (SiteBusy, True, RAISE),
    "SnapshotLocked": (SiteBusy, True, RAISE),
    "HostCommunication": (SiteUnreachable, True, LOOK),
    "HostNotConnected": (SiteUnreachable, True, RAISE),
    "HostNotReachable": (SiteUnreachable, True, RAISE),
    "Timedout": (SiteUnreachable, True, LOOK),
    "RequestCanceled": (SiteBusy, True, RAISE),
    "InsufficientResourcesFault": (SiteBusy, True, RAISE),
    "NotAuthenticated": (SiteUnreachable, True, RAISE),
    # The state decides.
    "InvalidPowerState": (OperationFailed, False, LOOK),
    "InvalidState": (OperationFailed, False, LOOK),
    "DuplicateName": (OperationFailed, False, LOOK),
    "AlreadyExists": (OperationFailed, False, LOOK),
    "ManagedObjectNotFound": (VmNotFound, False, LOOK),
    "NotFound": (OperationFailed, False, LOOK),
    "ToolsUnavailable": (OperationFailed, False, LOOK),
    "MethodDisabled": (SiteBusy, True, AGAIN),
    # Never by itself.
    "NoPermission": (PrivilegeMissing, False, RAISE),
    "InvalidLogin": (LoginRefused, False, RAISE),
    "InvalidArgument": (OperationFailed, False, RAISE),
    "InvalidDeviceSpec": (OperationFailed, False, RAISE),
    "NotSupported": (OperationUnsupported, False, RAISE),
    "RestrictedVersion": (OperationUnsupported, False, RAISE),
    "NoDiskSpace": (OperationFailed, False, RAISE),
    "TooManySnapshotLevels": (OperationFailed, False, RAISE),
    "SnapshotIncompatibleDeviceInVm": (OperationFailed, False, RAISE),
    "MethodNotFound": (OperationUnsupported, False, RAISE),
    "GenericVmConfigFault": (OperationFailed, False, RAISE),
}
"""Fault -> our error, whether a run tries again by itself, what the driver does first."""


@pytest.mark.parametrize("name", BY_FAULT)
def test_what_each_fault_means(name: str) -> None:
    space = vim.fault if hasattr(vim.fault, name) else vmodl.fault
    fault = getattr(space, name)()
    kind, retryable, then = BY_FAULT[name]
    error = faults.typed(fault, "production", "power on web01")
    assert (type(error), error.retryable) == (kind, retryable)
    assert faults.meaning(fault).then is then
    assert error.evidence["fault"] == name


def test_every_fault_of_vsphere_becomes_a_sentence() -> None:
    """Its name at the site, what to do, and for somebody who can do it."""
    kinds = all_faults()
    assert len(kinds) > 600
    for kind in kinds:
        error = faults.typed(kind(), "production", "power on web01")
        name = kind.__name__.rpartition(".")[2]
        assert name in error.what or isinstance(error, (PrivilegeMissing, LoginRefused))
        assert error.evidence["fault"] == name
        assert error.remedy, name
        assert error.audience in (Audience.ADMINISTRATOR, Audience.OPERATOR)


ROOTS = {"VimFault", "MethodFault"}


def test_every_fault_that_our_calls_declare_has_a_row_of_its_own_or_its_kinds() -> None:
    declared = declared_faults()
    assert {"PowerOnVM_Task", "CreateVM_Task", "AnswerVM"} <= set(declared)
    without = {
        f"{method}: {kind.__name__}"
        for method, kinds in declared.items()
        for kind in kinds
        if faults.row(kind) in ROOTS and kind.__name__.rpartition(".")[2] not in ROOTS
    }
    assert not without


def test_the_object_of_a_missing_privilege_is_named() -> None:
    fault = vim.fault.NoPermission(
        privilegeId="VirtualMachine.Interact.PowerOn", object=ref("VirtualMachine", "vm-7")
    )
    error = faults.typed(fault, "production", "power on web01")
    assert "lacks VirtualMachine.Interact.PowerOn on vm-7" in error.what
