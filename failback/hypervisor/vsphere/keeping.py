"""Keeping idle sessions from ending while a worker does other things for hours."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from failback.errors import FailbackError
from failback.hypervisor.ports import Site

log = logging.getLogger(__name__)

EVERY_S = 60.0


class Keeper:
    """Asks sites to keep their sessions, from a thread of its own, until it is closed.

    Only a comfort: a session that has ended is opened again at its next use. A site without a
    login gets none from here, so a refused password is not tried again and again.
    """

    def __init__(self, sites: Sequence[Site], every_s: float = EVERY_S) -> None:
        self._sites, self._every_s = tuple(sites), every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; waits for no call that hangs."""
        self._closed.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            for site in self._sites:
                try:
                    site.keep_alive()
                except FailbackError as error:
                    log.info("session not kept", extra={"site": site.name, "cause": error.type})
