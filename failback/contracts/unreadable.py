"""What stands in the place of a value on the wire that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unreadable:
    """Neither JSON nor anything else that we know; whoever takes it says that it is no input."""

    why: str
    """Without the value itself, which may be a secret."""
