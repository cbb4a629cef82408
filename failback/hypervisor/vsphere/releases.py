"""Which releases of vSphere are supported, by the version of their API."""

from __future__ import annotations

import logging
from typing import Any

from failback.errors import OperationUnsupported
from failback.hypervisor.connection import SiteConnection

log = logging.getLogger(__name__)

NEWEST = (9, 99)
"""A newer one is used all the same, with a warning: vSphere keeps what it once offered."""


def require(about: Any, connection: SiteConnection) -> None:
    """Raise OperationUnsupported for a release that is too old.

    Args:
        about: the site's AboutInfo, which it tells before any login.
    """
    found = api_version(str(about.apiVersion))
    if found < connection.oldest_api:
        raise OperationUnsupported(
            f"Site {connection.name} is {about.fullName} with API {about.apiVersion}, which is "
            f"too old: API {'.'.join(map(str, connection.oldest_api))} to {NEWEST[0]} "
            "is supported.",
            "Upgrade it, or reach the VM through a newer vCenter.",
            found=str(about.apiVersion),
        )
    if found > NEWEST:
        log.warning(
            "site is newer than the releases we know",
            extra={"site": connection.name, "found": str(about.apiVersion)},
        )


def api_version(text: str) -> tuple[int, int]:
    """`8.0.3.0` -> (8, 0); what is no number counts as 0."""
    parts = [int(part) if part.isdigit() else 0 for part in (*text.split("."), "0", "0")]
    return parts[0], parts[1]
