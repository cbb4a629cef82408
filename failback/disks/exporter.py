"""One exporter process for one disk and one attempt, seen from the mover.

The exporter (nbdkit) serves a single connection over a socket pair that it inherits. There is no
listening socket: nobody else can connect, no path can be too long or left behind, and a mover that
wakes up late finds its one connection dead.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from failback.disks import supervisor
from failback.disks.blockio import Check, Clock, Sleep
from failback.disks.fence import POLL_S, Fence, alive, prove_dead
from failback.errors import DiskUnavailable, FailbackError, LeaseLost

SOCKET_BYTES = 2 * 1024 * 1024
"""How far an exporter may run ahead of the mover; each refill of a full socket costs two wake-ups.
The kernel may grant less."""

THREADS = 8
"""Of an exporter: enough to wait for several reads at once. Each has its own buffer, and the fewer
there are the more of them stay in the processor's caches."""

_SO_SNDBUFFORCE = 32
"""SO_SNDBUF beyond what unprivileged processes may ask for (asm-generic/socket.h)."""

RENEW_S = 1.0
"""No need to say more often that one lives, and to look whether the exporter does."""

_KEPT_ENVIRONMENT = ("PATH", "TMPDIR", "LANG", "LC_ALL")


class Command(Protocol):
    """A program that serves one disk by NBD over its standard input, for one connection."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables beside the few that every exporter gets."""
        ...

    def argv(self, path: Path, *, writable: bool) -> list[str]:
        """Seen by everybody on the host, so no secrets."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A command that knows what its program's last words mean."""

    def explain(self, said: str, name: str) -> FailbackError | None:
        """The error that a stderr means for the disk of this name; None for DiskUnavailable."""
        ...

    def without_secrets(self, said: str) -> str:
        """The stderr without what nobody may read."""
        ...


