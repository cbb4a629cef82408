"""Which disk this is, by its partition table: the one thing in a disk's bytes that names the disk.

A GPT carries a random GUID of the disk (UEFI specification, table of the GPT header), an MBR a
signature that Windows and Linux put there. A replica and its source have the same one, unless
somebody partitioned one of them anew or mapped the wrong pair.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from failback.disks.blockio import Answer, BlockIO
from failback.disks.requests import Requests

HEAD_BYTES = 8192
"""Enough for the header behind sectors of 512 and of 4096 bytes."""

STALL_TIMEOUT_S = 60.0
CHECK_INTERVAL_S = 1.0

_SECTORS = (512, 4096)


def label_of(head: bytes) -> str | None:
    """`GPT <guid>`, `MBR <signature>`, or None where the disk has no name of its own."""
    for sector in _SECTORS:
        header = head[sector : sector + 92]
        if len(header) == 92 and header.startswith(b"EFI PART"):
            return f"GPT {uuid.UUID(bytes_le=header[56:72])}"
    signature = head[440:444]
    if head[510:512] == b"\x55\xaa" and any(signature):
        return f"MBR {int.from_bytes(signature, 'little'):08x}"
    return None


def read_label(
    disk: BlockIO,
    capacity_bytes: int,
    check: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> str | None:
    """Read the disk's head and name it. Errors as for any read of a disk."""
    length = min(HEAD_BYTES, capacity_bytes // 512 * 512)
    if length < 1024:
        return None
    requests = Requests(
        disk,
        check=check,
        clock=clock,
        stall_timeout_s=STALL_TIMEOUT_S,
        check_interval_s=CHECK_INTERVAL_S,
    )
    head = bytearray(length)
    answers: list[Answer] = []
    requests.read(disk, 0, memoryview(head), answers.append)
    while not answers:
        requests.turn(CHECK_INTERVAL_S)
    return label_of(bytes(head))
