"""Our top-level names are generic; another distribution of the same environment may own them too.

Installers merge such packages without a word, and the last one wins file by file, so the worker
looks before it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions

from failback.errors import SettingsInvalid

NAMES = ("workflows", "activities", "failback", "starter", "worker")
DISTRIBUTION = "failback"


def check_ownership(owners: Mapping[str, Sequence[str]] | None = None) -> None:
    """Raise SettingsInvalid when another distribution installs a package of our names.

    Args:
        owners: distributions by top-level name; those of this environment by default.
    """
    owners = packages_distributions() if owners is None else owners
    for name in NAMES:
        others = sorted({owner for owner in owners.get(name, ()) if owner != DISTRIBUTION})
        if others:
            raise SettingsInvalid(
                f"The package {name!r} is also installed by {', '.join(others)}, so it is not "
                "certain which code would run.",
                "Install failback in an environment of its own.",
            )
