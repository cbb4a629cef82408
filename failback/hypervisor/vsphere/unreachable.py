"""Why no answer came, in one sentence: name, port, TLS, certificate, or something else there."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

from failback.errors import CertificateUntrusted, FailbackError, OperationUnsupported
from failback.errors import SiteUnreachable as Unreachable

NETWORK = "Check the site's network and services; a run tries again by itself."
_URL = "Correct the site's url, or the name server's records; a run tries again by itself."


class ThumbprintMismatch(ssl.SSLCertVerificationError):
    """The certificate is not the pinned one; `shown` is its SHA-256, in hexadecimal."""

    def __init__(self, shown: str) -> None:
        super().__init__(1, "certificate does not match the pinned thumbprint")
        self.shown = shown


class NotASite(http.client.HTTPException):
    """Something answers there, but neither a vCenter nor an ESXi host. Carries what it said."""


_CERTIFICATE = {
    9: ("is not valid yet", "Correct the clock of this machine or of the site."),
    10: ("has expired", "Renew it at the site, or set thumbprint_sha256 to its thumbprint."),
    18: (
        "is self-signed",
        "Set tls.ca_file to the certificate itself, or tls.thumbprint_sha256 to its thumbprint.",
    ),
    62: ("is for another host name", "Write the name it is made for in the site's url."),
    64: ("is for another address", "Write the name it is made for in the site's url."),
}
"""By OpenSSL's code of the verification: what is wrong, what to do."""
_SIGNER = (
    "is signed by an authority that is not trusted",
    "Set tls.ca_file to the authority that signed it, or tls.thumbprint_sha256 to its thumbprint.",
)


def untrusted(error: ssl.SSLCertVerificationError, site: str, at: str) -> CertificateUntrusted:
    """The sentence about a certificate."""
    if isinstance(error, ThumbprintMismatch):
        return CertificateUntrusted(
            f"The certificate of site {site}{_at(at)} is not the pinned one: "
            f"its thumbprint is {error.shown}.",
            "If the site's certificate was renewed on purpose, set tls.thumbprint_sha256 anew.",
            thumbprint=error.shown,
        )
    what, remedy = _CERTIFICATE.get(getattr(error, "verify_code", 0), _SIGNER)
    said = getattr(error, "verify_message", "")
    return CertificateUntrusted(
        f"The certificate of site {site}{_at(at)} {what}{f' ({said})' if said else ''}.", remedy
    )


def unreachable(error: Exception, site: str, at: str, doing: str) -> FailbackError:
    """The sentence about a call without an answer. `at` is host and port."""
    what, remedy = f"did not answer while asked to {doing} ({_said(error)})", NETWORK
    if isinstance(error, NotASite):
        return OperationUnsupported(
            f"What answers for site {site}{_at(at)} is no vCenter or ESXi host: {error}.",
            "Correct its url; it is mostly https://name/sdk.",
        )
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        # No answer is not the answer that there is no such name.
        what = f"cannot be looked up: no name server answers about {at}"
        remedy = "Check the name server and the way to it; a run tries again by itself."
    elif isinstance(error, socket.gaierror):
        what, remedy = f"cannot be found: there is no host {at}", _URL
    elif isinstance(error, ConnectionRefusedError):
        what, remedy = f"does not listen{_at(at)}", "Correct the port in its url, or start it."
    elif isinstance(error, ssl.SSLError) and getattr(error, "reason", "") in _NO_TLS:
        what = f"does not speak TLS{_at(at)}"
        remedy = "Correct the port in its url; https is mostly on port 443."
    elif isinstance(error, ssl.SSLError):
        what = f"and we agree on no TLS connection{_at(at)} ({_said(error)})"
        remedy = "Offer TLS 1.2 or newer at the site."
    elif isinstance(error, TimeoutError):
        what = f"did not answer in time while asked to {doing}{_at(at)}"
    elif isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        what = f"has no route to it{_at(at)}"
    return Unreachable(f"Site {site} {what}.", remedy, cause=type(error).__name__)


_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def _at(at: str) -> str:
    return f" at {at}" if at else ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")
