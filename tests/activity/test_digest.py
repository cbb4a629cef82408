"""The digest method as the activities choose and run it: two movers, real TLS on loopback."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from activities.registry import control, mover, serve_disks
from failback.contracts.operations import CalculateDifference, DiskSides, TransportChanges, Verify
from failback.contracts.vm import DiskAddress, DiskOpening, DiskPair
from failback.contracts.words import Method, StepName
from failback.disks.kinds import DatastoreAccess
from failback.disks.plan import BLOCK_BYTES
from failback.disks.remote.disk import MoverSite
from failback.settings_disks import MoverSettings
from tests.activity.test_transfer import guard_of
from tests.activity.world import MIB, World, make, random_bytes, write_disk
from tests.helpers.tls import Authority

SIZE = 2 * MIB + 512


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The replica's datastore is not mounted here: a mover of its site serves it."""
    world = make(tmp_path)
    authority = Authority(tmp_path / "tls")
    here = authority.issue("client", "mover.production").key.parent
    there = authority.issue("server", "mover.dr").key.parent
    there_access = world.rooms.disks.access["dr"]
    service = serve_disks(
        MoverSettings(tls_dir=there, listen="127.0.0.1:0", peers=["mover.production"]), there_access
    )
    assert service is not None
    far = DatastoreAccess(
        kind="mover", mover=MoverSite("127.0.0.1", service.port, "mover.dr", here)
    )
    disks = dataclasses.replace(world.rooms.disks, access={**world.rooms.disks.access, "dr": far})
    world.rooms = dataclasses.replace(world.rooms, disks=disks)
    for function in (*control(world.rooms), *mover(world.rooms)):
        world.activities[function.__name__] = function
    try:
        yield world
    finally:
        service.close()
        world.catalog.close()


def openings(world: World) -> tuple[DiskOpening, DiskOpening]:
    """Replica and target, which differ in two blocks, one of them zero in the replica."""
    old = random_bytes(1, SIZE)
    new = bytearray(old)
    new[300_000:300_100] = random_bytes(2, 100)
    new[MIB : MIB + BLOCK_BYTES] = bytes(BLOCK_BYTES)
    source, target = (
        DiskOpening(
            site=site,
            vm_moref=vm.moref,
            disk_key=2000,
            file=write_disk(world.root / site, "disk0", data),
            capacity_bytes=SIZE,
        )
        for site, vm, data in (
            ("dr", world.replica, bytes(new)),
            ("production", world.target, old),
        )
    )
    return source, target


def planned(world: World) -> TransportChanges:
    source, target = openings(world)
    address = DiskAddress(controller="scsi", bus=0, unit=0)
    sides = DiskSides(
        pair=DiskPair(
            address=address,
            replica_key=2000,
            target_key=2000,
            capacity_bytes=SIZE,
            target_capacity_bytes=SIZE,
        ),
        source=source,
        target=target,
    )
    argument = CalculateDifference(
        **world.head(StepName.CALCULATE_DIFFERENCE),
        pass_no=1,
        replica=world.replica,
        guard=guard_of(world),
        disks=(sides,),
    )
    result = world.run("calculate_difference", argument)
    return TransportChanges(
        **world.head(StepName.TRANSPORT_CHANGES),
        plan=result.plans[0],
        source=source,
        target=target,
        guard=result.guard,
    )


def flat(world: World, site: str) -> Path:
    return world.root / site / "vm" / "disk0-flat.vmdk"


def test_a_far_replica_is_compared_by_digests_written_and_verified(world: World) -> None:
    argument = planned(world)

    first = world.run("transport_changes", argument)
    verified = world.run(
        "verify",
        Verify.model_validate({**dict(argument), "step": StepName.VERIFY, "whole_disk": True}),
    )

    assert argument.plan.method is Method.DIGEST
    assert "behind the mover of its site" in argument.plan.reason
    assert flat(world, "production").read_bytes() == flat(world, "dr").read_bytes()
    assert (first.method, first.written_bytes, first.zeroed_bytes) == (
        Method.DIGEST,
        BLOCK_BYTES,
        BLOCK_BYTES,
    )
    assert (verified.checked_bytes, verified.repaired, len(verified.digest)) == (SIZE, False, 64)


def test_verify_over_the_link_finds_and_repairs_a_difference(world: World) -> None:
    argument = planned(world)
    world.run("transport_changes", argument)
    with flat(world, "production").open("r+b") as file:
        file.write(b"damaged")

    verified = world.run(
        "verify",
        Verify.model_validate({**dict(argument), "step": StepName.VERIFY, "whole_disk": True}),
    )

    assert verified.repaired
    assert flat(world, "production").read_bytes() == flat(world, "dr").read_bytes()


def test_nothing_is_written_through_another_sites_mover(world: World) -> None:
    argument = planned(world)
    swapped = argument.model_copy(update={"source": argument.target, "target": argument.source})

    with pytest.raises(ApplicationError, match="only reads"):
        world.run("transport_changes", swapped)
