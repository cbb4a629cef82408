"""The name a disk carries in its partition table."""

from __future__ import annotations

import uuid

import pytest

from failback.disks.faults import Op
from failback.disks.label import label_of, read_label
from failback.disks.testing import Fault, MemoryDisk, MemoryVolume
from failback.errors import DiskReadFailed

GUID = uuid.UUID("12345678-9abc-4def-8123-456789abcdef")


def gpt(sector: int = 512, guid: uuid.UUID = GUID) -> bytes:
    """The first 8 KiB of a disk with a GPT: protective MBR, then the header."""
    head = bytearray(8192)
    head[510:512] = b"\x55\xaa"
    head[450] = 0xEE
    head[sector : sector + 8] = b"EFI PART"
    head[sector + 56 : sector + 72] = guid.bytes_le
    return bytes(head)


def mbr(signature: int) -> bytes:
    head = bytearray(8192)
    head[440:444] = signature.to_bytes(4, "little")
    head[510:512] = b"\x55\xaa"
    return bytes(head)


@pytest.mark.parametrize(
    ("head", "label"),
    [
        (gpt(), f"GPT {GUID}"),
        (gpt(sector=4096), f"GPT {GUID}"),
        (mbr(0x1234ABCD), "MBR 1234abcd"),
        (mbr(0), None),
        (bytes(8192), None),
        (gpt()[:1024], f"GPT {GUID}"),
        (gpt()[:512], None),
        (b"", None),
    ],
)
def test_labels(head: bytes, label: str | None) -> None:
    assert label_of(head) == label


@pytest.mark.parametrize("size", [8192, 1 << 20, 1536])
def test_it_is_read_through_the_data_path(size: int) -> None:
    disk = MemoryDisk(MemoryVolume((gpt() + bytes(size))[:size]))
    assert read_label(disk, size, check=lambda: None) == f"GPT {GUID}"


def test_a_disk_too_small_for_a_table_is_not_read() -> None:
    assert read_label(MemoryDisk(MemoryVolume(bytes(512))), 512, check=lambda: None) is None


def test_a_failed_read_is_no_missing_label() -> None:
    disk = MemoryDisk(MemoryVolume(gpt()), faults=[Fault(Op.READ, times=9)])
    with pytest.raises(DiskReadFailed):
        read_label(disk, 8192, check=lambda: None)
