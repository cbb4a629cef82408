"""One Temporal server for all acceptance tests; a lab, a queue and a catalog for each of them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

pytest.register_assert_rewrite("tests.acceptance.scene")

from tests.acceptance.scene import Scene  # noqa: E402 - its assertions explain themselves
from tests.helpers.lab import start_lab  # noqa: E402
from tests.helpers.stack import Stack, TemporalServer  # noqa: E402


class Stage(Protocol):
    """Makes a scene of a world."""

    def __call__(
        self,
        world: dict[str, Any],
        *flags: str,
        address: str | None = None,
        **settings: dict[str, Any],
    ) -> Scene: ...


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    """The Temporal server that tests share."""
    made = TemporalServer(tmp_path_factory.mktemp("temporal server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def stage(
    server: TemporalServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    """Scenes of one test; ended with it."""
    with ExitStack() as ending:
        yield stager(server, tmp_path, request.node.name, ending.callback)


def stager(
    server: TemporalServer, folder: Path, test: str, later: Callable[[Callable[[], None]], Any]
) -> Stage:
    """A stage whose scenes are ended by what is given to `later`."""

    def make(
        world: dict[str, Any],
        *flags: str,
        address: str | None = None,
        **settings: dict[str, Any],
    ) -> Scene:
        # Workflow ids are global at the shared server, and paths with spaces must work.
        name = re.sub(r"[^a-z0-9]+", "-", test.lower())[:40].strip("-")
        key = f"{name}-{uuid.uuid4().hex[:6]}"
        home = folder / f"a stack {key[-6:]}"
        lab = start_lab(world, home, *flags)
        stack = Stack(lab, home, address or server.address, f"queue-{key}", dict(settings))
        later(stack.close)
        scene = Scene(stack, key)
        later(scene.close)
        return scene

    return make
