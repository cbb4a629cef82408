"""HTTP under the session: verified TLS, a timeout on everything, and no hidden resending."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import ssl
import threading
from typing import Any, cast
from urllib.parse import urlsplit
from xml.etree import ElementTree

from failback.errors import SettingsInvalid
from failback.handshake import SecureConnection
from failback.hypervisor.connection import SiteConnection
from failback.hypervisor.vsphere.api import VERSION_IDS, VERSIONS, SoapStubAdapter
from failback.hypervisor.vsphere.unreachable import NotASite, ThumbprintMismatch

POOL_SIZE = 16
POOL_IDLE_S = 20
"""An idle connection is dropped early: a firewall may have forgotten it without telling us."""


def tls_context(connection: SiteConnection) -> ssl.SSLContext:
    """Verifying unless the settings say otherwise; a pinned certificate is compared on connect."""
    ca_file = connection.ca_file
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:  # ssl.SSLError is one too: a file that is no certificate
        raise SettingsInvalid(
            f"The certificate authority file of site {connection.name} cannot be used: {ca_file} "
            f"({type(error).__name__}).",
            "Correct tls.ca_file; it holds certificates in PEM form.",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if connection.thumbprint_sha256 or connection.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Plain(http.client.HTTPConnection):
    """Plain HTTP, for a practice site."""

    def __init__(self, site: SiteConnection, context: ssl.SSLContext, host: str, port: int) -> None:
        super().__init__(host, port, timeout=site.connect_timeout_s)
        self.site = site

    def connect(self) -> None:
        super().connect()
        _tune(self.sock, self.site)


class _Secure(SecureConnection):
    """HTTPS; a pinned certificate is compared before the first byte is sent."""

    def __init__(self, site: SiteConnection, context: ssl.SSLContext, host: str, port: int) -> None:
        super().__init__(host, port, timeout=site.connect_timeout_s, context=context)
        self.site = site

    def connect(self) -> None:
        try:
            super().connect()
            self._check_pin()
        except BaseException:
            self.close()
            raise
        _tune(self.sock, self.site)

    def _check_pin(self) -> None:
        pin = self.site.thumbprint_sha256
        if pin is None:
            return
        shown = cast("ssl.SSLSocket", self.sock).getpeercert(binary_form=True) or b""
        expected = bytes.fromhex(pin.replace(":", ""))
        if not hmac.compare_digest(hashlib.sha256(shown).digest(), expected):
            raise ThumbprintMismatch(hashlib.sha256(shown).hexdigest())


def _tune(sock: socket.socket, site: SiteConnection) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.settimeout(site.request_timeout_s)


class Stub(SoapStubAdapter):  # type: ignore[misc]
    """pyVmomi's SOAP stub with our connections; `use` hands the next call a fresh one."""

    def __init__(self, site: SiteConnection) -> None:
        self._site = site
        self._tls = tls_context(site)
        self._mine = threading.local()
        self._closed = False
        parts = urlsplit(site.url)
        secure = parts.scheme == "https"
        self._kind = _Secure if secure else _Plain
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._path = parts.path if parts.path not in ("", "/") else "/sdk"
        super().__init__(
            host=self._host,
            port=self._port,
            path=self._path,
            version=self._negotiate(),
            poolSize=POOL_SIZE,
            connectionPoolTimeout=POOL_IDLE_S,
        )
        # The base class would build its own connections; these two are all it uses for that.
        self.scheme = self._connection
        self.schemeArgs: dict[str, Any] = {}

    def _connection(self, host: str = "", port: int = 0) -> _Plain | _Secure:
        return self._kind(self._site, self._tls, self._host, self._port)

    def open(self) -> _Plain | _Secure:
        """A new connection, connected and verified; nothing has been asked yet."""
        connection = self._connection()
        connection.connect()
        return connection

    def use(self, connection: _Plain | _Secure) -> None:
        """The next call of this thread goes over this connection."""
        self._mine.connection = connection

    def GetConnection(self) -> Any:
        prepared = getattr(self._mine, "connection", None)
        if prepared is not None:
            self._mine.connection = None
            return prepared
        return super().GetConnection()

    def ReturnConnection(self, conn: Any) -> None:
        if self._closed:
            conn.close()
        else:
            super().ReturnConnection(conn)

    def close(self) -> None:
        """Close idle connections now and those in use when their call ends."""
        self._closed = True
        self.DropConnections()

    def _negotiate(self) -> str:
        """The newest API version that both sides speak."""
        connection = self.open()
        try:
            connection.request("GET", f"{self._path}/vimServiceVersions.xml")
            response = connection.getresponse()
            body = response.read()
            if response.status >= 500:
                raise http.client.HTTPException(f"{response.status} {response.reason}")
        finally:
            connection.close()
        offered = _versions(body) if response.status == 200 else set()
        for version in VERSIONS("vim25"):
            if VERSION_IDS[version] in offered:
                return str(version)
        raise NotASite(_found_instead(response, self._path))


def _found_instead(response: http.client.HTTPResponse, path: str) -> str:
    to = response.getheader("Location")
    if 300 <= response.status < 400 and to:
        return f"it sends us from {path} to {to[:200]}"
    if response.status != 200:
        return f"it answers {response.status} {response.reason} to {path}"
    return f"what it says at {path} names no vSphere version"


def _versions(body: bytes) -> set[str]:
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return set()
    return {node.text or "" for node in root.iter("version")}
