"""Addresses of movers as people write them."""

from __future__ import annotations

from urllib.parse import urlsplit

from failback.errors import SettingsInvalid


def host_and_port(text: str) -> tuple[str, int]:
    """`host:port`, or `[address]:port` for IPv6; SettingsInvalid for anything else."""
    try:
        parts = urlsplit(f"//{text}")
        plain = parts.netloc == text and "@" not in text
        if plain and parts.hostname and parts.port is not None:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise SettingsInvalid(f"{text!r} is no address of a mover.", "Write it as host:port.")
