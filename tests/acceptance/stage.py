"""Makes scenes: a lab, a task queue, a catalog and keys of their own for each."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.acceptance.scene import Scene
from tests.helpers.lab import start_lab
from tests.helpers.stack import Stack, TemporalServer


class Stage(Protocol):
    """Makes a scene of a world."""

    def __call__(
        self,
        world: dict[str, Any],
        *flags: str,
        address: str | None = None,
        **settings: dict[str, Any],
    ) -> Scene: ...


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
        scene = Scene(stack, key, server)
        later(scene.close)
        return scene

    return make
