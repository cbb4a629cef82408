"""The process that writes a local file for a mover, so that it can be killed without the mover.

A mover that is frozen between its last check and a write would write when it wakes, however late,
and nothing inside its own process can prevent that. So a mover only reads a local disk itself;
what changes the disk goes to this process, which a supervisor starts and kills like any exporter.

It speaks as much NBD as our own client needs, over the socket that is its standard input: writing,
zeroing, flushing. Requests are performed by the threads of FileDisk, so a flush holds up no write.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from failback.disks import nbd_wire as wire
from failback.disks.claim import claim
from failback.disks.file import MAX_REQUEST_BYTES, FileDisk
from failback.errors import FailbackError

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from failback.disks.writer import main; main()"
)
_WAIT_S = 3600.0


@dataclass(frozen=True)
class WriterCommand:
    """How this process is called; takes the place of an exporter's command."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, path: Path, *, writable: bool) -> list[str]:
        if not writable:
            raise ValueError("a local disk is read by the mover itself")
        # By path, not as a module: the environment does not say where our package is.
        root = str(Path(__file__).parents[2])
        return [sys.executable, "-I", "-S", "-c", _BOOT, root, str(path.absolute())]


class Writer:
    """Serves one connection until it ends."""

    def __init__(self, sock: socket.socket, disk: FileDisk) -> None:
        self._sock, self._disk = sock, disk
        self._buffers: dict[int, bytearray] = {}
        """Of writes under way, by handle."""
        self._free: list[bytearray] = []

    def run(self) -> None:
        if not self._greet():
            return
        threading.Thread(target=self._answer, daemon=True).start()
        while (header := self._receive(wire.REQUEST.size)) is not None:
            magic, _, command, handle, offset, length = wire.REQUEST.unpack(header)
            if magic != wire.REQUEST_MAGIC or command == wire.CMD_DISC:
                return
            if not self._perform(command, handle, offset, length):
                return

    def _greet(self) -> bool:
        """The handshake; False if the client went away or asked for something else."""
        offered = wire.SERVER_FIXED_NEWSTYLE | wire.SERVER_NO_ZEROES
        greeting = wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT)
        self._sock.sendall(greeting + offered.to_bytes(2, "big"))
        if self._receive(4) is None:
            return False
        while (header := self._receive(16)) is not None:
            option = int.from_bytes(header[8:12], "big")
            if self._receive(int.from_bytes(header[12:], "big")) is None:
                return False
            if option == wire.OPT_GO:
                flags = wire.FLAG_HAS_FLAGS | wire.FLAG_SEND_FLUSH | wire.FLAG_SEND_WRITE_ZEROES
                export = wire.EXPORT.pack(self._disk.capacity_bytes, flags)
                self._tell(option, wire.REP_INFO, wire.INFO_EXPORT.to_bytes(2, "big") + export)
                self._tell(option, wire.REP_ACK)
                return True
            self._tell(option, wire.REP_ERR_UNSUP)
        return False

    def _tell(self, option: int, kind: int, data: bytes = b"") -> None:
        header = wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data))
        self._sock.sendall(header + data)

    def _perform(self, command: int, handle: int, offset: int, length: int) -> bool:
        """Hand one request to the disk; False if the connection ended in its middle."""
        if command == wire.CMD_WRITE and 0 < length <= MAX_REQUEST_BYTES:
            buffer = self._buffer(length)
            view = memoryview(buffer)[:length]
            if not self._fill(view):
                return False
            self._buffers[handle] = buffer
            self._disk.submit_write(handle, offset, view)
        elif command == wire.CMD_WRITE_ZEROES:
            self._disk.submit_zero(handle, offset, length)
        elif command == wire.CMD_FLUSH:
            self._disk.submit_flush(handle)
        else:
            return False
        return True

    def _answer(self) -> None:
        """In a thread of its own: a reply for each request that the disk has done."""
        try:
            while True:
                for answer in self._disk.poll(_WAIT_S):
                    buffer = self._buffers.pop(answer.tag, None)
                    if buffer is not None:
                        self._free.append(buffer)
                    self._sock.sendall(
                        wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, answer.errno, answer.tag)
                    )
        except (OSError, FailbackError) as error:
            leave(str(error))

    def _buffer(self, length: int) -> bytearray:
        while self._free:
            buffer = self._free.pop()
            if len(buffer) >= length:
                return buffer
        return bytearray(length)

    def _receive(self, length: int) -> bytes | None:
        data = bytearray(length)
        return bytes(data) if self._fill(memoryview(data)) else None

    def _fill(self, view: memoryview) -> bool:
        while view:
            count = self._sock.recv_into(view)
            if count == 0:
                return False
            view = view[count:]
        return True


def leave(said: str = "") -> NoReturn:
    """End at once, with all threads: nothing that was not answered has to be finished."""
    os.write(2, said.encode("utf-8", "replace"))
    os._exit(1 if said else 0)


def main() -> None:
    path = Path(sys.argv[2])
    try:
        # Held until this process ends: nobody else who asks writes the file meanwhile.
        claim(path, str(path), writable=True)
        disk = FileDisk(path, writable=True)
        Writer(socket.socket(fileno=os.dup(0)), disk).run()
    except (OSError, ValueError, FailbackError) as error:
        leave(str(error))
    leave()
