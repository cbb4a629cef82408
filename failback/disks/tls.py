"""TLS with certificates on both sides, for every connection that leaves the host.

Both ends prove who they are with X.509 certificates of one private authority; the client also
checks the server's name. There is no way to turn verification off.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from failback.errors import CertificateUntrusted, DiskError, DiskUnavailable, SettingsInvalid
from failback.handshake import secured

CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.pem", "certificate.pem", "key.pem"


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the trusted authority, our certificate (with its chain) and its private key."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: Path) -> TlsFiles:
        """`ca.pem`, `certificate.pem` and `key.pem` of a folder."""
        return cls(folder / CA_FILE, folder / CERTIFICATE_FILE, folder / KEY_FILE)

    def client(self) -> ssl.SSLContext:
        """A context that verifies the server's certificate and name, and shows ours.

        Raises SettingsInvalid that says which file is wrong."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server(self) -> ssl.SSLContext:
        """A context that refuses clients without a certificate of the authority.

        Raises SettingsInvalid that says which file is wrong."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        for path in (self.ca, self.certificate, self.key):
            _demand_readable(path)
        if self.key.stat().st_mode & 0o077:
            raise SettingsInvalid(
                f"The private key {self.key} can be read by other users.",
                f"Run: chmod 600 {self.key}",
            )
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # One session per connection: a resumed one would not show a certificate again.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise _no_pem(self.ca, "certificates of an authority") from error
        if not context.get_ca_certs():
            raise _no_pem(self.ca, "certificates of an authority")
        self._load_own(context)
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        def no_password() -> str:
            raise SettingsInvalid(
                f"The private key {self.key} is encrypted.",
                "Store it without a passphrase, readable by this service only.",
            )

        try:
            context.load_cert_chain(self.certificate, self.key, no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise SettingsInvalid(
                    f"The private key {self.key} does not belong to {self.certificate}.",
                    "Put certificate and key of one pair there.",
                ) from error
            broken = self.key if _is_certificate(self.certificate) else self.certificate
            what = "a private key" if broken is self.key else "a certificate"
            raise _no_pem(broken, what) from error


@dataclass(frozen=True)
class TlsClient:
    """How a connection becomes a TLS one.

    Args:
        server_name: DNS name or IP address that the server's certificate must carry.
    """

    context: ssl.SSLContext
    server_name: str

    def wrap(self, sock: socket.socket, name: str, timeout_s: float) -> ssl.SSLSocket:
        """The connection after the handshake; the plain socket is used up, whatever happens.

        Args:
            name: what is at the other end, for messages.

        Raises CertificateUntrusted, DiskUnavailable."""
        sock.settimeout(timeout_s)
        try:
            return secured(self.context, sock, server_hostname=self.server_name)
        except OSError as error:
            raise refused(name, error, self.server_name) from error


def refused(name: str, error: OSError, server_name: str = "") -> DiskError | CertificateUntrusted:
    """The error for a TLS connection that failed, during the handshake or right after it.

    With TLS 1.3 a client learns only when it reads that the server refused its certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".") or "verification failed"
        expected = f" as {server_name}" if server_name else ""
        return CertificateUntrusted(
            f"The certificate shown by the server of {name} is not accepted{expected} ({why}).",
            "Check its names, its dates and the authority in the settings.",
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        why = (error.reason or "").rpartition("ALERT_")[2].lower().replace("_", " ")
        return CertificateUntrusted(
            f"The server of {name} refused our certificate or TLS version ({why}).",
            "Check that our certificate is valid and signed by the authority the server trusts.",
        )
    why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
    return DiskUnavailable(
        f"The TLS connection to {name} failed ({why}).",
        "Check that the server speaks TLS there; the next attempt connects again.",
    )


def part(sock: socket.socket) -> None:
    """Say goodbye on a TLS connection, so that the peer can tell an end from a cut; the caller
    closes the socket. Waits for nothing on a non-blocking socket."""
    if isinstance(sock, ssl.SSLSocket):
        # The peer's own goodbye is not awaited, and it may have hung up first.
        with contextlib.suppress(OSError, ValueError):
            sock.unwrap()


def _demand_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise SettingsInvalid(
            f"The TLS file {path} cannot be read ({error.strerror}).",
            "Check its path and permissions.",
        ) from error


def _is_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _no_pem(path: Path, what: str) -> SettingsInvalid:
    return SettingsInvalid(f"{path} does not hold {what} in PEM form.", "Put the right file there.")
