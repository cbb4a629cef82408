from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

import pytest

from failback.disks.faults import Op, disk_error, worth_retrying
from failback.disks.fence import Fence
from failback.disks.flat import resolve_flat
from failback.disks.kinds import DatastoreAccess
from failback.disks.mounts import LOCK, MARK, require_writable, unreachable
from failback.errors import (
    DiskFlushFailed,
    DiskHasParent,
    DiskReadOnly,
    DiskSizeMismatch,
    DiskUnavailable,
    FailbackError,
    SettingsInvalid,
)
from tests.helpers.disks import no_check

EXTENT = 'RW 16 VMFS "x-flat.vmdk"'


def descriptor(
    *extents: str, parent: str = "ffffffff", create_type: str = "vmfs", more: str = ""
) -> str:
    lines = "\n".join(extents or (EXTENT,))
    return f"""# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID={parent}
createType="{create_type}"
{more}

# Extent description
{lines}

# The Disk Data Base
#DDB
ddb.adapterType = "lsilogic"
ddb.thinProvisioned = "1"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ds" / "vm"
    folder.mkdir(parents=True)
    (folder / "x.vmdk").write_text(descriptor())
    (folder / "x-flat.vmdk").write_bytes(bytes(8192))
    return tmp_path / "ds"


def resolve(root: Path, file: str = "[ds 1] vm/x.vmdk", *, complete: bool = False) -> Path:
    return resolve_flat({"ds 1": root}, file, chain_members_complete=complete)


@pytest.mark.parametrize(
    "extent",
    [EXTENT, EXTENT + " 0", 'RW 16 FLAT "x-flat.vmdk" 0', 'RDONLY  16\tVMFS  "x-flat.vmdk"'],
)
def test_a_monolithic_flat_disk_is_found(root: Path, extent: str) -> None:
    (root / "vm/x.vmdk").write_text(descriptor(extent))
    assert resolve(root) == root / "vm/x-flat.vmdk"


def test_a_descriptor_with_foreign_line_ends_and_spaces_is_understood(root: Path) -> None:
    text = descriptor(parent="FFFFFFFF").replace("=", " = ").replace("\n", "\r\n")
    (root / "vm/x.vmdk").write_bytes(text.encode())
    assert resolve(root).name == "x-flat.vmdk"


@pytest.mark.parametrize(
    "text",
    [
        descriptor('RW 16 VMFSSPARSE "x-flat.vmdk"', create_type="vmfsSparse"),
        descriptor('RW 16 SESPARSE "x-flat.vmdk"', create_type="seSparse"),
        descriptor('RW 16 SPARSE "x-flat.vmdk"', create_type="monolithicSparse"),
        descriptor('RW 16 VMFSRDM "x-flat.vmdk"', create_type="vmfsRawDeviceMap"),
        descriptor("RW 16 ZERO"),
        descriptor("RW 16 VMFS"),
        descriptor('NOACCESS 16 VMFS "x-flat.vmdk"'),
        descriptor('RW 16 FLAT "x-flat.vmdk" 8'),
        descriptor(EXTENT, EXTENT, create_type="twoGbMaxExtentFlat"),
        descriptor("RW sixteen VMFS"),
        "# Disk DescriptorFile\n",
        "KDMV" + "\0" * 600,
        "RW 16 VMFS",
        "#" + "x" * 70_000,
    ],
)
@pytest.mark.parametrize("complete", [False, True])
def test_what_is_not_one_flat_file_is_refused(root: Path, text: str, complete: bool) -> None:
    (root / "vm/x.vmdk").write_text(text)
    with pytest.raises(DiskHasParent, match=r"\[ds 1\] vm/x\.vmdk"):
        resolve(root, complete=complete)


def test_a_link_of_a_chain_is_refused_unless_the_site_writes_complete_images(root: Path) -> None:
    hint = 'parentFileNameHint="base.vmdk"'
    (root / "vm/x.vmdk").write_text(descriptor(parent="0123abcd", more=hint))

    with pytest.raises(DiskHasParent, match="0123abcd"):
        resolve(root)

    assert resolve(root, complete=True) == root / "vm/x-flat.vmdk"


@pytest.mark.parametrize(
    "file",
    [
        "[ds 1] ../x.vmdk",
        "[ds 1] vm/../../ds/vm/x.vmdk",
        "[ds 1] /etc/passwd",
        "[ds 1] vm/outside.vmdk",
        "[ds 1] outside/x.vmdk",
        "[ds 2] vm/x.vmdk",
        "[] vm/x.vmdk",
        "vm/x.vmdk",
        "",
    ],
)
def test_names_that_lead_elsewhere_are_refused(root: Path, tmp_path: Path, file: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.vmdk").write_text(descriptor())
    (elsewhere / "x-flat.vmdk").write_bytes(bytes(8192))
    (root / "outside").symlink_to(elsewhere)
    (root / "vm/outside.vmdk").symlink_to(elsewhere / "x.vmdk")

    with pytest.raises(SettingsInvalid) as caught:
        resolve(root, file)

    assert caught.value.remedy


@pytest.mark.parametrize("name", ["../vm/x-flat.vmdk", "/etc/passwd", "sub/x-flat.vmdk", ".."])
def test_an_extent_outside_the_descriptor_s_folder_is_refused(root: Path, name: str) -> None:
    (root / "vm/x.vmdk").write_text(descriptor(f'RW 16 VMFS "{name}"'))
    with pytest.raises(SettingsInvalid, match="leads out"):
        resolve(root)


def test_a_flat_file_that_is_a_link_out_of_the_datastore_is_refused(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(8192))
    (root / "vm/x-flat.vmdk").unlink()
    (root / "vm/x-flat.vmdk").symlink_to(tmp_path / "secret")
    with pytest.raises(SettingsInvalid, match="leads out"):
        resolve(root)


def test_links_inside_the_datastore_are_followed(root: Path) -> None:
    (root / "alias").symlink_to("vm")
    assert resolve(root, "[ds 1] alias/x.vmdk") == root / "vm/x-flat.vmdk"


@pytest.mark.parametrize("size", [0, 8191, 8193])
def test_a_flat_file_of_another_size_is_refused(root: Path, size: int) -> None:
    (root / "vm/x-flat.vmdk").write_bytes(bytes(size))
    with pytest.raises(DiskSizeMismatch) as caught:
        resolve(root)
    assert caught.value.evidence == {"actual": size, "planned": 8192}


@pytest.mark.parametrize("gone", ["vm/x.vmdk", "vm/x-flat.vmdk"])
def test_a_missing_file_may_come_back(root: Path, gone: str) -> None:
    (root / gone).unlink()
    with pytest.raises(DiskUnavailable, match="cannot be found") as caught:
        resolve(root)
    assert isinstance(caught.value, FailbackError)
    assert caught.value.retryable


def test_a_datastore_that_is_not_mounted_is_told(tmp_path: Path) -> None:
    (tmp_path / "ds").mkdir()
    with pytest.raises(DiskUnavailable, match="not mounted") as caught:
        resolve(tmp_path / "ds")
    assert caught.value.retryable
    with pytest.raises(DiskUnavailable, match="ENOENT"):
        resolve(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DiskUnavailable, match="ENOTDIR"):
        resolve(tmp_path / "file")


def test_the_folder_of_another_datastore_is_refused_where_it_is_marked(root: Path) -> None:
    (root / MARK).write_text("ds 1\n")
    assert resolve(root).name == "x-flat.vmdk"
    (root / MARK).write_text("ds 2\n")
    with pytest.raises(SettingsInvalid, match="that of datastore 'ds 2', not of 'ds 1'"):
        resolve(root)


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_disk_that_a_host_has_locked_is_read_and_not_written(
    root: Path, order: Literal["little", "big"]
) -> None:
    flat = resolve(root)
    number = flat.stat().st_ino
    (root / "vm" / f"{LOCK}{(number + 1).to_bytes(8, order).hex()}").touch()
    require_writable(flat, "[ds 1] vm/x.vmdk")
    lock = root / "vm" / f"{LOCK}{number.to_bytes(8, order).hex()}"
    lock.touch()

    with pytest.raises(DiskUnavailable, match="locked by an ESXi host") as caught:
        require_writable(flat, "[ds 1] vm/x.vmdk")
    assert caught.value.retryable
    assert lock.name in caught.value.what
    access = DatastoreAccess({"ds 1": root})
    access.require("[ds 1] vm/x.vmdk")
    more = {"vm": "vm-1", "snapshot": None, "check": no_check, "name": "disk", "lease_s": 10.0}
    fence = Fence(root.parent / "state", "disk")
    with (
        pytest.raises(DiskUnavailable, match="locked"),
        access.open("[ds 1] vm/x.vmdk", writable=True, fence=fence, **more),  # type: ignore[arg-type]
    ):
        pass


def test_a_datastore_mounted_for_reading_only_is_not_written(root: Path) -> None:
    def read_only(path: Path) -> os.statvfs_result:
        values = list(os.statvfs(path))
        values[8] |= os.ST_RDONLY
        return os.statvfs_result(values)

    with pytest.raises(DiskReadOnly, match="for reading only"):
        require_writable(resolve(root), "[ds 1] vm/x.vmdk", statvfs=read_only)
    require_writable(resolve(root), "[ds 1] vm/x.vmdk")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ESTALE, "mount it again"),
        (errno.EACCES, "root squash"),
        (errno.EIO, "Check the NFS server"),
        (errno.ENOENT, "mounted where the settings say"),
    ],
)
def test_what_a_mount_answers_has_a_remedy_of_its_own(code: int, remedy: str) -> None:
    error = unreachable(OSError(code, "said so"), "x.vmdk")
    assert remedy in error.remedy
    assert errno.errorcode[code] in error.what
    assert error.retryable


def test_a_stale_file_is_no_bad_sector() -> None:
    error = disk_error(Op.READ, errno.ESTALE, "the disk", 4096, 512)
    assert isinstance(error, DiskUnavailable)
    assert "Mount its datastore again" in error.remedy
    assert not worth_retrying(Op.READ, errno.ESTALE)
    assert isinstance(disk_error(Op.FLUSH, errno.ESTALE, "the disk", 0, 0), DiskFlushFailed)


def test_a_folder_is_no_disk(root: Path) -> None:
    with pytest.raises(DiskUnavailable, match="not a regular file"):
        resolve(root, "[ds 1] vm")
