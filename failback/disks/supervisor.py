"""The small process between a data mover and one disk's exporter.

Run as `python -I -S supervisor.py CONTROL_FD DISK_FD`; standard library only, so that it starts in
a few hundredths of a second. It exists to make one sentence true: when the mover is dead, frozen or
has lost its lease, the exporter is dead, and the kernel can say so. Therefore it

- takes the disk's fence (an exclusive flock) itself and hands the same open file to the exporter:
  the lock is free only when both are gone, and never held by a mover, which may be frozen for ever;
- starts the exporter with PDEATHSIG = SIGKILL, so that killing the supervisor is enough;
- kills the exporter when the mover's last sign of life is older than the lease, by the clock that
  also counts while the host sleeps, or when the mover's end of the control socket is closed.

Protocol, one message per packet of a SOCK_SEQPACKET pair: the mover sends one JSON order (see
`Order`), then 8-byte stamps of CLOCK_BOOTTIME as signs of life. The supervisor answers with JSON
events: started {exporter}, busy {}, ended {reason, stderr}.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

STAMP = struct.Struct("=d")
MAX_PACKET_BYTES = 64 * 1024
MAX_STDERR_BYTES = 4096
ORDER_TIMEOUT_MS = 30_000
PR_SET_PDEATHSIG = 1
STDERR_AFTER_DEATH_S = 0.2


def boottime() -> float:
    """Seconds since boot, sleep included; the same clock for mover and supervisor."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None if there is none (a zombie is none).

    Together with the boot id this names a process for good: a pid alone is used again."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command may contain anything, so count from its closing parenthesis.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def take_lock(path: str) -> int | None:
    """An open file that holds the lock, for this process and those that inherit it; None if held.

    The file is never removed: a lock on a removed file would exclude nobody."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def write_holder(path: str, owner: str, exporter: int | None) -> None:
    """Say who holds the lock, so that a later attempt can end them."""
    me = os.getpid()
    holder = {
        "boot_id": boot_id(),
        "owner": owner,
        "supervisor": [me, start_time(me)],
        "exporter": None if exporter is None else [exporter, start_time(exporter)],
    }
    new = f"{path}.{me}"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(holder, file)
    os.replace(new, path)


class Supervisor:
    """One exporter's life."""

    def __init__(self, control: socket.socket, disk_fd: int) -> None:
        self.control = control
        self.disk_fd = disk_fd
        self.lock: int | None = None
        self.stderr = bytearray()
        self.stderr_fd = -1
        self.exporter = -1
        self.seen_at = boottime()

    def run(self) -> None:
        order = self.read_order()
        if order is None:
            return
        fence = order["fence"]
        if fence is not None:
            self.lock = take_lock(fence["lock"])
            if self.lock is None:
                self.tell({"event": "busy"})
                return
            # Before the exporter exists: from its first instant there is someone to kill.
            write_holder(fence["holder"], fence["owner"], None)
        self.start(order["argv"], order["env"])
        if fence is not None:
            write_holder(fence["holder"], fence["owner"], self.exporter)
        self.tell({"event": "started", "exporter": self.exporter})
        reason = self.watch(order["lease_s"])
        self.end(reason)

    def read_order(self) -> dict[str, Any] | None:
        if not select_in(self.control.fileno(), ORDER_TIMEOUT_MS):
            return None
        packet = self.control.recv(MAX_PACKET_BYTES)
        if not packet:
            return None
        order: dict[str, Any] = json.loads(packet)
        self.seen_at = order["stamp"]
        return order

    def start(self, argv: list[str], env: dict[str, str]) -> None:
        self.stderr_fd, their_stderr = os.pipe2(os.O_CLOEXEC)
        me = os.getpid()
        self.exporter = os.fork()
        if self.exporter == 0:
            try:
                # PDEATHSIG means the thread that forked; this process has only one.
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != me:
                    os._exit(1)  # the parent died before the line above took effect
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                os.dup2(their_stderr, 2)
                os.dup2(self.disk_fd, 0)
                os.dup2(self.disk_fd, 1)
                if self.lock is not None:
                    os.set_inheritable(self.lock, True)
                os.execvpe(argv[0], argv, env)
            except BaseException as error:
                os.write(2, f"{argv[0]}: {error}".encode())
            finally:
                os._exit(127)
        os.close(their_stderr)
        # Only the exporter keeps the connection, so its death is the connection's end.
        os.close(self.disk_fd)

    def watch(self, lease_s: float) -> str:
        """Until the mover or the exporter is gone, or the lease lapsed; returns which."""
        death = os.pidfd_open(self.exporter)
        poller = select.poll()
        for fd in (self.control.fileno(), self.stderr_fd, death):
            poller.register(fd, select.POLLIN)
        while True:
            left_s = self.seen_at + lease_s - boottime()
            if left_s <= 0:
                return "lapsed"
            # poll() sleeps by a clock that stands still with the host, so look again often.
            ready = {fd for fd, _ in poller.poll(min(left_s, lease_s / 4, 1.0) * 1000)}
            if self.control.fileno() in ready and not self.hear():
                return "released"
            if self.stderr_fd in ready and not self.read_stderr():
                poller.unregister(self.stderr_fd)
            if death in ready:
                return "exited"

    def hear(self) -> bool:
        try:
            packet = self.control.recv(MAX_PACKET_BYTES)
        except ConnectionError:
            return False
        if len(packet) == STAMP.size:
            # The stamp, not the time of reading: a mover may have been frozen since it was sent.
            self.seen_at = max(self.seen_at, min(STAMP.unpack(packet)[0], boottime()))
        return bool(packet)

    def read_stderr(self) -> bool:
        data = os.read(self.stderr_fd, MAX_STDERR_BYTES)
        self.stderr = (self.stderr + data)[-MAX_STDERR_BYTES:]
        return bool(data)

    def end(self, reason: str) -> None:
        os.kill(self.exporter, signal.SIGKILL)
        _, status = os.waitpid(self.exporter, 0)
        # Its own children may keep the pipe open, so not until the end of file.
        while select_in(self.stderr_fd, int(STDERR_AFTER_DEATH_S * 1000)) and self.read_stderr():
            pass
        self.tell(
            {
                "event": "ended",
                "reason": reason,
                "status": os.waitstatus_to_exitcode(status),
                "stderr": self.stderr.decode("utf-8", "replace"),
            }
        )

    def tell(self, event: dict[str, Any]) -> None:
        # A mover that is gone needs no news, and a full socket belongs to one that does not read.
        with contextlib.suppress(ConnectionError, BlockingIOError):
            self.control.send(json.dumps(event).encode(), socket.MSG_DONTWAIT)


def select_in(fd: int, timeout_ms: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_ms))


def main() -> None:
    # A service manager signals every process it finds; the mover must get its time to flush first.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    Supervisor(control, int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
