"""Exporters that misbehave: nbdkit's filters, and scripts where there is no filter for it."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path

from failback.disks.exporter import NbdkitCommand
from failback.disks.plan import Extent
from tests.helpers.disks import MIB

REGION = Extent(2 * MIB, 64 * 1024)
"""What is broken where only a part is."""


def errors(code: str, op: str = "pwrite") -> NbdkitCommand:
    """Every request of that kind fails."""
    return NbdkitCommand(
        filters=["nozero", "error"], parameters=[f"error-{op}={code}", f"error-{op}-rate=100%"]
    )


PROTECTED = NbdkitCommand(
    filters=["nozero", "protect"], parameters=[f"protect={REGION.offset}-{REGION.end - 1}"]
)

SLOW = NbdkitCommand(filters=["delay"], parameters=["rdelay=20ms", "wdelay=20ms"])


def bad_sectors(folder: Path, size: int) -> NbdkitCommand:
    """A region that cannot be read, as ddrescue noted it."""
    notes = folder / "ddrescue.map"
    notes.write_text(
        "0x00000000 + 1\n"
        f"0x00000000 {REGION.offset:#x} +\n"
        f"{REGION.offset:#x} {REGION.length:#x} -\n"
        f"{REGION.end:#x} {size - REGION.end:#x} +\n"
    )
    return NbdkitCommand(filters=["ddrescue"], parameters=[f"ddrescue-mapfile={notes}"])


def pausing(folder: Path) -> NbdkitCommand:
    """Hangs from `pause(folder)` on."""
    return logged(folder, "pause", parameters=(f"pause-control={folder / 'control'}",))


def pause(folder: Path) -> None:
    """Returns when no request is answered any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(folder / "control"))
        sock.sendall(b"p")
        assert sock.recv(1) == b"P"


def logged(folder: Path, *filters: str, parameters: tuple[str, ...] = ()) -> NbdkitCommand:
    """Writes down what it is asked, and beside which requests it has answered."""
    log = f"logfile={folder / 'requests'}"
    return NbdkitCommand(filters=["log", *filters], parameters=[log, *parameters])


def answers(folder: Path, op: str = r"\w+") -> list[str]:
    """What it answered, as far as it came to that."""
    log = folder / "requests"
    return re.findall(rf"\.\.\.{op} id=\d+ .*", log.read_text()) if log.exists() else []


def unanswered(folder: Path, op: str = r"\w+") -> int:
    """Requests of that kind under way."""
    log = folder / "requests"
    asked = re.findall(rf"\s{op} id=\d+ ", log.read_text()) if log.exists() else []
    return len(asked) - len(answers(folder, op))


def script(path: Path, lines: str) -> NbdkitCommand:
    """A program in the place of nbdkit."""
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o700)
    return NbdkitCommand(program=str(path))


def evaluated(path: Path, disk: Path, **callbacks: str) -> NbdkitCommand:
    """nbdkit's eval plugin over a file, with some of its operations replaced."""
    file = shlex.quote(str(disk))
    operations = {
        "get_size": f"stat -c %s {file}",
        "pread": f"dd if={file} iflag=skip_bytes,count_bytes,fullblock skip=$4 count=$3"
        " status=none",
        "pwrite": f"dd of={file} oflag=seek_bytes conv=notrunc seek=$4 status=none",
        "can_write": "exit 0",
        "can_flush": "exit 0",
        "flush": "exit 0",
    }
    for name, lines in callbacks.items():
        # A callback ends the request by itself, or lets it go on as usual.
        operations[name] = f"{lines}\n{operations[name]}"
    arguments = " ".join(shlex.quote(f"{key}={value}") for key, value in operations.items())
    return script(path, f"exec nbdkit --single eval {arguments}")


IN_REGION = (
    f"if [ $4 -lt {REGION.end} ] && [ $(($4 + $3)) -gt {REGION.offset} ];"
    " then echo EIO bad sector >&2; exit 1; fi"
)
