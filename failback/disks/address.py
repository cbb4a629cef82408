"""NBD addresses as people write them, and what they stand for.

nbd://host[:port]/export          nbd+unix:///export?socket=/path
nbds://host[:port]/export         nbds+unix:///export?socket=/path     the same over TLS
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from failback.disks.nbd import NbdDisk, connect
from failback.disks.tls import CA_FILE, CERTIFICATE_FILE, KEY_FILE, TlsClient, TlsFiles
from failback.errors import SettingsInvalid

DEFAULT_PORT = 10809
_FORMS = "Write it as nbd://host:port/export or nbd+unix:///export?socket=/path."


@dataclass(frozen=True)
class NbdAddress:
    """An export of an NBD server; either a host and port, or the path of a socket."""

    host: str = ""
    port: int = DEFAULT_PORT
    socket_path: str = ""
    export: str = ""
    secure: bool = False
    tls_hostname: str = ""

    def __str__(self) -> str:
        """In one way of writing, so that equal addresses are equal texts."""
        scheme = "nbds" if self.secure else "nbd"
        export = quote(self.export, safe="/")
        more = {"socket": self.socket_path, "tls-hostname": self.tls_hostname}
        query = "&".join(f"{key}={quote(value, safe='/')}" for key, value in more.items() if value)
        host = f"[{self.host}]" if ":" in self.host else self.host
        where = f"{scheme}+unix://" if self.socket_path else f"{scheme}://{host}:{self.port}"
        return f"{where}/{export}" + (f"?{query}" if query else "")

    @property
    def server_name(self) -> str:
        """What the server's certificate must carry."""
        return self.tls_hostname or self.host or "localhost"

    @property
    def place(self) -> tuple[str, int, str, str]:
        """What names the export, however it is reached: TLS or not is no other disk."""
        path = str(Path(self.socket_path).resolve()) if self.socket_path else ""
        return self.host, self.port, path, self.export


def is_address(text: str) -> bool:
    """Whether a text is meant as an NBD address, not as a path."""
    return re.match(r"nbds?(\+[a-z]+)?:", text, re.IGNORECASE) is not None


def parse_address(text: str) -> NbdAddress:
    """Raises SettingsInvalid, without repeating a password that somebody put into the address."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise SettingsInvalid(f"An NBD address cannot be read ({error}).", _FORMS) from None
    if "@" in parts.netloc:
        raise SettingsInvalid(
            "An NBD address carries a user name or password.",
            "Take it out: addresses are seen by everybody on the host.",
        )
    kind, _, over = parts.scheme.lower().partition("+")
    known = parse_qs(parts.query, keep_blank_values=True)
    allowed = {"socket"} if over else set[str]()
    unknown = sorted(set(known) - allowed - ({"tls-hostname"} if kind == "nbds" else set()))
    if kind not in ("nbd", "nbds") or over not in ("", "unix") or parts.fragment:
        raise SettingsInvalid(f"{text!r} is no NBD address.", _FORMS)
    if unknown:
        raise SettingsInvalid(f"{text!r} has an unknown parameter {unknown[0]!r}.", _FORMS)
    export, secure = unquote(parts.path.removeprefix("/")), kind == "nbds"
    tls_hostname = known.get("tls-hostname", [""])[-1]
    if over:
        path = known.get("socket", [""])[-1]
        if parts.netloc or not path:
            raise SettingsInvalid(f"{text!r} names no socket.", _FORMS)
        return NbdAddress(socket_path=path, export=export, secure=secure, tls_hostname=tls_hostname)
    if not parts.hostname:
        raise SettingsInvalid(f"{text!r} names no host.", _FORMS)
    port = DEFAULT_PORT if port is None else port
    return NbdAddress(
        host=parts.hostname, port=port, export=export, secure=secure, tls_hostname=tls_hostname
    )


def open_address(
    address: NbdAddress,
    *,
    writable: bool,
    name: str = "",
    tls_dir: Path | None = None,
    connect_timeout_s: float = 10.0,
    io_timeout_s: float = 120.0,
) -> NbdDisk:
    """The export as a BlockIO; DiskUnavailable, DiskReadOnly, CertificateUntrusted.

    A server that serves one client at a time leaves a second one waiting until the timeout.

    Args:
        tls_dir: the folder of PEM files that `TlsFiles` describes; SettingsInvalid where an
            address asks for TLS and there is none.
    """
    name = name or str(address)
    tls = None
    if address.secure:
        tls = TlsClient(files_of(address, tls_dir).client(), address.server_name)
    where = address.socket_path or (address.host, address.port)
    return NbdDisk(
        connect(where, name, timeout_s=connect_timeout_s),
        name,
        writable=writable,
        export_name=address.export,
        connect_timeout_s=connect_timeout_s,
        io_timeout_s=io_timeout_s,
        tls=tls,
    )


def files_of(address: NbdAddress, tls_dir: Path | None) -> TlsFiles:
    """The PEM files for an address with TLS; SettingsInvalid where no folder is named."""
    if tls_dir is None:
        raise SettingsInvalid(
            f"{address} asks for TLS, and no folder with certificates is named.",
            f"Name one with {CA_FILE}, {CERTIFICATE_FILE} and {KEY_FILE} in it.",
        )
    return TlsFiles.in_folder(tls_dir)
