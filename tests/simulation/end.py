"""What must be true when a run has ended: bytes, inventory, catalog, and what people were told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from failback.catalog.records import FULL_COMPARE, PROTECTIVE
from failback.contracts.words import Destination, Outcome, PowerState, ReplicaState, RequestKind
from tests.simulation.crew import Wrong

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

RUN_ID = "run-1"
JOB = "nightly"
REPLICA = "web01-replica"
HOME = "web01-home"


def check(made: Simulation) -> None:
    """Wrong says what is not as it must be."""
    _decided(made)
    _alarms(made)
    committed = made.outcome is Outcome.COMMITTED
    expected = _committed(made) if committed else _undone(made)
    now = made.world.picture()
    if now != expected:
        raise Wrong(f"after {made.outcome}: {_difference(expected, now)}")
    _catalog(made)


def _decided(made: Simulation) -> None:
    if RequestKind.UNDO in made.asked and made.outcome is not Outcome.UNDONE:
        raise Wrong(f"an undo was accepted, and it is {made.outcome}")
    if RequestKind.COMMIT in made.asked and made.outcome is not Outcome.COMMITTED:
        raise Wrong(f"a commit was accepted, and it is {made.outcome}")
    if made.outcome is Outcome.REFUSED and not made.run.facts.findings:
        raise Wrong("it was refused without a reason")


def _alarms(made: Simulation) -> None:
    world, codes = made.world, {alarm.code for alarm in made.catalog.alarms(RUN_ID)}
    allowed = {"CLEANUP"}
    if world.used or world.stays_on:
        allowed.add("SPLIT_BRAIN")
    if world.rotten:
        allowed.add("VERIFY_MISMATCH")
    if world.on_at_first - {"web01-replica"}:
        # Its shutdown was noted and the attempt ended before it was sent: that looks like a request
        # whose guest hangs, and undo tells of it.
        allowed.add("GUEST_MAY_STOP")
    if codes - allowed:
        raise Wrong(f"alarms that nothing explains: {sorted(codes - allowed)}")
    if world.rotten and made.outcome is Outcome.COMMITTED and "VERIFY_MISMATCH" not in codes:
        raise Wrong("a block was lost, and nobody was told")


def _replica_bytes(made: Simulation) -> list[bytes]:
    """What the replica must hold: all that was written to it, unless somebody has agreed."""
    world = made.world
    if world.may_revert and world.used and not world.reverted:
        raise Wrong("what was written to the replica was to go, and stayed")
    return [bytes(part) for part in world.content]


def _undone(made: Simulation) -> dict[str, dict[str, Any]]:
    """As before; but what serves goes on serving, and what runs beside it was switched off."""
    world, now = made.world, made.world.picture()
    expected = {name: dict(vm) for name, vm in world.before.items()}
    replica = expected[REPLICA]
    replica["data"] = _replica_bytes(made)
    for name in ("web01", "web01-restored"):
        plan = made.run.facts.plan
        mine = plan is not None and name in (
            plan.target.name,
            plan.old_source.name if plan.old_source is not None else "",
        )
        if mine and now[name]["power"] is PowerState.OFF:
            expected[name]["power"] = PowerState.OFF
        # Undo does not shrink what was grown; behind the old content there is nothing.
        for number, old in enumerate(list(expected[name]["data"])):
            found = now[name]["data"][number]
            room = len(replica["data"][number]) - len(old)
            if plan is not None and name == plan.target.name and found == old + bytes(room):
                expected[name]["data"] = list(expected[name]["data"])
                expected[name]["data"][number] = found
    return expected


def _committed(made: Simulation) -> dict[str, dict[str, Any]]:
    """Production has all of it, the replica is off under its restore point, the rest as before."""
    world, plan = made.world, made.run.facts.known
    target = world.target()
    if target is None:
        raise Wrong("committed without a target")
    expected = {name: dict(vm) for name, vm in world.before.items()}
    replica = expected[REPLICA]
    content = _replica_bytes(made)
    replica.update(
        power=PowerState.OFF,
        tracking=True,
        snapshots=[f"failback/{RUN_ID}/protective"],
        data=content,
    )
    old_source = plan.old_source.name if plan.old_source is not None else ""
    if old_source in expected and plan.old_source_there:
        expected[old_source]["power"] = PowerState.OFF
    name = target.identity.name
    if made.request.destination is Destination.NEW:
        if name != HOME:
            raise Wrong(f"the new VM is called {name}")
        mine = expected[name] = dict(replica, tracking=plan.target_tracking)
        mine["nics"] = [
            card.model_copy(update={"mac": own.mac, "address_type": own.address_type})
            for card, own in zip(replica["nics"], target.nics, strict=True)
        ]
    else:
        mine = expected[name]
    data = [bytearray(part) for part in world.protected or content]
    for number, offset, written in world.production_wrote:
        data[number][offset : offset + len(written)] = written
    mine.update(power=PowerState.ON, snapshots=[], data=[bytes(part) for part in data])
    durable = [bytes(made.disks.volume(disk).durable) for disk in target.disks]
    if durable != mine["data"]:
        raise Wrong("a power cut would take from the target what was committed")
    return expected


def _catalog(made: Simulation) -> None:
    catalog, world, committed = made.catalog, made.world, made.outcome is Outcome.COMMITTED
    if catalog.claims():
        raise Wrong(f"claims remain: {catalog.claims()}")
    detail = catalog.replica_detail("web01")
    wanted = ReplicaState.READY if committed else ReplicaState.FAILOVER
    if (detail.replica.state, detail.replica.held_by) != (wanted, None):
        raise Wrong(f"after {made.outcome} the replica is {detail.replica.state}")
    target = world.target()
    source = target.identity if committed and target is not None else world.source
    if detail.replica.source != source:
        raise Wrong(f"after {made.outcome} the source VM is {detail.replica.source}")
    points = [(p.snapshot, p.name, p.kind, p.run_id) for p in detail.restore_points]
    kept = [
        (s.shown.moref, s.shown.name, PROTECTIVE, RUN_ID)
        for s in world.dr.vm(world.replica).snapshots
    ]
    if points != kept:
        raise Wrong(f"restore points {points} of snapshots {kept}")
    job = catalog.get_job(JOB)
    moved = committed and source.moref != world.source.moref
    found = ([vm.moref for vm in job.includes], [vm.moref for vm in job.excludes], job.next_run)
    excluded = [world.source.moref] if moved else []
    if found != ([source.moref], excluded, FULL_COMPARE if committed else None):
        raise Wrong(f"after {made.outcome} the job is {job}")
    for run in catalog.list_runs("web01"):
        # A run whose preflight had not ended is refused in the catalog, whatever stopped it.
        begun = made.run.facts.plan is not None
        if run.ended_at is None or (run.outcome is not made.outcome and begun):
            raise Wrong(f"after {made.outcome} the catalog says {run.outcome}, {run.phase}")
        if (run.committed_at is not None) is not committed:
            raise Wrong(f"after {made.outcome} committed_at is {run.committed_at}")


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    texts = [f"VMs {sorted(before)} became {sorted(now)}"] if set(before) != set(now) else []
    for name in sorted(set(before) & set(now)):
        for key, value in before[name].items():
            if now[name][key] != value:
                shown = f"{value} became {now[name][key]}"
                texts.append(f"{name} {key}: {'bytes' if key == 'data' else shown}")
    return "; ".join(texts)
