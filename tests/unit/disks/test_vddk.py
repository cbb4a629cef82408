"""The command line of the VDDK plugin, and that no secret is in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from failback.disks.exporter import NbdkitCommand
from failback.disks.hosts import HostLimits
from failback.disks.opening import open_disk
from failback.disks.vddk import LIMITS, VddkCommand, VddkSite, read_password, require_vddk
from failback.errors import SettingsInvalid
from failback.settings_disks import VddkSettings
from tests.helpers.disks import no_check

SECRET = "s3cret, and $(more)"
HEAD = [
    "user=svc@vsphere.local",
    "password=+/etc/failback/dr.password",
    "thumbprint=AA:BB",
    "vm=moref=vm-16",
]
SITE = VddkSite(
    libdir=Path("/opt/vddk"),
    server="vcenter.dr.example",
    user="svc@vsphere.local",
    password_file=Path("/etc/failback/dr.password"),
    thumbprint="AA:BB",
)
COMMAND = VddkCommand(SITE, "vm-16", "[ds 1] web01/it's, odd.vmdk")
PLAIN = ["libdir=/opt/vddk", "server=vcenter.dr.example", *HEAD]
FILTER = "--filter=blocksize-policy"
FILE = "file=[ds 1] web01/it's, odd.vmdk"


@pytest.mark.parametrize(
    ("site", "disk", "writable", "expected"),
    [
        ({}, {}, True, ["nbdkit", "--single", FILTER, "vddk", *PLAIN, FILE]),
        ({}, {}, False, ["nbdkit", "--single", "--readonly", FILTER, "vddk", *PLAIN, FILE]),
        (
            {"port": 902},
            {},
            True,
            ["nbdkit", "--single", FILTER, "vddk", *PLAIN[:2], "port=902", *HEAD, FILE],
        ),
        (
            {},
            {"snapshot": "snapshot-7"},
            False,
            [
                "nbdkit",
                "--single",
                "--readonly",
                FILTER,
                "vddk",
                *PLAIN,
                "snapshot=snapshot-7",
                FILE,
            ],
        ),
        (
            {"config": Path("/etc/vddk.conf")},
            {},
            True,
            ["nbdkit", "--single", FILTER, "vddk", *PLAIN, "config=/etc/vddk.conf", FILE],
        ),
        (
            {"transports": "hotadd:nbdssl", "compression": "skipz"},
            {},
            True,
            [
                *("nbdkit", "--single", FILTER, "vddk", *PLAIN),
                *("transports=hotadd:nbdssl", "compression=skipz", FILE),
            ],
        ),
        (
            {"plugin": "/opt/nbdkit-vddk-plugin.so", "program": "/opt/nbdkit"},
            {},
            True,
            ["/opt/nbdkit", "--single", FILTER, "/opt/nbdkit-vddk-plugin.so", *PLAIN, FILE],
        ),
    ],
    ids=["writing", "reading", "port", "snapshot", "config", "wan", "own plugin"],
)
def test_the_command_line(
    site: dict[str, Any], disk: dict[str, Any], writable: bool, expected: list[str]
) -> None:
    command = replace(COMMAND, site=replace(SITE, **site), **disk)

    assert command.argv(Path("unused"), writable=writable) == [*expected, *LIMITS]


def test_no_secret_is_in_the_command_line_or_the_environment(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(SECRET)
    command = replace(COMMAND, site=replace(SITE, password_file=password))

    for writable in (True, False):
        words = [*command.argv(Path("unused"), writable=writable), *command.environment.values()]
        assert not [word for word in words if SECRET in word]
        assert f"password=+{password}" in words


def test_a_snapshot_is_never_written() -> None:
    with pytest.raises(ValueError, match="never written"):
        replace(COMMAND, snapshot="snapshot-7").argv(Path("unused"), writable=True)


@pytest.mark.parametrize(("vm", "snapshot"), [("12", "12-snapshot-3"), ("vm-9", "snapshot-1")])
def test_hosts_without_a_vcenter_number_their_vms(vm: str, snapshot: str) -> None:
    argv = replace(COMMAND, vm=vm, snapshot=snapshot).argv(Path("unused"), writable=False)
    assert {f"vm=moref={vm}", f"snapshot={snapshot}"} <= set(argv)


@pytest.mark.parametrize("moref", ["", "vm-1 libdir=/tmp", "../vm", "vm=1"])
def test_only_references_are_put_into_the_command_line(moref: str) -> None:
    for command in (replace(COMMAND, vm=moref), replace(COMMAND, snapshot=moref)):
        with pytest.raises(SettingsInvalid):
            command.argv(Path("unused"), writable=False)


def test_a_library_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"libvixDiskLib\.so"):
        require_vddk(replace(SITE, libdir=tmp_path))
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libvixDiskLib.so.8").touch()
    site = replace(SITE, libdir=tmp_path, password_file=tmp_path / "password")
    site.password_file.touch(mode=0o600)
    site.password_file.write_text(SECRET + "\n")
    require_vddk(site)
    assert read_password(site) == SECRET


@pytest.mark.parametrize("name", ["libvixDiskLib.so", "libvixDiskLib.so.9", "libvixDiskLib.so.5"])
def test_a_library_that_the_plugin_would_not_look_for_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / name).touch()
    with pytest.raises(SettingsInvalid, match=f"found: {name}"):
        require_vddk(replace(SITE, libdir=tmp_path))


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (SECRET, 0o640, "chmod 600"),
        ("", 0o600, "exactly one line"),
        ("\n", 0o600, "exactly one line"),
        ("a\r\n", 0o600, "exactly one line"),
        ("a\nb\n", 0o600, "exactly one line"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_password_that_the_plugin_would_read_otherwise_is_refused(
    tmp_path: Path, content: str | None, mode: int, sentence: str
) -> None:
    site = replace(SITE, password_file=tmp_path / "password")
    if content is not None:
        site.password_file.write_bytes(content.encode())
        site.password_file.chmod(mode)
    with pytest.raises(SettingsInvalid, match=sentence) as caught:
        read_password(site)
    assert SECRET not in str(caught.value)


def test_the_limits_reach_our_client_through_a_real_nbdkit(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4 << 20))
    command = NbdkitCommand(filters=["blocksize-policy"], parameters=LIMITS)

    with open_disk(disk, writable=False, fence=None, check=no_check, command=command) as (
        opened,
        _,
    ):
        assert opened.max_request_bytes == 2 << 20
        assert opened.capacity_bytes == 4 << 20


def test_the_budget_of_a_host_comes_from_the_settings(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"libdir": "/opt/vddk", "thumbprint": ":".join(["AB"] * 20)}
    given = VddkSettings.model_validate({**keys, "host_bytes": 8 << 20, "host_disks": 4})

    site = given.of("vc", "user", tmp_path)

    assert site.limits == HostLimits(8 << 20, 4)
    assert VddkSettings.model_validate(keys).of("vc", "u", tmp_path).limits == HostLimits()
    for wrong in ({"host_bytes": 8 << 20}, {"host_bytes": 49 << 20}, {"host_disks": 0}):
        with pytest.raises(ValidationError):
            VddkSettings.model_validate({**keys, **wrong})
