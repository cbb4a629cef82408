"""Questions to the workload, asked beside the watch while the decision is awaited."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from activities.attest import told
from activities.edge import now
from failback.contracts.policies import WorkloadProbe
from failback.contracts.vm import VmIdentity
from failback.contracts.words import PowerState, ProbeKind
from failback.errors import SiteError, Stopped, VmError
from failback.hooks.calls import Calls, Occasion
from failback.hooks.web import Request, exchange
from failback.hypervisor.ports import Sites

LATE = timedelta(seconds=5)
"""Beyond its timeout: a probe that has not come back by then has failed."""


@dataclass(frozen=True)
class Asker:
    """Asks one workload."""

    sites: Sites
    calls: Calls
    target: VmIdentity
    occasion: Occasion
    """For probes that are hooks."""

    def ask(self, probe: WorkloadProbe, beat: Callable[[], None]) -> str:
        """What is wrong; empty when the probe holds. Only what `beat` raises is raised."""
        match probe.kind:
            case ProbeKind.TCP:
                return _tcp(probe)
            case ProbeKind.HTTP:
                return _http(probe, beat)
            case ProbeKind.TOOLS:
                return self._tools()
            case ProbeKind.COMMAND:
                return self._command(probe, beat)

    def _tools(self) -> str:
        try:
            view = told(self.sites.site(self.target.site).read([self.target])[0])
        except (SiteError, VmError) as error:
            return f"{self.target} cannot be asked: {error.what}"
        if view.power is not PowerState.ON:
            return f"{self.target} is {view.power}"
        return "" if view.tools_running else f"the guest tools of {self.target} do not run"

    def _command(self, probe: WorkloadProbe, beat: Callable[[], None]) -> str:
        made = self.calls.call(
            replace(self.occasion, hook=probe.command or ""), probe.timeout, beat
        )
        last = made.output.rpartition("\n")[2][:200]
        return "" if made.ok else made.evidence + (f": {last}" if last else "")


def _tcp(probe: WorkloadProbe) -> str:
    host, _, port = probe.address.rpartition(":")
    try:
        place = (host.strip("[]"), int(port))
        with socket.create_connection(place, probe.timeout.total_seconds()):
            return ""
    except (OSError, ValueError, OverflowError) as error:
        return f"no connection ({type(error).__name__}: {error})"


def _http(probe: WorkloadProbe, beat: Callable[[], None]) -> str:
    request = Request(probe.address, "GET", {"User-Agent": "failback"})
    if not probe.address.lower().startswith(("http://", "https://")):
        return "the address is neither http:// nor https://"
    status, _, wrong = exchange(request, timeout_s=probe.timeout.total_seconds(), beat=beat)
    if status is None:
        return wrong
    return "" if 200 <= status < 400 else f"HTTP status {status}"


def words_of(probe: WorkloadProbe) -> str:
    """A probe as people know it."""
    what = probe.address or probe.command or ""
    return f"{probe.kind} {what}".strip()


class Probing:
    """Asks every probe at its interval, each in a thread of its own: a workload that does not
    answer delays neither the others nor the watch of the power states."""

    def __init__(
        self,
        asker: Asker,
        probes: tuple[WorkloadProbe, ...],
        count_from: datetime | None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._asker, self._count_from, self._clock = asker, count_from, clock
        self._probes = probes
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failure = ""
        self._asked: dict[int, datetime] = {}
        """Since when a probe has been waiting for its answer."""

    def __enter__(self) -> Probing:
        for number, probe in enumerate(self._probes):
            # Daemon and never joined: a name server that does not answer holds its thread.
            threading.Thread(
                target=partial(self._run, number, probe), name=f"probe-{number}", daemon=True
            ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def failure(self) -> str:
        """The first failure that counts, for people; empty while every probe holds."""
        with self._lock:
            waiting = dict(self._asked)
        for number, since in waiting.items():
            probe = self._probes[number]
            if self._clock() - since > probe.timeout + LATE:
                self._judge(probe, self._clock(), "it has not come back in time")
        return self._failure

    def _run(self, number: int, probe: WorkloadProbe) -> None:
        with contextlib.suppress(Stopped):
            while not self._stop.is_set():
                since = self._clock()
                with self._lock:
                    self._asked[number] = since
                problem = self._asker.ask(probe, self._beat)
                with self._lock:
                    del self._asked[number]
                if problem:
                    self._judge(probe, since, problem)
                self._stop.wait(self._pause(probe, since).total_seconds())

    def _pause(self, probe: WorkloadProbe, asked: datetime) -> timedelta:
        """Its interval, but asked when failures begin to count, however long the interval is."""
        if self._count_from is None or asked >= self._count_from:
            return probe.interval
        return min(probe.interval, max(self._count_from - self._clock(), timedelta(0)))

    def _judge(self, probe: WorkloadProbe, since: datetime, problem: str) -> None:
        if self._count_from is not None and since < self._count_from:
            return
        with self._lock:
            self._failure = self._failure or f"Probe {words_of(probe)} failed: {problem}"

    def _beat(self) -> None:
        if self._stop.is_set():
            raise Stopped("The watch has ended.")
