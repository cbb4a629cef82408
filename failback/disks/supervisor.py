"""The small process between a data mover and one disk's exporter.

Run by `argv()`; a few modules of the standard library only, so that it starts in two hundredths of
a second: eight disks have sixteen of it. It exists to make one sentence true: when the mover is
dead, frozen or has lost its lease, the exporter is dead, and the kernel can say so. Therefore it

- takes the disk's fence (an exclusive flock) itself and hands the same open file to the exporter:
  the lock is free only when both are gone, and never held by a mover, which may be frozen for ever;
- starts the exporter with PDEATHSIG = SIGKILL, so that killing the supervisor is enough (and the
  exporter's process id is on record beside the lock, should its kernel not allow that);
- kills the exporter when the mover's last sign of life is older than the lease, by the clock that
  also counts while the host sleeps, or when the mover's end of the control socket is closed.

Protocol, one message per packet of a SOCK_SEQPACKET pair: the mover sends one order, then 8-byte
stamps of CLOCK_BOOTTIME as signs of life. The supervisor answers with events: started {exporter},
busy {}, ended {reason, stderr}. Orders and events are dictionaries as `marshal` packs them: both
ends are the same interpreter, and the module is there without being loaded.
"""

from __future__ import annotations

import ctypes
import fcntl
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STAMP = struct.Struct("=d")
MAX_PACKET_BYTES = 64 * 1024
MAX_STDERR_BYTES = 4096
ORDER_TIMEOUT_MS = 30_000
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
PRCTL_OF_MACHINE = {"x86_64": (0xC000003E, 157), "aarch64": (0xC00000B7, 167)}
"""For seccomp: the machine's audit number and its number of the system call prctl."""
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
    """Say who holds the lock, so that a later attempt can end them; `owner` is JSON already."""
    me = os.getpid()
    its = "null" if exporter is None else f"[{exporter}, {start_time(exporter) or 'null'}]"
    # By hand: the module json takes longer to load than all else here.
    holder = (
        f'{{"boot_id": "{boot_id()}", "owner": {owner},'
        f' "supervisor": [{me}, {start_time(me)}], "exporter": {its}}}'
    )
    new = f"{path}.{me}"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(holder)
    os.replace(new, path)


def die_with_parent() -> None:
    """SIGKILL for this process, and whatever program it becomes, when its parent ends.

    nbdkit sets the signal to SIGTERM when it starts (1.32 does so whatever its options), and
    survives that for as long as a client is connected. So a filter makes the kernel answer "done"
    to that one call without doing it."""
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    machine = PRCTL_OF_MACHINE.get(os.uname().machine)
    if machine is None:
        return
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    allow, done = 0x7FFF0000, 0x00050000
    lines = (
        (load, 0, 0, 4),  # the machine this call is made for
        (jump_if_equal, 0, 5, machine[0]),
        (load, 0, 0, 0),  # the number of the call
        (jump_if_equal, 0, 3, machine[1]),
        (load, 0, 0, 16),  # its first argument
        (jump_if_equal, 0, 1, PR_SET_PDEATHSIG),
        (answer, 0, 0, done),
        (answer, 0, 0, allow),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(code)))
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(program), 0, 0)


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
        order: dict[str, Any] = marshal.loads(packet)
        self.seen_at = order["stamp"]
        return order

    def start(self, argv: list[str], env: dict[str, str]) -> None:
        """Start the exporter; on return it dies with this process."""
        self.stderr_fd, their_stderr = os.pipe2(os.O_CLOEXEC)
        running, their_running = os.pipe2(os.O_CLOEXEC)
        me = os.getpid()
        self.exporter = os.fork()
        if self.exporter == 0:
            try:
                self.become(argv, env, me, their_stderr)
            except BaseException as error:
                os.write(2, f"{argv[0]}: {error}".encode())
            finally:
                os._exit(127)
        os.close(their_stderr)
        os.close(their_running)
        # Only the exporter keeps the connection, so its death is the connection's end.
        os.close(self.disk_fd)
        # Ends when the exporter's program runs: only then is PDEATHSIG in force for sure.
        os.read(running, 1)
        os.close(running)

    def become(self, argv: list[str], env: dict[str, str], parent: int, stderr: int) -> None:
        """In the child: turn into the exporter."""
        # It belongs to the thread that forked; this process has only one.
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)  # the parent died before that took effect
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for mine, its in ((stderr, 2), (self.disk_fd, 0), (self.disk_fd, 1)):
            os.dup2(mine, its)
        if self.lock is not None:
            os.set_inheritable(self.lock, True)
        os.execvpe(argv[0], argv, env)

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
        try:  # noqa: SIM105 - contextlib takes too long to load
            self.control.send(marshal.dumps(event), socket.MSG_DONTWAIT)
        except (ConnectionError, BlockingIOError):
            pass


def argv(control_fd: int, disk_fd: int) -> list[str]:
    """How to run this module. Imported and not given as a script: so it is compiled only once."""
    order = "import sys; sys.path.append(sys.argv[1]); import supervisor; supervisor.main()"
    folder = os.path.dirname(os.path.abspath(__file__))
    return [sys.executable, "-I", "-S", "-c", order, folder, str(control_fd), str(disk_fd)]


def select_in(fd: int, timeout_ms: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_ms))


def main() -> None:
    # A service manager signals every process it finds; the mover must get its time to flush first.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(control.fileno(), False)
    Supervisor(control, int(sys.argv[3])).run()
