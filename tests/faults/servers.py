"""Exporters that misbehave: nbdkit's filters, and scripts where there is no filter for it."""

from __future__ import annotations

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


def pausing(control: Path) -> NbdkitCommand:
    """Hangs as long as it is told to."""
    return NbdkitCommand(filters=["pause"], parameters=[f"pause-control={control}"])


def pause(control: Path) -> None:
    """Returns when no request is answered any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(control))
        sock.sendall(b"p")
        assert sock.recv(1) == b"P"


def logging(log: Path, *filters: str, parameters: tuple[str, ...] = ()) -> NbdkitCommand:
    """Writes down what it is asked."""
    return NbdkitCommand(filters=["log", *filters], parameters=[f"logfile={log}", *parameters])


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
