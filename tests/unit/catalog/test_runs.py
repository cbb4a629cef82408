"""Opening and closing runs: one transaction, one outcome."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from failback.catalog.repository import Catalog
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.words import Destination, Outcome, Phase
from failback.errors import ReplicaUnknown, StateConflict
from tests.unit.catalog.build import (
    FAILBACK,
    FAILOVER,
    NOW,
    READY,
    WAITING,
    add,
    start,
    switched,
    vm,
)

LATER = NOW + timedelta(hours=1)


def test_a_run_is_read_back_as_it_was_opened(catalog: Catalog) -> None:
    add(catalog, "web")
    request = StartRequest(replica="web", protect_target=False, by="ann")

    opened = catalog.open_run("run-a", "failback/web", "web", request)

    assert catalog.get_run("run-a") == opened
    assert opened.request == request
    assert (opened.phase, opened.outcome, opened.is_open) == ("PREFLIGHT", None, True)
    assert (opened.started_at, opened.destination) == (NOW, Destination.ORIGINAL)


def test_opening_a_run_again_keeps_its_progress(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.set_run_phase("run-a", Phase.SYNCING)

    start(catalog, "run-a", "web")

    assert catalog.get_run("run-a").phase == "SYNCING"


def test_a_run_needs_its_replica(catalog: Catalog) -> None:
    with pytest.raises(ReplicaUnknown):
        catalog.open_run("run-a", "failback/web", "web", StartRequest(replica="web"))
    with pytest.raises(StateConflict, match="no run run-a"):
        catalog.get_run("run-a")


def test_a_run_id_belongs_to_one_replica(catalog: Catalog) -> None:
    add(catalog, "web")
    add(catalog, "db")
    start(catalog, "run-a", "web")

    with pytest.raises(StateConflict, match="recorded for replica web"):
        catalog.open_run("run-a", "failback/db", "db", StartRequest(replica="db"))
    with pytest.raises(StateConflict, match="concerns replica web"):
        catalog.close_commit("run-a", "db", None, NOW)
    with pytest.raises(StateConflict, match="concerns replica web"):
        catalog.close_undo("run-a", "db", NOW)


def test_phase_and_report_are_stored(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")

    catalog.set_run_phase("run-a", "NEEDS_OPERATOR(SYNCING)")
    catalog.set_run_report("run-a", '{"seconds": 1}')

    run = catalog.get_run("run-a")
    assert (run.phase, run.report) == ("NEEDS_OPERATOR(SYNCING)", '{"seconds": 1}')


def test_runs_are_listed_newest_first(url: str) -> None:
    times = iter(NOW + timedelta(minutes=n) for n in range(100))
    catalog = Catalog(url, now=lambda: next(times))
    add(catalog, "web")
    add(catalog, "db")
    for run_id, key in (("z", "web"), ("a", "db"), ("m", "web")):
        catalog.open_run(run_id, f"failback/{key}", key, StartRequest(replica=key))

    assert [run.run_id for run in catalog.list_runs("web")] == ["m", "z"]
    assert [run.run_id for run in catalog.list_runs()] == ["m", "a", "z"]
    catalog.close()


def test_commit_does_everything_at_once(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")
    catalog.add_job("nightly", [vm("production", "web-source")])
    catalog.add_job("other", [vm("production", "unrelated")])
    request = Request(by="ann", reason="all is well")

    run = catalog.close_commit("run-a", "web", "snapshot-7", LATER, request, snapshot_name="ours")

    detail = catalog.replica_detail("web")
    assert (detail.replica.state, detail.replica.held_by) == (READY, None)
    assert not detail.replica.replication_on_hold
    point = detail.restore_points[0]
    assert (point.snapshot, point.name, point.run_id) == ("snapshot-7", "ours", "run-a")
    assert (point.kind, point.created_at) == ("protective", LATER)
    assert detail.jobs[0].next_run == "full_compare"
    assert [one.moref for one in detail.jobs[0].includes] == ["web-source"]
    assert catalog.get_job("other").next_run is None
    assert catalog.claims() == ()
    assert (run.outcome, run.phase, run.is_open) == (Outcome.COMMITTED, "CLOSED", False)
    assert (run.committed_at, run.ended_at) == (LATER, LATER)
    assert (run.by, run.reason) == ("ann", "all is well")
    assert catalog.is_committed("run-a")


def test_a_repeated_commit_finds_the_first(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")
    assert not catalog.is_committed("run-a")
    first = catalog.close_commit("run-a", "web", "snapshot-7", NOW)

    again = catalog.close_commit("run-a", "web", "snapshot-7", LATER)

    assert again == first
    assert len(catalog.replica_detail("web").restore_points) == 1


def test_a_late_repeat_of_a_commit_leaves_the_next_failover_alone(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")
    catalog.close_commit("run-a", "web", "snapshot-7", NOW)
    catalog.mark_failover("web")
    start(catalog, "run-b", "web")
    catalog.set_state("run-b", "web", FAILBACK, [FAILOVER])

    catalog.close_commit("run-a", "web", "snapshot-7", LATER)

    assert catalog.get_replica("web").held_by == "run-b"
    assert {claim.run_id for claim in catalog.claims()} == {"run-b"}


def test_the_newest_restore_point_comes_first(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")
    catalog.close_commit("run-a", "web", "snapshot-1", NOW)
    catalog.mark_failover("web")
    start(catalog, "run-b", "web")
    catalog.set_state("run-b", "web", FAILBACK, [FAILOVER])
    catalog.close_commit("run-b", "web", "snapshot-2", LATER)

    points = catalog.replica_detail("web").restore_points

    assert [point.snapshot for point in points] == ["snapshot-2", "snapshot-1"]


def test_a_commit_without_protective_snapshot_adds_no_restore_point(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")

    catalog.close_commit("run-a", "web", None, NOW)

    assert catalog.replica_detail("web").restore_points == ()


@pytest.mark.parametrize("state", [FAILOVER, WAITING])
def test_a_commit_before_the_switch_is_refused(catalog: Catalog, state: Any) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.set_state("run-a", "web", state, [FAILOVER])

    with pytest.raises(StateConflict, match=f"web is {state}"):
        catalog.close_commit("run-a", "web", "snapshot-7", NOW)


def test_a_commit_of_what_another_run_holds_is_refused(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")
    catalog.open_run("run-b", "failback/web", "web", StartRequest(replica="web"))

    with pytest.raises(StateConflict, match="held by run run-a"):
        catalog.close_commit("run-b", "web", "snapshot-7", NOW)
    with pytest.raises(StateConflict, match="held by run run-a"):
        catalog.close_undo("run-b", "web", NOW)


@pytest.mark.parametrize("state", [FAILOVER, WAITING, FAILBACK])
def test_undo_goes_back_to_failover(catalog: Catalog, state: Any) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.set_state("run-a", "web", state, [FAILOVER])

    run = catalog.close_undo("run-a", "web", LATER, Request(by="bob"))

    replica = catalog.get_replica("web")
    assert (replica.state, replica.held_by) == (FAILOVER, None)
    assert replica.replication_on_hold
    assert catalog.claims() == ()
    assert (run.outcome, run.ended_at, run.committed_at) == (Outcome.UNDONE, LATER, None)
    assert run.by == "bob"
    assert catalog.close_undo("run-a", "web", NOW) == run


def test_commit_and_undo_exclude_each_other(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")
    switched(catalog, "run-b", "db")
    catalog.close_commit("run-a", "web", None, NOW)
    catalog.close_undo("run-b", "db", NOW)

    with pytest.raises(StateConflict, match="COMMITTED and cannot be undone"):
        catalog.close_undo("run-a", "web", NOW)
    with pytest.raises(StateConflict, match="UNDONE and cannot be committed"):
        catalog.close_commit("run-b", "db", None, NOW)

    assert catalog.get_replica("web").state is READY
    assert catalog.get_replica("db").state is FAILOVER


def test_a_refused_run_changes_nothing_but_its_claims(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    before = catalog.get_replica("web")

    run = catalog.close_refused("run-a")

    assert (run.outcome, run.ended_at) == (Outcome.REFUSED, NOW)
    assert catalog.close_refused("run-a", LATER) == run
    assert catalog.get_replica("web") == before
    assert catalog.claims() == ()


def test_preflight_that_runs_once_more_opens_its_refused_run_again(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.close_refused("run-a")

    start(catalog, "run-a", "web")

    assert catalog.get_run("run-a").is_open
    assert len(catalog.claims()) == 2


def test_an_ended_run_cannot_begin_again(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.close_undo("run-a", "web", NOW)

    with pytest.raises(StateConflict, match="cannot begin again"):
        start(catalog, "run-a", "web")
    with pytest.raises(StateConflict, match="cannot be refused"):
        catalog.close_refused("run-a")
    with pytest.raises(StateConflict, match="cannot claim"):
        catalog.claim("run-a", ["vm:x"])
    catalog.set_run_phase("run-a", Phase.SYNCING)
    assert catalog.get_run("run-a").phase == "CLOSED"


def test_a_run_that_has_switched_cannot_be_refused(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")

    with pytest.raises(StateConflict, match="refused any more"):
        catalog.close_refused("run-a")


def test_commit_is_all_or_nothing_wherever_it_breaks(catalog: Catalog) -> None:
    switched(catalog, "run-a", "web")
    catalog.add_job("nightly", [vm("production", "web-source")])
    before = (catalog.replica_detail("web"), catalog.claims())
    countdown, broken = 0, 0

    def break_after_some(*_: Any) -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            raise ConnectionAbortedError

    event.listen(catalog.database.engine, "before_cursor_execute", break_after_some)
    for statements in range(1, 50):
        countdown = statements
        try:
            catalog.close_commit("run-a", "web", "snapshot-7", NOW)
        except ConnectionAbortedError:
            countdown = -1
            broken += 1
            assert (catalog.replica_detail("web"), catalog.claims()) == before
        else:
            break
    event.remove(catalog.database.engine, "before_cursor_execute", break_after_some)

    assert broken >= 5
    assert catalog.is_committed("run-a")
    assert len(catalog.replica_detail("web").restore_points) == 1