@dataclass(frozen=True)
class NbdkitCommand:
    """How nbdkit is called: `nbdkit -s [-r] [--filter=F ...] file file=PATH [parameter ...]`."""

    program: str = "nbdkit"
    filters: Sequence[str] = ()
    parameters: Sequence[str] = ()
    """`name=value`, for the plugin or a filter; seen by everybody on the host, so no secrets."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, path: Path, *, writable: bool) -> list[str]:
        return [
            self.program,
            "--single",
            f"--threads={THREADS}",
            *([] if writable else ["--readonly"]),
            *(f"--filter={name}" for name in self.filters),
            "file",
            f"file={path.absolute()}",
            *self.parameters,
        ]


class Exporter:
    """A running exporter. Make one with `start_exporter`.

    The mover calls `renew` from its own loop, never from a thread that would also run when the
    loop hangs: whoever does not renew for `lease_s` loses the exporter.
    """

    def __init__(self, name: str, lease_s: float, explains: Explains | None = None) -> None:
        self.name = name
        self._explains = explains
        self.disk, its_disk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        """The connection to the exporter; whoever uses it closes it."""
        for end in (self.disk, its_disk):
            _enlarge(end)
        self.exporter_pid: int | None = None
        self.serving = False
        """Set once the disk is open: what the program said before is then no reason any more."""
        self._lease_s = lease_s
        self._renewed_at = supervisor.boottime()
        self._ended: dict[str, Any] | None = None
        self._control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with its_control, its_disk:
                fds = (its_control.fileno(), its_disk.fileno())
                self._process = subprocess.Popen(
                    supervisor.argv(*fds),
                    pass_fds=fds,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                )
        except OSError as error:
            self._control.close()
            self.disk.close()
            raise DiskUnavailable(
                f"The supervisor of {name} cannot be started ({error}).",
                "Check limits of processes and memory on the data mover's host.",
            ) from error

    @property
    def supervisor_pid(self) -> int:
        return self._process.pid

    def renew(self) -> None:
        """Say that the mover is alive and still in charge; never blocks, cheap to call often.

        Raises LeaseLost if the lease has lapsed, DiskUnavailable if the exporter has ended."""
        now = supervisor.boottime()
        if now - self._renewed_at > self._lease_s:
            raise self._lapsed()
        if now - self._renewed_at < min(self._lease_s / 20, RENEW_S):
            return
        if self._ended is None:
            self._hear(0)
        if self._ended is not None:
            raise self.why_ended()
        try:
            self._control.send(supervisor.STAMP.pack(now), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # the supervisor reads nothing, so it gets no older stamp either
        except OSError:
            self._hear(0)
            raise self.why_ended() from None
        self._renewed_at = now

    def start(self, order: dict[str, Any], waiting: Callable[[], None]) -> bool:
        """Have the exporter started; False if the fence is held by another.

        `waiting` is called again and again and raises when there was enough of it."""
        self._renewed_at = supervisor.boottime()
        with contextlib.suppress(ConnectionError):  # it is gone already: the loop hears so
            self._control.send(marshal.dumps({**order, "stamp": self._renewed_at}))
        while (event := self._hear(0.1)) is None:
            waiting()
        if event == "ended":
            raise self.why_ended()
        return event == "started"

    def last_words(self, timeout_s: float = 1.0) -> FailbackError | None:
        """Why the exporter ended; None if it is not known to have ended within the time."""
        deadline = time.monotonic() + timeout_s
        while self._ended is None and (left_s := deadline - time.monotonic()) > 0:
            if self._hear(left_s) is None:
                break
        return None if self._ended is None else self.why_ended()

    def why_ended(self) -> FailbackError:
        ended = self._ended or {}
        if ended.get("reason") == "lapsed":
            return self._lapsed()
        said = str(ended.get("stderr", ""))
        if self._explains is not None:
            said = self._explains.without_secrets(said)
            known = None if self.serving else self._explains.explain(said, self.name)
            if known is not None:
                return known
        said = " ".join(said.split())[-500:]
        return DiskUnavailable(
            f"The exporter of {self.name} ended with status {ended.get('status', 'unknown')}"
            + (f": {said}." if said else "."),
            "The next attempt starts it again; if this repeats, check the file and its datastore.",
        )

    def close(self, timeout_s: float = 5.0) -> None:
        """End the exporter and wait until it is dead; harmless twice."""
        self.disk.close()
        self._control.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            # Stopped, or its exporter hangs in storage; the fence tells the next attempt which.
            self._process.kill()
            self._process.wait()

    def _lapsed(self) -> LeaseLost:
        return LeaseLost(
            f"The lease on the exporter of {self.name} lapsed: this mover was not heard of for"
            f" {self._lease_s:g} s.",
            "Nothing to do: the next attempt continues.",
        )

    def _hear(self, timeout_s: float) -> str | None:
        """The next event of the supervisor; None if there is none, "ended" if it is gone."""
        if not supervisor.select_in(self._control.fileno(), int(timeout_s * 1000)):
            return None
        try:
            packet = self._control.recv(supervisor.MAX_PACKET_BYTES)
        except ConnectionError:
            packet = b""
        event: dict[str, Any] = marshal.loads(packet) if packet else {"event": "ended"}
        if event["event"] == "started":
            self.exporter_pid = event["exporter"]
        elif event["event"] == "ended" and self._ended is None:
            self._ended = event
        return str(event["event"])


def start_exporter(
    path: Path,
    *,
    name: str,
    writable: bool,
    fence: Fence | None,
    lease_s: float,
    check: Check,
    command: Command,
    timeout_s: float = 10.0,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Exporter:
    """Start an exporter after all earlier ones of the fence are proven dead.

    Raises ExporterAlive, DiskUnavailable, SettingsInvalid, what `check` raises, and what the
    command knows its program's last words to mean."""
    order = {
        "argv": command.argv(path, writable=writable),
        "env": {
            **{key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ},
            **command.environment,
        },
        "lease_s": lease_s,
        "fence": fence
        and {
            "lock": str(fence.lock_path.absolute()),
            "holder": str(fence.holder_path.absolute()),
            "owner": json.dumps(fence.owner),
        },
    }
    deadline = clock() + timeout_s

    def waiting() -> None:
        check()
        if clock() >= deadline:
            raise DiskUnavailable(
                f"The exporter of {name} did not start in {timeout_s:g} s.",
                "Check the load of the data mover's host; the next attempt tries again.",
            )

    while True:
        check()
        if fence is not None:
            prove_dead(fence, check=check, timeout_s=timeout_s, clock=clock, sleep=sleep)
        exporter = Exporter(name, lease_s, command if isinstance(command, Explains) else None)
        try:
            if exporter.start(order, waiting):
                return exporter
        except BaseException:
            exporter.close()
            raise
        exporter.close()
        # Another attempt was faster between our proof and our supervisor; at most one of us is
        # not stale, and `check` knows which.
        if fence is not None and clock() >= deadline:
            raise alive(fence)
        sleep(POLL_S)


def _enlarge(end: socket.socket) -> None:
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SOCKET_BYTES)
    except OSError:  # needs CAP_NET_ADMIN
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
