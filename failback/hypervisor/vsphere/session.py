"""One login per site and process, shared by every thread that works on that site.

pyVmomi's own session stub resends any call after a broken connection, also one that creates a
snapshot. Here a read is resent, a mutation never: only `NotAuthenticated`, which says that nothing
was done, lets a mutation go out again after a new login.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from failback.errors import FailbackError, SiteUnreachable
from failback.hypervisor.connection import SiteConnection
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults, releases
from failback.hypervisor.vsphere.api import Ref, moref, vim, vmodl
from failback.hypervisor.vsphere.transport import Stub

log = logging.getLogger(__name__)

T = TypeVar("T")

READ_TRIES = 3
READ_PAUSE_S = 0.2
BEAT_S = 1.0
REFUSED_S = 5.0
"""A refused login is not repeated sooner: eight threads must not lock the account."""
KEPT_S = 300.0
"""A session idle for so long gets a sign of life; a vCenter ends it after 30 minutes."""
FAILED_S = 0.5
"""Threads that queued behind a login that failed share its error, not one timeout each."""


class ReplyLost(SiteUnreachable):
    """A mutation was sent and no answer came: it may or may not have been done."""

    @property
    def type(self) -> str:
        return SiteUnreachable.__name__


def call_with_beat(call: Callable[[], T], beat: Beat | None) -> T:
    """Run a blocking call in a thread of its own so that `beat` goes on while it hangs.

    When `beat` raises, the call is left to its timeout and its answer is dropped: the caller has
    lost its lease and must not wait. Without `beat` the call runs in the caller's thread.
    """
    if beat is None:
        return call()
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="vsphere-call", daemon=True).start()
    while not done.wait(BEAT_S):
        beat()
    if errors:
        raise errors[0]
    return results[0]


@dataclass(frozen=True, slots=True)
class Login:
    """What one login gave; replaced as a whole by the next one."""

    stub: Stub
    content: Any
    """The site's ServiceContent: about, and the references of its managers."""
    key: str
    """Key of our session, for privilege questions."""
    uuid: str
    """Instance uuid of the vCenter; `host:` and its hardware's uuid for a host without one."""


