"""A VM's NVRAM file, read and written over the datastore's HTTP door.

Without it a VM with EFI firmware has lost its boot entries. Its file is small and replaced as a
whole; nothing bulky goes this way.
"""

from __future__ import annotations

import re
from http.client import HTTPException, HTTPResponse
from urllib.parse import quote, urlencode

from failback.contracts.vm import VmIdentity
from failback.errors import OperationFailed, PrivilegeMissing, VmNotFound
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import Ref, vim
from failback.hypervisor.vsphere.inventory import read_proven
from failback.hypervisor.vsphere.properties import read_object
from failback.hypervisor.vsphere.removal import require_ours_and_off
from failback.hypervisor.vsphere.session import Session, call_with_beat
from failback.hypervisor.vsphere.tasks import Tasks

LIMIT_BYTES = 1 << 20
"""Real ones have 8 to 264 KiB."""

_PATH = re.compile(r"\[(?P<store>[^\]]+)\] (?P<folder>.*/)?(?P<name>[^/]+)")


def read_nvram(session: Session, vm: VmIdentity) -> bytes:
    """The file's content, at most 1 MiB; VmNotFound where the VM has none yet."""
    return _ask(session, vm, "GET", None, None)


def write_nvram(tasks: Tasks, vm: VmIdentity, data: bytes, mark: str, beat: Beat) -> None:
    """Replace the file of a VM that is off and carries the mark.

    Idempotent because the whole file is replaced with the same bytes.
    """
    if not data or len(data) > LIMIT_BYTES:
        raise OperationFailed(
            f"{len(data)} bytes are no NVRAM for {vm}.", "It has between 1 byte and 1 MiB."
        )
    if not require_ours_and_off(tasks, vm, mark, "given another NVRAM", beat):
        raise VmNotFound(f"{vm} is gone.", "Plan the failback anew.")
    if _ask(tasks.session, vm, "GET", None, beat, missing=b"") == data:
        return
    _ask(tasks.session, vm, "PUT", data, beat)


def _ask(
    session: Session,
    vm: VmIdentity,
    method: str,
    body: bytes | None,
    beat: Beat | None,
    missing: bytes | None = None,
) -> bytes:
    url = _url(session, vm, beat)

    def call() -> tuple[int, str, bytes]:
        stub = session.login().stub
        connection = stub.open()
        try:
            # The session's cookie, so that the site applies our account's privileges.
            connection.request(method, url, body, {"Cookie": stub.cookie or ""})
            response: HTTPResponse = connection.getresponse()
            return response.status, response.reason, response.read(LIMIT_BYTES + 1)
        finally:
            connection.close()

    if beat is not None and method == "PUT":
        beat()
    try:
        status, reason, content = call_with_beat(call, beat)
    except (*faults.TRANSPORT_ERRORS, HTTPException) as error:
        raise faults.typed(error, session.site, f"{method} the NVRAM of {vm}") from error
    if status == 404:
        if missing is not None:
            return missing
        raise VmNotFound(f"{vm} has no NVRAM file.", "It gets one at its first start.")
    if status in (401, 403):
        raise PrivilegeMissing(
            f"Site {session.site} refuses the NVRAM file of {vm} ({status} {reason}).",
            "The account needs Datastore.Browse and Datastore.FileManagement on its datastore.",
        )
    if status not in (200, 201, 204) or len(content) > LIMIT_BYTES:
        raise OperationFailed(
            f"Site {session.site} answered {status} {reason} for the NVRAM file of {vm}.",
            "Look at the datastore, then retry.",
        )
    return content


def _url(session: Session, vm: VmIdentity, beat: Beat | None) -> str:
    found = read_proven(
        session, vm, ("config.files.vmPathName", "config.extraConfig", "parent"), beat
    )
    options = {o.key: o.value for o in found.get("config.extraConfig") or ()}
    at = _PATH.fullmatch(found.get("config.files.vmPathName") or "")
    if at is None:
        raise OperationFailed(
            f"The configuration file of {vm} has an unusual path: {vm.path}.",
            "Check where the VM is stored.",
        )
    # The setting is relative to the VM's folder, and missing until the first start.
    name = str(options.get("nvram") or at["name"].removesuffix(".vmx") + ".nvram")
    query = urlencode(
        {"dcPath": _datacenter(session, found.get("parent"), beat), "dsName": at["store"]}
    )
    return f"/folder/{quote((at['folder'] or '') + name)}?{query}"


def _datacenter(session: Session, folder: Ref, beat: Beat | None) -> str:
    """Inventory path of the datacenter that the folder is in."""
    names: list[str] = []
    at = folder
    while at is not None:
        found = read_object(session, at, ("name", "parent"), beat)
        if names or isinstance(at, vim.Datacenter):
            names.append(found.get("name") or "")
        at = found.get("parent")
    return "/".join(reversed(names[:-1]))  # without the root folder
