"""Forks worker processes that have everything imported already: a test that kills many of them does
not wait for as many interpreters to begin. As a program it is the process that forks them."""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class Forked:
    """A process that another one has forked, handled like a child of our own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # Names this process and no later one of its number.
        self._pidfd = os.pidfd_open(pid)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """None while it lives; how it ended is its parent's to know."""
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            os.close(self._pidfd)
            self.returncode = -1
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if self.returncode is None and not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        ended = self.poll()
        assert ended is not None
        return ended


class Nursery:
    """The process that forks; it ends with ours."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def worker(self, arguments: list[str], log: Path, env: Mapping[str, str]) -> Forked:
        """A worker process with these arguments."""
        order = json.dumps({"arguments": arguments, "log": str(log), "env": dict(env)})
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(order.encode() + b"\n")
        self.process.stdin.flush()
        return Forked(int(self.process.stdout.readline()))

    def close(self) -> None:
        """End it, and with it every worker that is left."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def main() -> None:
    """Fork for every line of the standard input, and answer with the number of the process."""
    import worker

    # Nobody's but the children's own is left of these before they begin.
    assert len(os.listdir("/proc/self/task")) == 1
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    me = os.getpid()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != me:
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        random.seed()
        os.environ.clear()
        os.environ.update(order["env"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        out = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for to, of in ((0, nothing), (1, out), (2, out)):
            os.dup2(of, to)
        sys.argv = ["worker.py", *order["arguments"]]
        worker.main()
        os._exit(0)


if __name__ == "__main__":
    main()
