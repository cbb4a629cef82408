"""The same kills with the ledger in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from failback.catalog.schema import migrate
from tests.faults.kills import kill_many
from tests.faults.scene import Scene
from tests.helpers import postgres

NewScene = Callable[..., Scene]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("psycopg")
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as url:
        migrate(url)
        yield url


def test_kills_with_the_ledger_in_postgresql(scene: NewScene, url: str) -> None:
    tally = kill_many(scene(1, url=url), 5)

    assert tally.wrong == []


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_kills_with_the_ledger_in_postgresql(scene: NewScene, url: str) -> None:
    here = scene(2, url=url)
    # The database outlives a test: a pass of another one is not this one's.
    here.plan_name = "soak"
    here.fill()

    tally = kill_many(here, 25)

    assert tally.wrong == []
    assert tally.resumed
