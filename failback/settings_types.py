"""What the tables of the settings are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo


def from_file(path: Path, info: ValidationInfo) -> Path:
    """A path that is relative to the settings file, as an absolute one."""
    folder = (info.context or {}).get("folder", Path.cwd())
    return Path(folder, path.expanduser())


Location = Annotated[Path, Field(strict=False), AfterValidator(from_file)]
"""A path; a relative one is relative to the settings file."""


class Section(BaseModel):
    """A table of the file: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )
