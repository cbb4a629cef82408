"""Replicas, jobs, and the compare-and-set of the state."""

from __future__ import annotations

import dataclasses

import pytest

from failback.catalog.replication import CatalogReplication
from failback.catalog.repository import Catalog
from failback.contracts.words import ReplicaState
from failback.errors import ReplicaUnknown, StateConflict
from tests.unit.catalog.build import FAILBACK, FAILOVER, NOW, READY, WAITING, add, start, vm


def test_a_replica_is_read_back_as_it_was_added(catalog: Catalog) -> None:
    added = catalog.add_replica("web", vm("dr", "vm-1"), vm("production", "vm-1"))

    found = catalog.get_replica("web")
    assert found == added
    assert (found.state, found.held_by, found.revision) == (READY, None, 1)
    assert (found.replica, found.source) == (vm("dr", "vm-1"), vm("production", "vm-1"))
    assert found.updated_at == NOW
    assert not found.replication_on_hold


def test_adding_the_same_replica_again_changes_nothing(catalog: Catalog) -> None:
    add(catalog, "web", READY)
    catalog.mark_failover("web")

    add(catalog, "web", READY)

    assert catalog.get_replica("web").state is FAILOVER


def test_a_renamed_vm_is_the_same_vm(catalog: Catalog) -> None:
    add(catalog, "web")
    renamed = vm("dr", "web-replica", name="new name", path="/elsewhere")

    catalog.add_replica("web", renamed, vm("production", "web-source"), FAILOVER)

    assert catalog.get_replica("web").replica == renamed


def test_a_vm_that_was_registered_again_keeps_its_replica(catalog: Catalog) -> None:
    add(catalog, "web")
    old = catalog.get_replica("web").source
    new = old.model_copy(update={"moref": "vm-99", "path": "[ds] elsewhere/web.vmx"})

    for _ in range(2):
        catalog.move_vm(old, new)
        found = catalog.get_replica("web")
        assert (found.source, found.state) == (new, FAILOVER)
    add(catalog, "db")
    with pytest.raises(StateConflict, match="in the catalog already"):
        catalog.move_vm(new, catalog.get_replica("db").source)


def test_a_vm_that_a_run_holds_keeps_its_reference(catalog: Catalog) -> None:
    add(catalog, "web")
    old = catalog.get_replica("web").source
    start(catalog, "run-1", "web")
    catalog.claim("run-1", [f"vm:{old.site}:{old.vcenter_uuid}:{old.moref}"])
    with pytest.raises(StateConflict, match=r"run-1 holds"):
        catalog.move_vm(old, old.model_copy(update={"moref": "vm-99"}))
    assert catalog.get_replica("web").source == old


@pytest.mark.parametrize("key", ["", "Web", "-web", "we b", "a" * 64, "a/b", "web\n"])
def test_a_key_that_is_not_safe_in_a_workflow_id_is_refused(catalog: Catalog, key: str) -> None:
    with pytest.raises(StateConflict, match="cannot be the key"):
        add(catalog, key)


@pytest.mark.parametrize("state", [WAITING, FAILBACK])
def test_a_replica_cannot_be_added_in_a_state_that_belongs_to_a_run(
    catalog: Catalog, state: ReplicaState
) -> None:
    with pytest.raises(StateConflict, match="belongs to a run"):
        add(catalog, "web", state)


def test_another_vm_under_a_known_key_is_refused(catalog: Catalog) -> None:
    add(catalog, "web")

    with pytest.raises(StateConflict, match="already"):
        catalog.add_replica("web", vm("dr", "other"), vm("production", "web-source"))

    assert len(catalog.list_replicas()) == 1


def test_one_vm_cannot_be_two_replicas(catalog: Catalog) -> None:
    add(catalog, "web")

    with pytest.raises(StateConflict, match="replica web"):
        catalog.add_replica("web2", vm("dr", "web-replica"), vm("production", "web-source"))


def test_replica_and_source_are_two_vms(catalog: Catalog) -> None:
    with pytest.raises(StateConflict, match="same VM"):
        catalog.add_replica("web", vm("dr", "vm-1"), vm("dr", "vm-1"))


def test_a_moref_that_was_given_to_another_vm_is_refused(catalog: Catalog) -> None:
    add(catalog, "web")

    with pytest.raises(StateConflict, match="instance UUID"):
        catalog.add_job("nightly", [vm("production", "web-source", instance_uuid="another")])


def test_a_site_that_became_another_vcenter_is_refused(catalog: Catalog) -> None:
    add(catalog, "web")

    with pytest.raises(StateConflict, match="Site dr is vCenter new"):
        catalog.add_replica(
            "db", vm("dr", "vm-9", vcenter_uuid="new"), vm("production", "db-source")
        )


def test_an_unknown_replica_is_named(catalog: Catalog) -> None:
    for call in (catalog.get_replica, catalog.mark_failover, catalog.replica_detail):
        with pytest.raises(ReplicaUnknown, match="no replica web"):
            call("web")


def test_failover_is_marked_once(catalog: Catalog) -> None:
    add(catalog, "web", READY)

    first, second = catalog.mark_failover("web"), catalog.mark_failover("web")

    assert first.state is FAILOVER
    assert first == second


