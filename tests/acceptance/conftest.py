"""One Temporal server for all acceptance tests; a lab, a queue and a catalog for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.acceptance.scene")

from tests.acceptance.outage import Outage, happen  # noqa: E402 - its assertions explain themselves
from tests.acceptance.stage import Stage, stager  # noqa: E402
from tests.helpers.stack import TemporalServer  # noqa: E402


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


@pytest.fixture(scope="session")
def outage(server: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    """The run of test_away.py and test_return.py."""
    with ExitStack() as ending:
        folder = tmp_path_factory.mktemp("outage")
        yield happen(stager(server, folder, "outage", ending.callback))
