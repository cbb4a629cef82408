"""The tables that say what hooks do: commands and HTTP calls that requests may name."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ValidationInfo, model_validator

from failback import settings_check
from failback.hooks.calls import HookCommand, HookUrl
from failback.settings_types import Location, Section, from_file


def _program(argv: list[str], info: ValidationInfo) -> list[str]:
    if not argv or not argv[0]:
        raise ValueError("is empty; its first element is the program")
    if "/" not in argv[0]:
        # What a search path finds is not what somebody has written down.
        raise ValueError("must begin with the path of the program, with a / in it")
    if any("\0" in argument for argument in argv):
        raise ValueError("carries a NUL")
    return [str(from_file(Path(argv[0]), info)), *argv[1:]]


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("https", "http") or not parts.hostname
        _ = parts.port
    except ValueError:
        wrong = True
    if wrong or any(ord(letter) <= 32 for letter in url):
        raise ValueError("is not of the form https://host/path")
    if "@" in parts.netloc:
        raise ValueError("carries a user name or password; headers_file has them")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HookSettings(Section):
    """A command or an HTTP call; exactly one of `command` and `url`."""

    command: Annotated[list[str], AfterValidator(_program)] | None = None
    url: Annotated[str, AfterValidator(_url)] | None = None
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = "POST"
    headers_file: Location | None = None
    ca_file: Location | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("must have either command or url")
        if self.url is None:
            if self.headers_file or self.ca_file or self.insecure or self.method != "POST":
                raise ValueError("has keys that only a hook with url has")
            return self
        parts = urlsplit(self.url)
        plain = parts.scheme == "http" and not _is_loopback(parts.hostname or "")
        if plain and not self.insecure:
            raise ValueError("has a url that is not encrypted; use https, or insecure = true")
        return self

    def call(self, name: str) -> HookCommand | HookUrl:
        """What is called; SettingsInvalid when others may read its headers file."""
        if self.headers_file is not None:
            settings_check.private_file(
                f"headers file of hook {name}", "headers_file", self.headers_file
            )
        if self.command is not None:
            return HookCommand(tuple(self.command))
        return HookUrl(self.url or "", self.method, self.headers_file, self.ca_file, self.insecure)
