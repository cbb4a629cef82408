"""What every model on the wire has in common: frozen, tolerant of unknown fields, bounded."""

from __future__ import annotations

from typing import Annotated, NewType

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

RunId = NewType("RunId", str)
"""Identity of one run: the first execution run id of its workflow."""

ReplicaKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Catalog key of a replica; safe in file names and workflow ids, unique."""

Name = Annotated[str, StringConstraints(max_length=255)]
"""A name or id from elsewhere: VM, site, moref, UUID, snapshot."""

Text = Annotated[str, StringConstraints(max_length=2000)]
"""A sentence for people, or a path."""


WHOLE = "input"
"""The place of what is wrong with a message as a whole."""


def complaint(error: ValidationError) -> tuple[str, str]:
    """Where input does not fit, and why, of the first thing that is wrong; without the value, which
    may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or WHOLE
    return place, first["msg"].removeprefix("Value error, ")


class Contract(BaseModel):
    """A frozen message; a field added after a release has a default: old histories still decode."""

    model_config = ConfigDict(frozen=True, extra="ignore")
