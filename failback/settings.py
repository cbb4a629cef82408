"""The settings: one TOML file, overridden by the environment, refused when anything is wrong.

How to reach the Temporal server is not here: that is Temporal's own environment configuration.
docs/settings.md describes every key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from failback import settings_check, settings_file
from failback.contracts.plan import Tuning
from failback.disks.kinds import DatastoreAccess, DiskKind
from failback.disks.plan import BLOCK_BYTES, SEGMENT_BYTES
from failback.errors import SettingsInvalid
from failback.hooks.calls import Calls
from failback.hypervisor.connection import SiteConnection
from failback.settings_disks import MoverSettings, NbdSettings, VddkSettings
from failback.settings_hooks import HookSettings
from failback.settings_types import Location, Section, from_file


def _plain_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        userinfo = "@" in parts.netloc
    except ValueError:
        raise ValueError("is not a URL") from None
    if userinfo:
        raise ValueError("carries a user name or password; they have keys of their own")
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("is not of the form https://host/sdk")
    return url


def _catalog_url(url: str, info: ValidationInfo) -> str:
    if "://" not in url:
        raise ValueError("is not of the form sqlite:////folder/file or postgresql://host/database")
    if urlsplit(url).password is not None or re.search(r"[?&]password=", url):
        raise ValueError("carries a password; put it in PostgreSQL's password file (~/.pgpass)")
    kind, relative, file = url.partition(":///")
    if kind.startswith("sqlite") and relative:
        if file in ("", ":memory:"):
            raise ValueError("names a database in memory, which nothing survives")
        return f"{kind}:///{from_file(Path(file), info)}"
    return url


def _thumbprint(text: str) -> str:
    if not re.fullmatch(r"(?i)[0-9a-f]{2}(:?[0-9a-f]{2}){31}", text):
        raise ValueError("is not the SHA-256 of a certificate: 32 bytes in hexadecimal")
    return text


def _blocks(number: int) -> int:
    if number % BLOCK_BYTES:
        raise ValueError(f"is not a multiple of {BLOCK_BYTES}")
    return number


SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]


class CatalogSettings(Section):
    """Our own database."""

    url: Annotated[str, AfterValidator(_catalog_url)] | None = None
    ledger_retention_days: float = Field(30.0, ge=0, le=36500)


class WorkerSettings(Section):
    """The worker process."""

    state_dir: Location = Path("/var/lib/failback")
    movers: int = Field(4, ge=1, le=64)
    heartbeat_timeout_s: Seconds = Field(30.0, ge=1)
    graceful_shutdown_s: Seconds = 25.0


class TemporalSettings(Section):
    """What Temporal's own configuration does not say."""

    task_queue: str = Field("failback", min_length=1, max_length=200)
    deployment: str = Field("", pattern=r"^[A-Za-z0-9_-]{0,100}$")
    build_id: str = Field("", pattern=r"^[A-Za-z0-9_+.-]{0,100}$")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.build_id and not self.deployment:
            raise ValueError("has a build_id but no deployment that it is a version of")
        return self


class TransferSettings(Section):
    """How disks are copied."""

    segment_bytes: Annotated[int, AfterValidator(_blocks)] = Field(
        SEGMENT_BYTES, ge=BLOCK_BYTES, le=1 << 30
    )
    flush_interval_s: Seconds = 2.0
    bandwidth_bytes_per_s: int = Field(0, ge=0)
    memory_bytes: int = Field(256 * 1024 * 1024, ge=4 * 1024 * 1024)
    verify_fraction: float = Field(0.01, ge=0, le=1)
    reserve_bytes: int = Field(10 * 1024**3, ge=0)
    reserve_percent: float = Field(5.0, ge=0, le=100)
    step_patience_s: Seconds = 1800.0
    switch_patience_s: Seconds = 600.0


class TlsSettings(Section):
    """How a site's certificate is trusted; exactly one of the three."""

    ca_file: Location | None = None
    thumbprint_sha256: Annotated[str, AfterValidator(_thumbprint)] | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.ca_file is not None, self.thumbprint_sha256 is not None, self.insecure].count(
            True
        ) != 1:
            raise ValueError("must have exactly one of ca_file, thumbprint_sha256, insecure = true")
        return self


