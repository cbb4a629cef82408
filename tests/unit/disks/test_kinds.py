"""A disk reached in every way that the settings can name."""

from __future__ import annotations

import random
import stat
from pathlib import Path
from typing import get_args

import pytest

from failback.disks.command.main import main
from failback.disks.fence import Fence
from failback.disks.kinds import PACES, DatastoreAccess, DiskKind, Pace, address_of
from failback.disks.vddk import LIMITS, VddkSite
from failback.errors import DiskHasParent, DiskUnavailable, SettingsInvalid
from tests.helpers.disks import MIB, alive, content, exporter_pid, no_check
from tests.helpers.tls import Authority
from tests.unit.disks.test_command import nbdkit
from tests.unit.disks.test_tls import nbdkit as nbdkit_over_tcp

FILE = "[ds 1] vm/x.vmdk"


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    folder = tmp_path / "ds" / "vm"
    folder.mkdir(parents=True)
    (folder / "x-flat.vmdk").write_bytes(content(random.Random(1), MIB))
    (folder / "x.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="vmfs"\nRW {MIB // 512} VMFS "x-flat.vmdk"\n'
    )
    return tmp_path / "ds"


def write_and_read(access: DatastoreAccess, fence: Fence, data: bytearray) -> bytes:
    more = {"vm": "vm-1", "snapshot": None, "check": no_check, "name": "disk", "lease_s": 10.0}
    with access.open(FILE, writable=True, fence=fence, **more) as (disk, renew):  # type: ignore[arg-type]
        assert alive(exporter_pid(fence)), "what writes is a process that can be killed"
        disk.submit_write(1, 0, memoryview(data))
        assert [answer.errno for answer in disk.poll(10)] == [0]
        disk.submit_flush(2)
        assert [answer.errno for answer in disk.poll(10)] == [0]
        renew()
    into = bytearray(len(data))
    with access.open(FILE, writable=False, fence=None, **more) as (disk, renew):  # type: ignore[arg-type]
        disk.submit_read(1, 0, memoryview(into))
        assert [answer.errno for answer in disk.poll(10)] == [0]
        renew()
    return bytes(into)


@pytest.mark.parametrize("kind", ["flat", "file"])
def test_disks_below_a_mounted_datastore(datastore: Path, tmp_path: Path, kind: str) -> None:
    access = DatastoreAccess({"ds 1": datastore}, kind=kind)  # type: ignore[arg-type]
    fence = Fence(tmp_path / "state", "disk")
    data = bytearray(b"new" * 1000)

    assert write_and_read(access, fence, data) == data
    assert fence.is_free()
    access.require(FILE)
    with pytest.raises(DiskUnavailable):
        access.require("[ds 1] vm/other.vmdk")
    (datastore / "vm" / "x.vmdk").write_text("KDMV\0")
    with pytest.raises(DiskHasParent):
        access.require(FILE)


def test_disks_of_an_nbd_server(datastore: Path, tmp_path: Path) -> None:
    with nbdkit(tmp_path, datastore / "vm" / "x-flat.vmdk") as address:
        template = address.replace("///", "///{datastore}/{path}")
        access = DatastoreAccess(kind="nbd", address=template)
        fence = Fence(tmp_path / "state", "disk")
        data = bytearray(b"new" * 1000)

        assert write_and_read(access, fence, data) == data
        assert fence.is_free()
        access.require(FILE)


def test_disks_of_an_nbd_server_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("ours", "mover.test"), authority.issue("theirs", "127.0.0.1")
    with nbdkit_over_tcp(tmp_path, theirs) as (host, port):
        template = f"nbds://{host}:{port}/{{path}}"
        access = DatastoreAccess(kind="nbd", address=template, tls_dir=ours.ca.parent)
        fence = Fence(tmp_path / "state", "disk")
        data = bytearray(b"new" * 1000)

        assert write_and_read(access, fence, data) == data
        status = main(
            [
                "compare",
                str(tmp_path / "disk.img"),
                f"nbds://{host}:{port}",
                "--tls",
                str(ours.ca.parent),
            ]
        )
        assert status == 0
        assert main(["compare", str(tmp_path / "disk.img"), f"nbds://{host}:{port}"]) == 2
        wrong = f"nbds://{host}:{port}/?tls-hostname=other.test"
        argv = ["compare", str(tmp_path / "disk.img"), wrong, "--tls", str(ours.ca.parent)]
        assert main(argv) == 3


def test_the_address_of_a_disk_names_it_as_vsphere_does() -> None:
    found = address_of("nbd://h/{datastore}/{path}", "[ds 1/2] a b/x?.vmdk")

    assert (found.host, found.export) == ("h", "ds 1/2/a b/x?.vmdk")
    with pytest.raises(SettingsInvalid):
        address_of("nbd://h/{path}", "x.vmdk")


def test_a_vddk_disk_is_served_by_the_plugin_with_the_library(tmp_path: Path) -> None:
    # A program that shows how it was called stands in for nbdkit.
    program = tmp_path / "nbdkit"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\nenv > {tmp_path}/env\n')
    program.chmod(stat.S_IRWXU)
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("s3cret")
    site = VddkSite(tmp_path, "esxi.example", "root", password, "aa:bb", program=str(program))
    access = DatastoreAccess(kind="vddk", vddk=site)

    with pytest.raises(SettingsInvalid, match="libvixDiskLib"):
        access.require(FILE)
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libvixDiskLib.so.8").touch()
    with pytest.raises(SettingsInvalid, match="cannot be loaded"):
        access.require(FILE)
    with (
        pytest.raises(DiskUnavailable),
        access.open(
            FILE,
            vm="vm-7",
            snapshot="snapshot-9",
            writable=False,
            fence=None,
            check=no_check,
            name="disk",
            lease_s=10,
        ),
    ):
        pass

    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[:4] == ["--single", "--readonly", "--filter=blocksize-policy", "vddk"]
    named = ["vm=moref=vm-7", "snapshot=snapshot-9", f"file={FILE}"]
    assert argv[-len(LIMITS) - 3 :] == [*named, *LIMITS]
    assert "s3cret" not in (tmp_path / "env").read_text() + "\n".join(argv)
    with pytest.raises(SettingsInvalid, match="no table vddk"):
        DatastoreAccess(kind="vddk").require(FILE)


def test_a_pair_of_disks_goes_at_the_pace_that_both_ways_bear() -> None:
    local, network, limited = (PACES[kind] for kind in ("file", "nbd", "vddk"))
    assert local.beside(network) == network.beside(local) == Pace(16, 1024 * 1024)
    assert local.beside(local) == local
    assert all(limited.beside(other).request_bytes <= 2 * 1024 * 1024 for other in PACES.values())
    assert set(PACES) == set(get_args(DiskKind))
