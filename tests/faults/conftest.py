"""Catalogs for the fault tests, and the matrix of what was seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from failback.catalog.schema import migrate
from tests.faults.matrix import Matrix
from tests.faults.scene import Scene, copy_of

_MATRIX = pytest.StashKey[Matrix]()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "catalog.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """A scene of that seed and method, with its disks filled and its pass planned."""

    scenes: list[Scene] = []

    def make(seed: int = 1, method: str = "compare", **more: Any) -> Scene:
        root = tmp_path / str(len(scenes))
        root.mkdir()
        url = more.pop("url", None) or copy_of(template, root)
        made = Scene(root, url, random.Random(seed), method, **more)
        made.fill()
        scenes.append(made)
        return made

    yield make
    for one in scenes:
        one.close()


@pytest.fixture
def matrix(pytestconfig: pytest.Config) -> Matrix:
    """Where each test writes down how its fault ended."""
    return pytestconfig.stash.setdefault(_MATRIX, Matrix())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The document is compared last, when everything was seen."""
    items.sort(key=lambda item: item.name == "test_the_document_says_what_was_seen")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The matrix, for people."""
    if (matrix := config.stash.get(_MATRIX, None)) is not None and matrix.rows:
        terminalreporter.section("faults and how they ended")
        for line in matrix.lines():
            terminalreporter.write_line(line)