class SiteSettings(Section):
    """A vCenter or ESXi host."""

    url: Annotated[str, AfterValidator(_plain_url)]
    username: str = Field(min_length=1)
    password_file: Location
    tls: TlsSettings | None = None
    inventory_root: str | None = Field(None, pattern=r"^/[^/]+(/[^/]+)*$")
    request_timeout_s: Seconds = 60.0
    chain_members_complete: bool = False
    kind: DiskKind = "flat"
    datastores: dict[str, Location] = Field(default_factory=dict)
    nbd: NbdSettings | None = None
    vddk: VddkSettings | None = None
    mover: MoverSettings | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        for kind, table in (("nbd", self.nbd), ("vddk", self.vddk)):
            if (self.kind == kind) != (table is not None):
                raise ValueError(f'must have a table {kind} if its kind is "{kind}", and only then')
        elsewhere = self.mover is not None and self.mover.address is not None
        if (self.kind == "mover") != elsewhere:
            raise ValueError('must have mover.address if its kind is "mover", and only then')
        if self.mover is not None and not elsewhere and self.kind not in ("flat", "file"):
            raise ValueError('must have the kind "flat" or "file" if its mover service runs here')
        return self

    def access(self) -> DatastoreAccess:
        """How movers reach the disks."""
        host = urlsplit(self.url).hostname or ""
        mover = self.mover.site() if self.mover else None
        return DatastoreAccess(
            datastores=self.datastores,
            chain_members_complete=self.chain_members_complete,
            kind=self.kind,
            address=self.nbd.address if self.nbd else "",
            tls_dir=self.nbd.tls_dir if self.nbd else None,
            vddk=self.vddk.of(host, self.username, self.password_file) if self.vddk else None,
            mover=mover,
        )

    def connection(self, name: str) -> SiteConnection:
        """How to reach this site; SettingsInvalid when others may read its password file."""
        settings_check.password_file(name, self.password_file)
        tls = self.tls
        return SiteConnection(
            name=name,
            url=self.url,
            username=self.username,
            password_file=self.password_file,
            ca_file=tls.ca_file if tls else None,
            thumbprint_sha256=tls.thumbprint_sha256 if tls else None,
            insecure=tls.insecure if tls else False,
            inventory_root=self.inventory_root,
            request_timeout_s=self.request_timeout_s,
        )


class Settings(Section):
    """All settings. Holds no secret: passwords stay in their files until they are used."""

    catalog: CatalogSettings = CatalogSettings()
    worker: WorkerSettings = WorkerSettings()
    temporal: TemporalSettings = TemporalSettings()
    transfer: TransferSettings = TransferSettings()
    sites: dict[SiteName, SiteSettings] = Field(min_length=1)
    hooks: dict[SiteName, HookSettings] = Field(default_factory=dict)

    @property
    def catalog_url(self) -> str:
        """The catalog's database: a file in the state directory unless the settings say more."""
        return self.catalog.url or f"sqlite:///{self.worker.state_dir / 'catalog.db'}"

    @property
    def ledger_retention(self) -> timedelta:
        return timedelta(days=self.catalog.ledger_retention_days)

    @property
    def heartbeat_timeout(self) -> timedelta:
        return timedelta(seconds=self.worker.heartbeat_timeout_s)

    @property
    def graceful_shutdown(self) -> timedelta:
        return timedelta(seconds=self.worker.graceful_shutdown_s)

    @property
    def step_patience(self) -> timedelta:
        return timedelta(seconds=self.transfer.step_patience_s)

    @property
    def switch_patience(self) -> timedelta:
        return timedelta(seconds=self.transfer.switch_patience_s)

    def tuning(self) -> Tuning:
        """The numbers that a run's workflow needs."""
        return Tuning(
            heartbeat_timeout=self.heartbeat_timeout,
            step_patience=self.step_patience,
            switch_patience=self.switch_patience,
        )

    def calls(self) -> Calls:
        """The hooks; SettingsInvalid when others may read a file with their secrets."""
        passwords = frozenset(site.password_file for site in self.sites.values())
        return Calls({name: hook.call(name) for name, hook in self.hooks.items()}, passwords)

    def read_password(self, site: str) -> str:
        """The password of a site, read anew; SettingsInvalid also when others may read the file."""
        found = self.sites.get(site)
        if found is None:
            raise SettingsInvalid(f"The settings have no site {site!r}.", "Add it under [sites].")
        return found.connection(site).read_password()


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read, override, check; and make sure that the state directory is there and private.

    Args:
        path: the file; None: FAILBACK_SETTINGS, or a default place.
        environ: overrides such as FAILBACK_TRANSFER__BANDWIDTH_BYTES_PER_S.

    Raises:
        SettingsInvalid: names file, line and key of everything that is wrong.
    """
    source = settings_file.read(settings_file.find(path, environ))
    settings_check.override(source, environ, Settings)
    try:
        settings = Settings.model_validate(source.values, context={"folder": source.path.parent})
    except ValidationError as error:
        raise source.refuse(settings_check.problems(error, Settings)) from None
    wrong = [
        *settings_check.shared_sites(
            {name: (site.url, site.inventory_root) for name, site in settings.sites.items()}
        ),
        *settings_check.plain_http(
            {
                name: (site.url, bool(site.tls and site.tls.insecure))
                for name, site in settings.sites.items()
            }
        ),
    ] or settings_check.state_dir(settings.worker.state_dir)
    if wrong:
        raise source.refuse(wrong)
    return settings
