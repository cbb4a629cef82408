"""What counts as a change of the replica, and which of them the target can follow."""

from __future__ import annotations

from typing import Any

import pytest

from failback.contracts.plan import CarriedDisk, Carry
from failback.contracts.vm import Disk, DiskAddress, VmView
from failback.contracts.words import PowerState
from failback.preflight.drift import drifts, grown
from tests.unit.workflows.fake_runtime import MIB, PAIRS, PLAN, REPLICA


def disk(unit: int, **more: Any) -> Disk:
    address = DiskAddress(controller="scsi", bus=0, unit=unit)
    fields: dict[str, Any] = {"file": "[ds] web01/x.vmdk", "capacity_bytes": MIB} | more
    return Disk(key=2000 + unit, address=address, **fields)


def replica(*disks: Disk) -> VmView:
    return VmView(identity=REPLICA, power=PowerState.ON, tools_running=True, disks=disks)


@pytest.mark.parametrize(
    ("disks", "told", "followed"),
    [
        ((disk(0), disk(1)), [], []),
        ((disk(0),), ["disk scsi0:1 is gone"], [False]),
        (
            (disk(0, capacity_bytes=2 * MIB), disk(1)),
            ["disk scsi0:0 had 1048576 bytes when the run began and has 2097152 now"],
            [True],
        ),
        (
            (disk(0, capacity_bytes=MIB // 2), disk(1)),
            ["disk scsi0:0 had 1048576 bytes when the run began and has 524288 now"],
            [False],
        ),
        (
            (disk(0), disk(1), disk(2)),
            ["disk scsi0:2 was added, so its data would be lost"],
            [False],
        ),
        (
            (disk(0), disk(1, refusals=("independent",))),
            ["disk scsi0:1 is an independent disk"],
            [False],
        ),
    ],
    ids=["none", "gone", "grown", "shrunk", "added", "independent"],
)
def test_every_change_of_a_disk_is_told(
    disks: tuple[Disk, ...], told: list[str], followed: list[bool]
) -> None:
    found = drifts(PLAN, replica(*disks), ())
    assert [one.grown for one in found] == followed
    for one, text in zip(found, told, strict=True):
        assert one.what.startswith(text)


def test_a_disk_that_stays_behind_is_no_change() -> None:
    assert drifts(PLAN, replica(disk(0), disk(1), disk(2)), ["scsi0:2"]) == ()


def test_the_plan_follows_and_what_was_added_to_the_target_is_a_wish_again() -> None:
    added = CarriedDisk(
        address=PAIRS[1].address, replica_key=2001, capacity_bytes=MIB, folder="[ds] web01"
    )
    carry = Carry(cpus=1, memory_mb=1, cpus_before=1, memory_mb_before=1, disks=(added,))
    plan = PLAN.model_copy(update={"carry": carry})

    found = grown(plan, replica(disk(0, capacity_bytes=3 * MIB), disk(1, capacity_bytes=2 * MIB)))

    assert [(pair.address, pair.capacity_bytes) for pair in found.pairs] == [
        (PAIRS[0].address, 3 * MIB)
    ]
    assert found.pairs[0].target_capacity_bytes == 3 * MIB
    assert found.carry is not None and found.carry.disks[0].capacity_bytes == 2 * MIB


def test_a_target_that_is_larger_stays_so() -> None:
    large = tuple(pair.model_copy(update={"target_capacity_bytes": 9 * MIB}) for pair in PAIRS)
    plan = PLAN.model_copy(update={"pairs": large})
    found = grown(plan, replica(disk(0, capacity_bytes=2 * MIB), disk(1)))
    assert [pair.target_capacity_bytes for pair in found.pairs] == [9 * MIB, 9 * MIB]
