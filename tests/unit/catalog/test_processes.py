"""Several processes at one catalog; one of them killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from failback.catalog.repository import Catalog
from tests.unit.catalog import fighters
from tests.unit.catalog.build import FAILOVER, add, start

ROOT = Path(__file__).parents[3]

Start = Callable[[Callable[[str, str], None], str], "subprocess.Popen[str]"]


@pytest.fixture
def other_process(url: str) -> Iterator[Start]:
    """Starts a function of fighters.py and waits until it is ready."""
    started: list[subprocess.Popen[str]] = []

    def begin(work: Callable[[str, str], None], argument: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", fighters.__name__, work.__name__, url, argument],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def run_together(*processes: subprocess.Popen[str]) -> list[list[int]]:
    """Let them go at the same moment; the numbers that each prints."""
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [
        [int(word) for word in process.communicate(timeout=60)[0].split()] for process in processes
    ]


def test_no_epoch_is_given_twice(catalog: Catalog, other_process: Start) -> None:
    one, two = run_together(
        other_process(fighters.take_leases, "one"), other_process(fighters.take_leases, "two")
    )

    assert sorted(one + two) == list(range(1, 101))
    assert one == sorted(one)
    catalog.check_lease("replica/web", 100)


def test_no_pair_of_claims_is_torn(catalog: Catalog, other_process: Start) -> None:
    for key in ("web", "db"):
        add(catalog, key)
        start(catalog, f"run-{key}", key)
        catalog.release_claims(f"run-{key}")

    web, db = run_together(
        other_process(fighters.take_claims, "run-web"),
        other_process(fighters.take_claims, "run-db"),
    )

    assert sorted(web + db) == list(range(40))
    held = {claim.object: claim.run_id for claim in catalog.claims()}
    for run_id, numbers in (("run-web", web), ("run-db", db)):
        for number in numbers:
            assert held[f"vm:{number}"] == held[f"replica:{number}"] == run_id
    assert len(held) == 80


def test_a_writer_killed_in_the_middle_leaves_nothing(
    catalog: Catalog, other_process: Start
) -> None:
    add(catalog, "web")
    before = catalog.get_replica("web")
    writer = other_process(fighters.write_and_hang, "web")
    assert writer.stdout
    assert writer.stdout.readline() == "ready\n"
    assert catalog.get_replica("web") == before

    writer.kill()
    writer.wait()

    assert catalog.get_replica("web") == before
    assert catalog.mark_failover("web").state is FAILOVER
    catalog.raise_alarm("run", "TEST", "the lock went with the process")
