"""How to reach one site. Holds no secret: the password stays in its file until a login needs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from failback.errors import SettingsInvalid


@dataclass(frozen=True, slots=True)
class SiteConnection:
    """Where a vCenter or ESXi host is, who we are there, and how its certificate is trusted.

    Trust, first match wins: `thumbprint_sha256` (the certificate must be exactly that one),
    `ca_file`, the system's authorities. `insecure` switches verification off and is the only
    setting under which a plain `http` URL is accepted.
    """

    name: str
    url: str
    username: str
    password_file: Path
    ca_file: Path | None = None
    thumbprint_sha256: str | None = None
    insecure: bool = False
    inventory_root: str | None = None
    """Inventory path of a folder or datacenter; VMs outside are not seen. None: everything."""
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 60.0
    """Longest wait for one answer. Tasks take longer, but each look at one is a call of its own."""
    oldest_api: tuple[int, int] = (6, 7)
    """Sites that speak only older releases of the API are refused. A simulator may be older."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise SettingsInvalid(
                f"The URL of site {self.name} is {self.url!r}.",
                "Give it as https://host/sdk.",
            )
        if any(not 0 < len(label) < 64 for label in parts.hostname.rstrip(".").split(".")):
            raise SettingsInvalid(
                f"The host name in the URL of site {self.name} cannot be one: {parts.hostname}.",
                "Correct its url.",
            )
        if parts.scheme == "http" and not self.insecure:
            raise SettingsInvalid(
                f"The URL of site {self.name} is not encrypted.",
                "Use https, or set tls.insecure for a practice site.",
            )
        if parts.username or parts.password:
            raise SettingsInvalid(
                f"The URL of site {self.name} carries a user name or password.",
                "Set username and password_file instead.",
            )
        if self.thumbprint_sha256 is not None and not re.fullmatch(
            r"(?i)[0-9a-f]{2}(:?[0-9a-f]{2}){31}", self.thumbprint_sha256
        ):
            raise SettingsInvalid(
                f"The thumbprint of site {self.name} is not a SHA-256 thumbprint.",
                "Give its 32 bytes in hexadecimal, with or without colons.",
            )

    def read_password(self) -> str:
        """The password, without the line break an editor leaves; read anew at every login."""
        try:
            password = self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsInvalid(
                f"The password file of site {self.name} cannot be read: "
                f"{self.password_file} ({type(error).__name__}).",
                "Correct password_file or its permissions.",
            ) from error
        if not password:
            raise SettingsInvalid(
                f"The password file of site {self.name} is empty: {self.password_file}.",
                "Put the password on its first line.",
            )
        return password