def test_failover_cannot_be_marked_while_a_run_holds_the_replica(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.set_state("run-a", "web", WAITING, [FAILOVER])

    with pytest.raises(StateConflict, match="run-a"):
        catalog.mark_failover("web")


def test_a_state_set_twice_by_the_same_run_is_set_once(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")

    first = catalog.set_state("run-a", "web", FAILBACK, [FAILOVER, WAITING])
    second = catalog.set_state("run-a", "web", FAILBACK, [FAILOVER, WAITING])

    assert (first.state, first.held_by, first.revision) == (FAILBACK, "run-a", 2)
    assert second == first


def test_a_state_of_one_run_cannot_be_touched_by_another(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.set_state("run-a", "web", FAILBACK, [FAILOVER])
    catalog.release_claims("run-a")
    start(catalog, "run-b", "web")

    for to in (FAILOVER, FAILBACK, WAITING):
        with pytest.raises(StateConflict, match="held by run run-a") as caught:
            catalog.set_state("run-b", "web", to, [FAILOVER, FAILBACK, WAITING])
        assert caught.value.evidence == {"found": "FAILBACK", "held_by": "run-a"}

    assert catalog.get_replica("web").held_by == "run-a"


def test_a_state_that_is_not_allowed_to_be_left_is_kept(catalog: Catalog) -> None:
    add(catalog, "web", READY)
    start(catalog, "run-a", "web")

    with pytest.raises(StateConflict, match="in state READY"):
        catalog.set_state("run-a", "web", FAILBACK, [FAILOVER])


def test_only_a_commit_sets_ready(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")

    with pytest.raises(StateConflict, match="only a commit"):
        catalog.set_state("run-a", "web", READY, [FAILOVER])


def test_going_back_to_failover_lets_the_replica_go(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.set_state("run-a", "web", FAILBACK, [FAILOVER])

    back = catalog.set_state("run-a", "web", FAILOVER, [FAILBACK, WAITING, FAILOVER])
    again = catalog.set_state("run-a", "web", FAILOVER, [FAILBACK, WAITING, FAILOVER])

    assert (back.state, back.held_by) == (FAILOVER, None)
    assert again == back


def test_a_run_that_has_ended_sets_nothing(catalog: Catalog) -> None:
    add(catalog, "web")
    start(catalog, "run-a", "web")
    catalog.close_undo("run-a", "web", NOW)

    with pytest.raises(StateConflict, match="ended with UNDONE"):
        catalog.set_state("run-a", "web", FAILBACK, [FAILOVER])


def test_a_run_sets_only_the_state_of_its_own_replica(catalog: Catalog) -> None:
    add(catalog, "web")
    add(catalog, "db")
    start(catalog, "run-a", "web")

    for run, key in (("run-a", "db"), ("unknown", "web")):
        with pytest.raises(StateConflict, match="does not concern"):
            catalog.set_state(run, key, FAILBACK, [FAILOVER])


def test_a_job_lists_what_was_added_last(catalog: Catalog) -> None:
    catalog.add_job("nightly", [vm("production", "a"), vm("production", "b")])

    job = catalog.add_job("nightly", [vm("production", "b"), vm("production", "c")])

    assert [one.moref for one in job.includes] == ["b", "c"]
    assert (job.excludes, job.next_run, job.running) == ((), None, False)


def test_running_jobs_are_those_that_include_the_vm(catalog: Catalog) -> None:
    catalog.add_job("one", [vm("production", "a")])
    catalog.add_job("two", [vm("production", "a"), vm("production", "b")])
    catalog.set_job_running("two", True)

    assert catalog.running_jobs(vm("production", "a")) == ("two",)
    assert catalog.running_jobs(vm("production", "b")) == ("two",)
    assert catalog.running_jobs(vm("production", "never-seen")) == ()

    catalog.set_job_running("two", False)
    assert catalog.running_jobs(vm("production", "a")) == ()


def test_an_unknown_job_is_named(catalog: Catalog) -> None:
    with pytest.raises(StateConflict, match="no replication job nightly"):
        catalog.set_job_running("nightly", True)


def test_hold_follows_from_the_state(catalog: Catalog) -> None:
    add(catalog, "web", READY)
    catalog.add_job("nightly", [vm("production", "web-source")])
    control = CatalogReplication(catalog)

    control.release("web")
    with pytest.raises(StateConflict, match="not on hold"):
        control.hold("web")
    catalog.mark_failover("web")
    control.hold("web")
    with pytest.raises(StateConflict, match="stays on hold"):
        control.release("web")

    assert not control.is_running("nightly")
    catalog.set_job_running("nightly", True)
    assert control.is_running("nightly")


def test_detail_gathers_what_hangs_on_a_replica(catalog: Catalog) -> None:
    add(catalog, "web")
    catalog.add_job("nightly", [vm("production", "web-source")])
    catalog.add_job("other", [vm("production", "unrelated")])
    start(catalog, "run-a", "web")

    detail = catalog.replica_detail("web")

    assert detail.replica == catalog.get_replica("web")
    assert [run.run_id for run in detail.runs] == ["run-a"]
    assert [job.name for job in detail.jobs] == ["nightly"]
    assert detail.restore_points == ()


def test_answers_are_frozen(catalog: Catalog) -> None:
    add(catalog, "web")
    record = catalog.get_replica("web")

    with pytest.raises(dataclasses.FrozenInstanceError):
        record.state = READY  # type: ignore[misc]
