"""What pass 1 will read and write, as far as it can be said before."""

from __future__ import annotations

from failback.contracts.preview import DiskForecast
from failback.preflight.carry import carried
from failback.preflight.evidence import Evidence


def disks(evidence: Evidence) -> tuple[DiskForecast, ...]:
    """One forecast per pair: what change tracking says, else the expected share of the disk; of a
    disk that is still to be made, everything that the replica's disk holds."""
    stored = {disk.key: disk.stored_bytes for disk in evidence.replica.disks}
    found = []
    for pair in evidence.pairs():
        capacity = pair.capacity_bytes
        examined = capacity
        expected = capacity * evidence.request.expected_change_percent // 100
        tracked = evidence.tracked_bytes.get(str(pair.address))
        if evidence.makes_target:
            held = stored.get(pair.replica_key)
            examined = expected = capacity if held is None else min(held, capacity)
        elif tracked is not None:
            examined = expected = min(tracked, capacity)
        found.append(
            DiskForecast(
                address=str(pair.address),
                capacity_bytes=capacity,
                examined_bytes=examined,
                expected_bytes=expected,
            )
        )
    carry = carried(evidence)
    for disk in carry.disks if carry is not None else ():
        held = stored.get(disk.replica_key)
        found.append(
            DiskForecast(
                address=str(disk.address),
                capacity_bytes=disk.capacity_bytes,
                examined_bytes=disk.capacity_bytes,
                expected_bytes=disk.capacity_bytes if held is None else held,
            )
        )
    return tuple(found)
