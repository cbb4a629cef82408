"""The tables that say how the disks of a site are reached."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from failback.disks.address import parse_address
from failback.disks.hosts import MIB, RESERVE_BYTES, HostLimits
from failback.disks.remote.address import host_and_port
from failback.disks.remote.disk import MoverSite
from failback.disks.vddk import VddkSite
from failback.errors import SettingsInvalid
from failback.settings_types import Location, Section


def _address(text: str) -> str:
    if "{path}" not in text:
        raise ValueError("has no {path}, so it would be the same for every disk")
    try:
        parse_address(text.replace("{path}", "x").replace("{datastore}", "x"))
    except SettingsInvalid:
        raise ValueError(
            "is not an NBD address such as nbd://host:10809/{datastore}/{path}"
        ) from None
    return text


def _thumbprint(text: str) -> str:
    if not re.fullmatch(r"(?i)[0-9a-f]{2}(:[0-9a-f]{2}){19}((:[0-9a-f]{2}){12})?", text):
        raise ValueError("is not a SHA-1 or SHA-256 thumbprint with colons")
    return text


class NbdSettings(Section):
    """An NBD server that serves the disks of a site."""

    address: Annotated[str, AfterValidator(_address)]
    tls_dir: Location | None = None

    @model_validator(mode="after")
    def _certificates(self) -> Self:
        if self.address.lower().startswith("nbds") and self.tls_dir is None:
            raise ValueError("must have tls_dir, because its address asks for TLS")
        return self


def _listen(text: str) -> str:
    try:
        host_and_port(text)
    except SettingsInvalid:
        raise ValueError("is not of the form host:port") from None
    return text


HostPort = Annotated[str, AfterValidator(_listen)]


class MoverSettings(Section):
    """The service by which another site's movers read the disks of a site."""

    tls_dir: Location
    address: HostPort | None = None
    server_name: str | None = Field(None, min_length=1)
    listen: HostPort | None = None
    peers: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.address is None) == (self.listen is None):
            raise ValueError("must have either address (it runs elsewhere) or listen (run it here)")
        return self

    def site(self) -> MoverSite | None:
        """How to reach it; None where it runs here."""
        if self.address is None:
            return None
        host, port = host_and_port(self.address)
        return MoverSite(host, port, self.server_name or host, self.tls_dir)


class VddkSettings(Section):
    """VMware's Virtual Disk Development Kit on the movers."""

    libdir: Location
    thumbprint: Annotated[str, AfterValidator(_thumbprint)]
    port: int | None = Field(None, ge=1, le=65535)
    transports: str = Field("", pattern=r"^([a-z]+(:[a-z]+)*)?$")
    compression: Literal["none", "zlib", "fastlz", "skipz"] = "none"
    plugin: str = Field("vddk", min_length=1)
    config: Location | None = None
    host_bytes: int = Field(32 * MIB, ge=RESERVE_BYTES, le=48 * MIB)
    host_disks: int = Field(8, ge=1, le=24)
    open_timeout_s: float = Field(180.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.host_bytes < self.host_disks * RESERVE_BYTES:
            raise ValueError("must have at least 2 MiB of host_bytes for each of host_disks")
        return self

    def of(self, server: str, user: str, password_file: Path) -> VddkSite:
        """The library on one server, with the account of the site."""
        return VddkSite(
            libdir=self.libdir,
            server=server,
            user=user,
            password_file=password_file,
            thumbprint=self.thumbprint,
            port=self.port,
            transports=self.transports,
            compression=self.compression,
            plugin=self.plugin,
            config=self.config,
            limits=HostLimits(self.host_bytes, self.host_disks),
            open_timeout_s=self.open_timeout_s,
        )
