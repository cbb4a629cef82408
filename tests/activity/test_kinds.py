"""A disk is moved and verified the same, whatever way the settings choose for its site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from activities.registry import mover
from failback.disks.kinds import DiskKind
from tests.activity.test_transfer import files, plan, verification
from tests.activity.world import World


def reached_by(world: World, source: DiskKind, target: DiskKind) -> dict[str, Any]:
    """The movers' activities of a worker whose sites have these kinds."""
    access = world.rooms.disks.access
    kinds = {"dr": source, "production": target}
    disks = replace(
        world.rooms.disks,
        access={name: replace(one, kind=kinds[name]) for name, one in access.items()},
    )
    return {one.__name__: one for one in mover(replace(world.rooms, disks=disks))}


@pytest.mark.parametrize("kinds", [("file", "file"), ("flat", "file"), ("file", "flat")])
def test_transport_and_verify_of_local_disks(
    world: World, kinds: tuple[DiskKind, DiskKind]
) -> None:
    argument = plan(world)
    activities = reached_by(world, *kinds)

    moved = world.environment().run(activities["transport_changes"], argument)
    again = world.environment().run(activities["transport_changes"], argument)
    verified = world.environment().run(activities["verify"], verification(argument))

    source, target = files(world)
    assert source.read_bytes() == target.read_bytes()
    assert (moved.written_bytes, moved.zeroed_bytes) == (65536, 65536)
    assert again.resumed_bytes == moved.examined_bytes
    assert len(verified.digest) == 64
    assert not list(Path(world.rooms.disks.state_dir, "fences").glob("*.doubt"))
