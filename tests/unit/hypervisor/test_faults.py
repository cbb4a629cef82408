"""The table of faults."""

from __future__ import annotations

import http.client
import ssl
from typing import Any

import pytest

from failback.errors import (
    CertificateUntrusted,
    FailbackError,
    OperationFailed,
    OperationUnsupported,
    PrivilegeMissing,
    SiteBusy,
    SiteUnreachable,
)
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import vim, vmodl


@pytest.mark.parametrize("name", sorted(faults.MEANINGS))
def test_every_name_in_the_table_is_a_fault_of_vsphere(name: str) -> None:
    assert any(hasattr(space, name) for space in (vim.fault, vmodl.fault, vmodl))


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
