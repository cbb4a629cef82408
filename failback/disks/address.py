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

    def __str__(self) -> str:
        """In one way of writing, so that equal addresses are equal texts."""
        scheme = "nbds" if self.secure else "nbd"
        export = quote(self.export, safe="/")
        if self.socket_path:
            return f"{scheme}+unix:///{export}?socket={quote(self.socket_path, safe='/')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{export}"

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
    unknown = sorted(set(known) - ({"socket"} if over else set()))
    if kind not in ("nbd", "nbds") or over not in ("", "unix") or parts.fragment:
        raise SettingsInvalid(f"{text!r} is no NBD address.", _FORMS)
    if unknown:
        raise SettingsInvalid(f"{text!r} has an unknown parameter {unknown[0]!r}.", _FORMS)
    export, secure = unquote(parts.path.removeprefix("/")), kind == "nbds"
    if over:
        path = known.get("socket", [""])[-1]
        if parts.netloc or not path:
            raise SettingsInvalid(f"{text!r} names no socket.", _FORMS)
        return NbdAddress(socket_path=path, export=export, secure=secure)
    if not parts.hostname:
        raise SettingsInvalid(f"{text!r} names no host.", _FORMS)
    port = DEFAULT_PORT if port is None else port
    return NbdAddress(host=parts.hostname, port=port, export=export, secure=secure)


def open_address(
    address: NbdAddress,
    *,
    writable: bool,
    name: str = "",
    connect_timeout_s: float = 10.0,
    io_timeout_s: float = 120.0,
) -> NbdDisk:
    """The export as a BlockIO; DiskUnavailable, DiskReadOnly, SettingsInvalid.

    A server that serves one client at a time leaves a second one waiting until the timeout."""
    name = name or str(address)
    if address.secure:
        # The one place where a connection would become a TLS one, before the export is negotiated.
        raise SettingsInvalid(
            f"{name} asks for TLS, which this version does not speak.",
            "Use nbd:// through a tunnel.",
        )
    where = address.socket_path or (address.host, address.port)
    return NbdDisk(
        connect(where, name, timeout_s=connect_timeout_s),
        name,
        writable=writable,
        export_name=address.export,
        connect_timeout_s=connect_timeout_s,
        io_timeout_s=io_timeout_s,
    )
