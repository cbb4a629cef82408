"""Sites, sessions and the database go away in mid-run; a replica is used by somebody else."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from failback.contracts.requests import Request
from failback.contracts.words import Outcome, Phase, ReplicaContent, ReplicaState, StepName
from tests.acceptance.scene import MIB, REPLICA, SOURCE, Scene, world
from tests.acceptance.stage import Stage
from tests.helpers.stack import until

pytestmark = pytest.mark.acceptance

SLOW = {"bandwidth_bytes_per_s": 2 * MIB}
SHORT = {"step_patience_s": 1.0, "switch_patience_s": 1.0}


def awaiting(stage: Stage) -> Scene:
    """A run that awaits its decision, and loses patience soon."""
    scene = stage(world(MIB), transfer=SHORT)
    scene.stack.worker()
    assert scene.start().accepted
    scene.until(Phase.AWAITING_DECISION)
    return scene


def undo(scene: Scene, **answers: object) -> None:
    request = Request.model_validate({"by": "ann", "reason": "DR first", **answers})
    answer = scene.wait(scene.client.undo(scene.key, request))
    assert answer.accepted, answer.message


def stopped_at(scene: Scene, step: StepName) -> str:
    call = scene.until(Phase.NEEDS_OPERATOR).operator
    assert call is not None and call.step is step, call
    return f"{call.code}: {call.message}"


def test_service_is_back_on_dr_although_production_is_away_and_a_wrong_attestation_is_told(
    stage: Stage,
) -> None:
    scene = awaiting(stage)
    scene.lab.post("/sites/production/down")

    undo(scene)
    assert "SiteUnreachable" in stopped_at(scene, StepName.SETTLE)
    assert scene.vm(REPLICA)["power"] == "poweredOff"
    undo(scene, attest_off=[SOURCE[1]])
    assert "SiteUnreachable" in stopped_at(scene, StepName.UNDO_PROTECT_TARGET)

    # Service first: the replica runs while production is still away. But the target ran all along.
    assert scene.vm(REPLICA)["power"] == "poweredOn"
    assert scene.vm(SOURCE)["power"] == "poweredOn"
    scene.lab.post("/sites/production/up")
    answer = scene.wait(scene.client.retry(scene.key, Request(by="ann")))
    assert answer.accepted
    status = scene.ended()

    (alarm,) = status.alarms
    assert alarm.startswith("SPLIT_BRAIN") and SOURCE[1] in alarm
    with scene.catalog() as catalog:
        assert [one.message for one in catalog.alarms(status.run_id)] == [alarm]
    scene.undone(status)


def test_service_is_back_on_dr_although_the_targets_host_is_gone_and_its_vcenter_answers(
    stage: Stage,
) -> None:
    scene = awaiting(stage)
    scene.lab.post("/sites/production/vms/web01/condition", connection_state="disconnected")
    rule = scene.lab.fault(
        "fault", method="PowerOffVM_Task", site="production", fault="HostNotConnected", count=0
    )
    undo(scene)
    assert "VmDisconnected" in stopped_at(scene, StepName.SETTLE)
    undo(scene, attest_off=[f"production:{SOURCE[1]}"])
    until("service is back", lambda: scene.vm(REPLICA)["power"] == "poweredOn", 60)
    serving = scene.status()
    assert serving is not None and not serving.alarms

    scene.lab.delete(f"/faults/{rule}")
    scene.lab.post("/sites/production/vms/web01/condition", connection_state="connected")
    if scene.until(Phase.NEEDS_OPERATOR, Phase.CLOSED).operator is not None:
        scene.wait(scene.client.retry(scene.key, Request(by="ann")))
    status = scene.ended()
    # It ran all along: what was declared of it is told to be wrong.
    assert status.alarms[-1].startswith("SPLIT_BRAIN")
    scene.undone(status)


def test_a_commit_does_not_rest_on_what_a_site_has_disproved_since(stage: Stage) -> None:
    """DR was declared to be off, came back running, and is away again when somebody commits."""
    scene = stage(world(MIB), transfer=SHORT)
    rule = scene.lab.fault("hold-before", method="SetField", site="production", skip=1)
    scene.stack.worker()
    assert scene.start().accepted
    until("it marks", lambda: scene.lab.get(f"/faults/{rule}")["holding"] > 0)
    scene.lab.post("/sites/dr/down")
    scene.lab.post(f"/faults/{rule}/release")
    assert "SiteUnreachable" in stopped_at(scene, StepName.POWER_ON_TARGET)
    dark = Request(by="ann", reason="DR is dark", attest_off=(REPLICA[1],))
    assert scene.wait(scene.client.retry(scene.key, dark)).accepted
    scene.until(Phase.AWAITING_DECISION)
    scene.lab.post("/sites/dr/up")
    scene.lab.post("/sites/dr/vms/web01-replica/power", on=True)
    until("the alarm", lambda: "SPLIT_BRAIN" in alarms(scene), 60)

    scene.lab.post("/sites/dr/down")
    assert scene.wait(scene.client.commit(scene.key, Request(by="bob"))).accepted

    assert "SiteUnreachable" in stopped_at(scene, StepName.COMMIT)
    assert scene.detail().replica.state is ReplicaState.FAILBACK
    # Somebody goes there and pulls the plug: only a new word counts.
    scene.lab.post("/sites/dr/vms/web01-replica/power", on=False)
    unknown = dark.model_copy(update={"attest_off": ("web02",)})
    refused = scene.wait(scene.client.retry(scene.key, unknown))
    assert not refused.accepted and "'web02' is no VM of this run" in refused.message
    assert scene.wait(scene.client.retry(scene.key, dark)).accepted
    assert scene.ended().outcome is Outcome.COMMITTED


def alarms(scene: Scene) -> str:
    """Codes of what was told so far."""
    with scene.catalog() as catalog:
        run = catalog.list_runs(scene.key)[0].run_id
        return " ".join(one.code for one in catalog.alarms(run))


def test_undo_waits_for_dr_where_the_replica_is_to_run_again(stage: Stage) -> None:
    scene = awaiting(stage)
    rule = scene.lab.fault("hold-before", method="PowerOnVM_Task", site="dr")
    undo(scene)
    until("power-on waits", lambda: scene.lab.get(f"/faults/{rule}")["holding"] > 0)
    scene.lab.post("/sites/dr/down")
    scene.lab.post(f"/faults/{rule}/release")

    assert "SiteUnreachable" in stopped_at(scene, StepName.UNDO_POWER_OFF_REPLICA)
    # Nobody runs: the target went off first.
    assert {scene.vm(place)["power"] for place in (SOURCE, REPLICA)} == {"poweredOff"}
    scene.lab.post("/sites/dr/up")
    assert scene.wait(scene.client.retry(scene.key, Request(by="ann"))).accepted

    scene.undone(scene.ended())


def test_sessions_that_end_all_the_time_cost_nothing_but_logins(stage: Stage) -> None:
    scene = stage(world(2 * MIB, MIB), transfer=SLOW)
    scene.stack.worker()
    assert scene.start().accepted

    def expire(*phases: Phase) -> bool:
        for site in ("production", "dr"):
            scene.lab.post(f"/sites/{site}/expire-sessions")
        status = scene.status()
        return status is not None and status.phase in phases

    until("the decision", lambda: expire(Phase.AWAITING_DECISION))
    expire()
    status = scene.commit()

    scene.committed(status)
    assert status.operator is None and not status.alarms


def test_sites_that_restart_in_the_pass_and_in_the_switch_are_waited_for(stage: Stage) -> None:
    scene = stage(world(2 * MIB), transfer=SLOW)
    scene.stack.worker()
    assert scene.start().accepted
    scene.written_segments(2)
    restart(scene)
    # The replica has just been told to shut down: the worst moment to be deaf.
    rule = scene.lab.fault("hold-after", method="ShutdownGuest", site="dr")
    until("it shuts down", lambda: scene.lab.get(f"/faults/{rule}")["holding"] > 0)
    restart(scene)
    scene.lab.post(f"/faults/{rule}/release")
    scene.until(Phase.AWAITING_DECISION)
    restart(scene)

    status = scene.commit()

    scene.committed(status)
    assert status.operator is None


def restart(scene: Scene) -> None:
    """Both vCenters lose every task and session."""
    for site in ("production", "dr"):
        scene.lab.post(f"/sites/{site}/restart")


def test_a_locked_catalog_holds_the_run_up_and_nothing_else(stage: Stage) -> None:
    scene = stage(world(2 * MIB), transfer=SLOW)
    scene.stack.worker()
    assert scene.start().accepted
    scene.written_segments(2)
    with closing(sqlite3.connect(scene.stack.catalog_file, isolation_level=None)) as locker:
        locker.execute("begin exclusive")
        until("it was given up", lambda: "CatalogUnavailable" in scene.stack.workers[0].output)
        assert scene.vm(REPLICA)["power"] == "poweredOn"
        locker.execute("rollback")
    scene.until(Phase.AWAITING_DECISION)

    status = scene.commit()

    scene.committed(status)
    assert status.operator is None


def test_a_replica_that_somebody_used_is_reverted_only_when_a_person_says_so(
    stage: Stage,
) -> None:
    scene = awaiting(stage)
    power_on(scene)
    content = scene.files(REPLICA)[0].read_bytes()

    undo(scene)

    assert "ReplicaUsed" in stopped_at(scene, StepName.UNDO_PROTECT_REPLICA)
    assert scene.files(REPLICA)[0].read_bytes() == content
    undo(scene, replica_content=ReplicaContent.KEEP.value)
    status = scene.ended()
    assert status.outcome is Outcome.UNDONE
    assert scene.target_digests() == scene.digests


def power_on(scene: Scene) -> None:
    """As somebody at the DR site would."""
    scene.lab.post(f"/sites/{REPLICA[0]}/vms/{REPLICA[1]}/power", on=True)
    scene.lab.post(f"/sites/{REPLICA[0]}/vms/{REPLICA[1]}/guest/stop")
