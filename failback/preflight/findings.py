"""Errors that end preflight, as the findings people see."""

from __future__ import annotations

from failback.contracts.plan import Finding
from failback.errors import FailbackError, SettingsInvalid
from failback.preflight.evidence import refuse


def of_error(error: FailbackError, subject: str) -> Finding:
    """The error as a finding that refuses; its code is the error's type name in capitals."""
    return refuse(code_of(error), subject, error.what, error.remedy)


def code_of(error: FailbackError) -> str:
    """Stable finding code of an error."""
    if isinstance(error, SettingsInvalid):
        return "SETTINGS_INVALID"
    name = error.type
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()
