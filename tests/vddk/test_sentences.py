"""Every way in which opening a disk fails is one clear sentence, and never shows the password."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from failback.disks.kinds import DatastoreAccess
from failback.disks.vddk import VddkSite
from failback.disks.vddk_errors import MEANINGS
from failback.errors import (
    CertificateUntrusted,
    DiskMoved,
    DiskUnavailable,
    FailbackError,
    LoginRefused,
    PrivilegeMissing,
    SettingsInvalid,
)
from tests.helpers.disks import MIB, REPOSITORY, no_check
from tests.vddk.fake import PASSWORD, FakeHost, build

DISK = "[ds] vm/vm.vmdk"


@pytest.fixture
def serving(host: FakeHost, tmp_path: Path) -> FakeHost:
    (tmp_path / "disk.img").write_bytes(bytes(MIB))
    host.serve(DISK, tmp_path / "disk.img")
    return host


def opened(site: VddkSite, file: str = DISK) -> FailbackError:
    """Why the disk cannot be opened."""
    access = DatastoreAccess(kind="vddk", vddk=site)
    with (
        pytest.raises(FailbackError) as caught,
        access.open(
            file,
            vm="vm-1",
            snapshot=None,
            writable=False,
            fence=None,
            check=no_check,
            name="replica disk scsi0:0",
            lease_s=20,
        ),
    ):
        pass
    error = caught.value
    told = [str(error), repr(error), str(error.evidence)]
    assert not [text for text in told if PASSWORD in text]
    assert error.remedy
    return error


def wrong_password(host: FakeHost) -> VddkSite:
    host.site.password_file.write_text("other\n")
    return host.site


CASES: list[tuple[Callable[[FakeHost], VddkSite], type[FailbackError], str]] = [
    (
        lambda host: replace(host.site, thumbprint="CD" + host.site.thumbprint[2:]),
        CertificateUntrusted,
        "as it does when the server showed another certificate than vddk.thumbprint",
    ),
    (wrong_password, LoginRefused, "did not accept the user name or password"),
    (
        lambda host: replace(host.site, user="somebody"),
        LoginRefused,
        "did not accept the user name or password of somebody",
    ),
    (
        lambda host: replace(host.site, server="elsewhere.test"),
        DiskUnavailable,
        "cannot be reached by VMware's library",
    ),
    (
        lambda host: replace(host.site, libdir=host.root / "nowhere"),
        SettingsInvalid,
        "There is no libvixDiskLib.so.8",
    ),
    (
        lambda host: replace(host.site, plugin="/nowhere/nbdkit-vddk-plugin.so"),
        SettingsInvalid,
        "nbdkit has no vddk plugin",
    ),
]


@pytest.mark.parametrize(("make", "kind", "sentence"), CASES)
def test_what_is_wrong_in_the_settings_is_named(
    serving: FakeHost,
    make: Callable[[FakeHost], VddkSite],
    kind: type[FailbackError],
    sentence: str,
) -> None:
    error = opened(make(serving))

    assert type(error) is kind, error
    assert sentence in error.what


def test_a_disk_that_is_not_there_may_have_moved(serving: FakeHost) -> None:
    error = opened(serving.site, "[ds] vm/other.vmdk")

    assert type(error) is DiskMoved
    assert error.retryable
    assert "[ds] vm/other.vmdk was not found" in error.what


@pytest.mark.parametrize(
    ("code", "text", "kind", "sentence"),
    [
        (
            1,
            "[NFC ERROR]NfcFssrvrProcessErrorMsg: received NFC error 5 from server: Failed to"
            " allocate the requested 24117272 bytes",
            DiskUnavailable,
            "no memory for another transfer",
        ),
        (3014, "", PrivilegeMissing, "may not open replica disk"),
        (13, "NBD_ERR_INSUFFICIENT_RIGHTS", PrivilegeMissing, "may not open"),
        (16064, "", PrivilegeMissing, "host is not licensed, which also stands for"),
        (16392, "", DiskUnavailable, "is locked by another"),
        (14009, "", DiskUnavailable, "cannot be reached"),
        (1, "NfcNewAuthdConnectionEx: Failed to connect to server esx:902", DiskUnavailable, "902"),
        (1, "The object 'vim.VirtualMachine:vm-1' has already been deleted", DiskMoved, "found"),
        (1, "SSLVerifyCertAgainstSystemStore: mismatch", CertificateUntrusted, "showed another"),
        (1, "", CertificateUntrusted, "gave no reason"),
    ],
)
def test_what_the_host_refuses_is_told_in_our_words(
    serving: FakeHost, code: int, text: str, kind: type[FailbackError], sentence: str
) -> None:
    serving.control(open_code=code, **({"open_text": text} if text else {}))

    error = opened(serving.site)

    assert type(error) is kind, error
    assert sentence in str(error)
    assert "VixDiskLib_Open" in str(error.evidence["said"])


def test_an_error_that_nobody_knows_is_quoted(serving: FakeHost) -> None:
    serving.control(connect_code=7)

    error = opened(serving.site)

    assert type(error) is DiskUnavailable
    assert "VixDiskLib_ConnectEx: A file access error occurred" in error.what


def test_a_library_that_says_the_password_is_not_quoted(serving: FakeHost) -> None:
    serving.control(leak=1)
    (serving.root / "fake" / "password").write_text("another")

    error = opened(serving.site)

    assert "tried ***" in str(error.evidence["said"])


def test_a_library_that_is_too_old_is_told(serving: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = build(tmp_path / "old", "FAKE_TOO_OLD")
    library = serving.root / "lib64" / old.name
    library.unlink()
    library.symlink_to(old)

    error = opened(serving.site)

    assert type(error) is SettingsInvalid
    assert "too old" in error.what


@pytest.mark.parametrize("content", [b"", b"not a library" * 100])
def test_a_library_that_cannot_be_loaded_is_told(serving: FakeHost, content: bytes) -> None:
    library = serving.root / "lib64" / "libvixDiskLib.so.8"
    library.unlink()
    library.write_bytes(content)

    error = opened(serving.site)

    assert type(error) is SettingsInvalid
    assert "cannot be loaded" in error.what


def test_what_the_library_does_without_is_no_reason(serving: FakeHost) -> None:
    warning = "Could not load plugins: libdiskLibPlugin.so: cannot open shared object file"
    serving.control(open_code=16392, open_text=warning)

    assert "is locked by another" in opened(serving.site).what


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        ({"plugin": "/nowhere/nbdkit-vddk-plugin.so"}, "nbdkit has no vddk plugin"),
        ({"program": "/nowhere/nbdkit"}, "does not run"),
    ],
    ids=["fits", "no plugin", "no nbdkit"],
)
def test_a_run_is_refused_before_it_begins(
    serving: FakeHost, changes: dict[str, str], sentence: str
) -> None:
    access = DatastoreAccess(kind="vddk", vddk=replace(serving.site, **changes))  # type: ignore[arg-type]
    if not sentence:
        access.require(DISK)
        return
    with pytest.raises(SettingsInvalid, match=sentence):
        access.require(DISK)


def test_a_library_that_does_not_load_refuses_a_run(serving: FakeHost, tmp_path: Path) -> None:
    library = serving.root / "lib64" / "libvixDiskLib.so.8"
    library.unlink()
    library.write_bytes(b"not a library")
    access = DatastoreAccess(kind="vddk", vddk=serving.site)
    with pytest.raises(SettingsInvalid, match="cannot be loaded"):
        access.require(DISK)
    library.unlink()
    (tmp_path / "old").mkdir()
    library.symlink_to(build(tmp_path / "old", "FAKE_TOO_OLD"))
    with pytest.raises(SettingsInvalid, match="too old"):
        access.require(DISK)


def test_the_guide_has_every_sentence() -> None:
    guide = " ".join((REPOSITORY / "docs" / "vddk.md").read_text().split())
    for meaning in MEANINGS:
        sentence = re.sub(r"\{\w+\}", "...", meaning.what).replace("....", "...")
        assert f"| {sentence} |" in guide