class Session:
    """Calls on one site. Thread-safe; raises only the product's errors and vSphere faults."""

    def __init__(
        self, connection: SiteConnection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.connection = connection
        self.site = connection.name
        self.at = urlsplit(connection.url).netloc
        self._clock = clock
        self._used = clock()
        self._lock = threading.Lock()
        self._login: Login | None = None
        self._failed: tuple[float, FailbackError] | None = None

    def login(self, beat: Beat | None = None) -> Login:
        """The current login; logs in when there is none."""
        # Nothing blocks where there is one, so nothing needs a thread of its own.
        return self._login or call_with_beat(self._ready, beat)

    def vcenter_uuid(self) -> str:
        """Instance uuid of the vCenter, or what stands for it at a host without one."""
        return self.login().uuid

    def keep_alive(self) -> bool:
        """Give a login that was idle for minutes a sign of life; whether one was sent.

        Not needed for correctness: a session that has ended is renewed at its next use.
        """
        if self._login is None or self._clock() - self._used < KEPT_S:
            return False
        self.read(vim.ServiceInstance("ServiceInstance"), "CurrentTime")
        return True

    def read(self, target: Ref, method: str, *args: Any, beat: Beat | None = None) -> Any:
        """A call that changes nothing; resent after a broken connection.

        Raises vSphere faults as they are: the caller knows what they mean there.
        """
        return call_with_beat(lambda: self._read(target, method, args), beat)

    def _read(self, target: Ref, method: str, args: tuple[Any, ...]) -> Any:
        tries = 0
        while True:
            login = self._ready()
            tries += 1
            try:
                answer = _checked(getattr(_bound(target, login), method)(*args))
                self._used = self._clock()
                return answer
            except vim.fault.NotAuthenticated as fault:
                if tries >= READ_TRIES:
                    raise faults.typed(fault, self.site, method) from fault
                self._expired(login)
            except faults.TRANSPORT_ERRORS as error:
                # After a timeout the caller has waited long enough; it decides about more.
                if tries >= READ_TRIES or isinstance(error, TimeoutError):
                    raise faults.typed(error, self.site, method, self.at) from error
                log.info("read repeated", extra={"site": self.site, "method": method})
                time.sleep(READ_PAUSE_S)
            except faults.NOT_UNDERSTOOD as error:
                raise faults.typed(error, self.site, method, self.at) from error

    def mutate(self, target: Ref, method: str, *args: Any, beat: Beat) -> Any:
        """A call that changes something: `beat` right before it is sent, and it is sent once.

        The connection is opened first, so that a failure to connect is known to have done
        nothing and the lease is proven at the last moment. ReplyLost: it may have been done.
        """
        login = self.login(beat)
        try:
            return self._send(login, target, method, args, beat)
        except vim.fault.NotAuthenticated:
            # The one fault that proves nothing was done: the same call may go out once more.
            self._expired(login)
        try:
            return self._send(self.login(beat), target, method, args, beat)
        except vim.fault.NotAuthenticated as fault:
            raise faults.typed(fault, self.site, method) from fault

    def _send(
        self, login: Login, target: Ref, method: str, args: tuple[Any, ...], beat: Beat
    ) -> Any:
        try:
            connection = call_with_beat(login.stub.open, beat)
        except faults.TRANSPORT_ERRORS as error:
            doing = f"{method} (nothing was sent)"
            raise faults.typed(error, self.site, doing, self.at) from error
        try:
            beat()
        except BaseException:
            connection.close()
            raise

        def send() -> Any:
            login.stub.use(connection)
            answer = getattr(_bound(target, login), method)(*args)
            self._used = self._clock()
            return answer

        try:
            return call_with_beat(send, beat)
        except (*faults.TRANSPORT_ERRORS, *faults.NOT_UNDERSTOOD) as error:
            log.warning(
                "mutation without reply",
                extra={"site": self.site, "method": method, "object": moref(target)},
            )
            raise ReplyLost(
                f"Site {self.site} gave no whole answer to {method} on {moref(target)} "
                f"({type(error).__name__}), so it may or may not have been done.",
                "It is looked up and tried again; check the site's network.",
                cause=type(error).__name__,
            ) from error

    def _ready(self) -> Login:
        with self._lock:
            if self._login is not None:
                return self._login
            if self._failed is not None and time.monotonic() < self._failed[0]:
                raise self._failed[1]
            try:
                self._login = self._log_in()
            except FailbackError as error:
                pause = FAILED_S if error.retryable else REFUSED_S
                self._failed = (time.monotonic() + pause, error)
                raise
            self._failed = None
            log.info("logged in", extra={"site": self.site})
            return self._login

    def _log_in(self) -> Login:
        password = self.connection.read_password()
        stub: Stub | None = None
        try:
            # A new stub has no cookie: an expired session's would be answered for that session.
            stub = Stub(self.connection)
            content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
            releases.require(content.about, self.connection)
            user = content.sessionManager.Login(self.connection.username, password, None)
            uuid = str(content.about.instanceUuid or f"host:{_hardware(content) or self.site}")
        except (
            vmodl.MethodFault,
            *faults.TRANSPORT_ERRORS,
            *faults.NOT_UNDERSTOOD,
        ) as error:
            if stub is not None:
                stub.close()
            doing = f"log in as {self.connection.username}"
            raise faults.typed(error, self.site, doing, self.at) from error
        except FailbackError:
            if stub is not None:
                stub.close()
            raise
        return Login(stub, content, str(user.key), uuid)

    def _expired(self, login: Login) -> None:
        """Forget this login, unless another thread has renewed it already."""
        with self._lock:
            if self._login is login:
                log.info("session expired", extra={"site": self.site})
                self._login = None
        login.stub.close()

    def close(self) -> None:
        """Log out; a site that does not answer ends the session by itself."""
        with self._lock:
            login, self._login = self._login, None
        if login is None:
            return
        try:
            login.content.sessionManager.Logout()
        except (vmodl.MethodFault, *faults.TRANSPORT_ERRORS) as error:
            log.info("logout failed", extra={"site": self.site, "cause": type(error).__name__})
        login.stub.close()


def _bound(target: Ref, login: Login) -> Ref:
    # References are kept without a stub, so that they outlive a session.
    return type(target)(moref(target), login.stub)


def _hardware(content: Any) -> str:
    # A host without vCenter has exactly one host object, always of this name.
    collector = vmodl.query.PropertyCollector
    path = "summary.hardware.uuid"
    spec = collector.FilterSpec(
        objectSet=[collector.ObjectSpec(obj=vim.HostSystem("ha-host"))],
        propSet=[collector.PropertySpec(type=vim.HostSystem, pathSet=[path], all=False)],
    )
    try:
        answer = content.propertyCollector.RetrievePropertiesEx([spec], collector.RetrieveOptions())
    except vmodl.MethodFault as fault:
        log.warning("hardware uuid not told", extra={"fault": faults.fault_name(fault)})
        return ""
    found = [prop.val for entry in answer.objects or () for prop in entry.propSet or ()]
    return str(found[0]) if found else ""


def _checked(result: Any) -> Any:
    # An expired session may answer HTTP 200 and put NotAuthenticated into every missingSet entry.
    for entry in getattr(result, "objects", None) or ():
        for missing in getattr(entry, "missingSet", None) or ():
            if isinstance(missing.fault, vim.fault.NotAuthenticated):
                raise missing.fault
    return result
