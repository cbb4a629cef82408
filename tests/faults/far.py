"""The mover of the other site, as a process of its own that may be killed."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from failback.disks.remote.service import MoverService, below
from failback.disks.tls import TlsFiles
from tests.helpers.tls import Authority

NAME = "dr.test"


def serve(root: Path, files: TlsFiles, tell: Connection) -> None:
    """The process: tells its port and serves until it is killed."""
    service = MoverService(("127.0.0.1", 0), files, below([root]))
    tell.send(service.port)
    signal.pause()


class Far:
    """A mover near the source's disks, started anew when it is asked for and is dead."""

    def __init__(self, processes: ForkServerContext, root: Path) -> None:
        authority = Authority(root / "tls")
        self.client = authority.issue("client", "mover.test")
        self._files = authority.issue("server", NAME)
        self._processes, self._root = processes, root
        self._process: BaseProcess | None = None
        self._port = 0

    def port(self) -> int:
        """Of one that lives."""
        if self._process is None or not self._process.is_alive():
            self.kill()
            heard, its_end = self._processes.Pipe(duplex=False)
            self._process = self._processes.Process(
                target=serve, args=(self._root, self._files, its_end)
            )
            self._process.start()
            its_end.close()
            with heard:
                self._port = heard.recv()
        return self._port

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """Harmless twice."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None
