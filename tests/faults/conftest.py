"""Catalogs for the fault tests, and the matrix of what was seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from failback.catalog.schema import migrate
from tests.faults.scene import Scene, copy_of


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "catalog.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Callable[..., Scene]:
    """A scene of that seed and method, with its disks filled and its pass planned."""

    def make(seed: int = 1, method: str = "compare") -> Scene:
        made = Scene(tmp_path, copy_of(template, tmp_path), random.Random(seed), method)
        made.fill()
        return made

    return make
