"""What nbdkit, its VDDK plugin and VMware's library say on stderr, as errors of ours.

The library's texts are few and often misleading, so the first pattern that is found decides, from
the most particular to the vaguest. Every text here was seen or is in the vendor's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from failback.errors import (
    CertificateUntrusted,
    DiskMoved,
    DiskUnavailable,
    FailbackError,
    LoginRefused,
    PrivilegeMissing,
    SettingsInvalid,
)

GUIDE = "docs/vddk.md tells how."


@dataclass(frozen=True)
class Disk:
    """What a sentence about a failed opening speaks of."""

    name: str
    file: str
    server: str
    user: str
    libdir: str


@dataclass(frozen=True)
class Meaning:
    """A text of theirs and what we make of it; both sentences may name the fields of Disk."""

    text: re.Pattern[str]
    error: Callable[..., FailbackError]
    what: str
    remedy: str
    loading: bool = False
    """Only before the library was called: later it complains of parts that it does without."""


_CALLED = re.compile(r"VixDiskLib_(ConnectEx|Open|GetInfo)\b")


def _means(
    text: str,
    error: Callable[..., FailbackError],
    what: str,
    remedy: str,
    *,
    loading: bool = False,
) -> Meaning:
    return Meaning(re.compile(text, re.IGNORECASE), error, what, remedy, loading)


MEANINGS = (
    _means(
        r"required VDDK symbol|VDDK version must be",
        SettingsInvalid,
        "VMware's library in {libdir} is too old for nbdkit's vddk plugin.",
        f"Unpack VDDK 6.7 or newer there; {GUIDE}",
        loading=True,
    ),
    _means(
        r"libvixDiskLib\.so\S*: (cannot open shared object file|file too short|invalid ELF"
        r"|wrong ELF)|LIBRARY LOCATION",
        SettingsInvalid,
        "VMware's library cannot be loaded from {libdir}.",
        f"Unpack VDDK 6.7 to 8 for this machine's processor there, or correct vddk.libdir; {GUIDE}",
        loading=True,
    ),
    _means(
        r"nbdkit-vddk-plugin\S*: cannot open|cannot open plugin",
        SettingsInvalid,
        "nbdkit has no vddk plugin on this machine.",
        f"Install nbdkit's vddk plugin, or name its .so in vddk.plugin; {GUIDE}",
        loading=True,
    ),
    _means(
        r"error while loading shared libraries|cannot open shared object file",
        SettingsInvalid,
        "nbdkit or VMware's library in {libdir} lacks a library of the system.",
        f"Install what the message names; {GUIDE}",
        loading=True,
    ),
    _means(
        r"open \S+: (permission denied|no such file)",
        SettingsInvalid,
        "nbdkit cannot read a file that the settings name for {server}.",
        "Check password_file and vddk.libdir, and who may read them.",
        loading=True,
    ),
    _means(
        r"received NFC error 5|failed to allocate the requested|NFC_NO_MEMORY",
        DiskUnavailable,
        "The host of {name} has no memory for another transfer (NFC error 5).",
        "The next attempt tries again; if this repeats, lower vddk.host_bytes and vddk.host_disks.",
    ),
    _means(
        r"login failure|incorrect user ?name or password|InvalidLogin",
        LoginRefused,
        "{server} did not accept the user name or password of {user} for opening {name}.",
        "Correct username or the content of password_file.",
    ),
    _means(
        r"not licensed for (this|the) feature",
        PrivilegeMissing,
        "{server} did not open {name}: it says that the host is not licensed, which also stands for"
        " missing privileges of {user}.",
        f"Check the privileges first (docs/vddk.md lists them), then the host's licence; {GUIDE}",
    ),
    _means(
        r"insufficient permissions|NBD_ERR_INSUFFICIENT_RIGHTS|NoPermission"
        r"|do not have access rights|permission to perform this operation was denied",
        PrivilegeMissing,
        "{user} may not open {name} on {server}.",
        "Give the account the privileges that docs/vddk.md lists, on the VM and its datastores.",
    ),
    _means(
        r"failed to lock the file|file is locked|NFC_FILE_LOCKED|disk is locked",
        DiskUnavailable,
        "{file} is locked by another user of the disk.",
        "Check that its VM is off and no backup has it open; the next attempt tries again.",
    ),
    _means(
        r"file was not found|FileNotFound|NFC_FILE_MISSING|managed object not found"
        r"|has already been deleted",
        DiskMoved,
        "{file} was not found by {server}.",
        "The VM or its disk may have moved: its place is read again.",
    ),
    _means(
        r"thumbprint mismatch|SSL certificate|certificate verify|SSLVerify",
        CertificateUntrusted,
        "{server} or the host of {name} showed another certificate than vddk.thumbprint names.",
        f"Compare the thumbprint with the server's; {GUIDE}",
    ),
    _means(
        r"server refused connection|cannot connect to (the )?host|failed to connect to server"
        r"|timed out connecting|could not be contacted|failed to connect to peer"
        r"|cannot resolve|host name",
        DiskUnavailable,
        "{server} or the host of {name} cannot be reached by VMware's library.",
        "Open ports 443 and 902 from the mover to vCenter and all its hosts, and check that the"
        " mover resolves the hosts' names.",
    ),
    _means(
        r"VixDiskLib_\w+: .*Unknown error",
        CertificateUntrusted,
        "{server} did not open {name} and VMware's library gave no reason, as it does when the"
        " server showed another certificate than vddk.thumbprint names.",
        f"Compare the thumbprint with the server's; {GUIDE}",
    ),
)


def explain(disk: Disk, said: str) -> FailbackError | None:
    """The error that a stderr means; None where nothing in it is known."""
    called = _CALLED.search(said) is not None
    for meaning in MEANINGS:
        if called and meaning.loading:
            continue
        if meaning.text.search(said):
            fields = vars(disk)
            error = meaning.error(meaning.what.format(**fields), meaning.remedy.format(**fields))
            error.evidence["said"] = _end(said)
            return error
    return None


def _end(said: str) -> str:
    return " ".join(said.split())[-500:]
