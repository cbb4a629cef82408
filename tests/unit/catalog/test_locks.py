"""Claims, leases and mover hosts."""

from __future__ import annotations

import pytest

from failback.catalog.records import Turn
from failback.catalog.repository import Catalog
from failback.errors import ClaimHeld, LeaseLost, StateConflict
from tests.unit.catalog.build import NOW, add, start


@pytest.fixture(autouse=True)
def _runs(catalog: Catalog) -> None:
    for key in ("web", "db"):
        add(catalog, key)
        start(catalog, f"run-{key}", key)
        catalog.release_claims(f"run-{key}")


def held(catalog: Catalog) -> dict[str, str]:
    return {claim.object: claim.run_id for claim in catalog.claims()}


def test_claims_are_taken_once_by_the_same_run(catalog: Catalog) -> None:
    catalog.claim("run-web", ["replica:web", "vm:1"])
    catalog.claim("run-web", ["vm:1", "vm:2", "vm:2"])

    assert held(catalog) == {"replica:web": "run-web", "vm:1": "run-web", "vm:2": "run-web"}
    assert catalog.claims()[0].taken_at == NOW


def test_claims_are_taken_all_or_none(catalog: Catalog) -> None:
    catalog.claim("run-web", ["vm:2"])

    with pytest.raises(ClaimHeld, match=r"Run run-web holds vm:2\.") as caught:
        catalog.claim("run-db", ["vm:1", "vm:2", "vm:3"])

    assert caught.value.evidence == {"run": "run-web", "object": "vm:2"}
    assert held(catalog) == {"vm:2": "run-web"}


def test_released_claims_are_free(catalog: Catalog) -> None:
    catalog.claim("run-web", ["vm:1", "vm:2"])
    catalog.claim("run-db", ["vm:3"])

    catalog.release_claims("run-web")
    catalog.release_claims("run-web")

    catalog.claim("run-db", ["vm:1"])
    assert held(catalog) == {"vm:1": "run-db", "vm:3": "run-db"}


def test_claims_need_a_run(catalog: Catalog) -> None:
    with pytest.raises(StateConflict, match="no run unknown"):
        catalog.claim("unknown", ["vm:1"])


def test_the_newest_attempt_has_the_lease(catalog: Catalog) -> None:
    first = catalog.take_lease("replica/web", "attempt 1")
    catalog.check_lease("replica/web", first)
    second = catalog.take_lease("replica/web", "attempt 2")

    assert second == first + 1
    catalog.check_lease("replica/web", second)
    with pytest.raises(LeaseLost, match="attempt 2"):
        catalog.check_lease("replica/web", first)
    catalog.check_lease("replica/db", catalog.take_lease("replica/db", "x"))


def test_a_lease_that_was_never_taken_is_lost(catalog: Catalog) -> None:
    with pytest.raises(LeaseLost):
        catalog.check_lease("replica/web", 1)


def test_a_file_serves_one_mover_host(file_catalog: Catalog) -> None:
    file_catalog.register_mover_host("machine-a/boot-1")
    file_catalog.register_mover_host("machine-a/boot-2")

    with pytest.raises(StateConflict, match="PostgreSQL"):
        file_catalog.register_mover_host("machine-b/boot-1")

    file_catalog.forget_mover_host("machine-a")
    file_catalog.register_mover_host("machine-b/boot-1")


def test_an_earlier_generation_of_a_run_loses_whoever_arrives_last(catalog: Catalog) -> None:
    frozen = Turn("execution-1", 40, 3, run_id="run-1", generation=0)
    taken_up = Turn("execution-2", 1, 1, run_id="run-1", generation=1)
    catalog.take_lease("replica/web", "the frozen one", frozen)
    epoch = catalog.take_lease("replica/web", "the one that took up", taken_up)

    with pytest.raises(LeaseLost):
        catalog.take_lease("replica/web", "the frozen one", frozen)

    catalog.check_lease("replica/web", epoch)
    assert catalog.generation_of("run-1") == 1
    assert catalog.generation_of("run-2") == 0


def test_another_run_begins_at_generation_0(catalog: Catalog) -> None:
    catalog.take_lease("replica/web", "old", Turn("e-1", 9, 1, run_id="run-1", generation=7))

    catalog.take_lease("replica/web", "new", Turn("e-2", 1, 1, run_id="run-2"))
