"""The proofs: bytes, file systems, files, inventory, catalog. Each says what was seen."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.processes import DemoFailed
from demo.site import KEY, Site
from tools import paths

Event = dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """One line of the closing table."""

    claim: str
    seen: str
    holds: bool


@dataclass(frozen=True)
class DiskSpace:
    """A disk, and how much of it is not a hole."""

    capacity_bytes: int
    allocated_bytes: int


def replica_disks(site: Site) -> list[DiskSpace]:
    """The replica's disks as they were when it went off."""
    disks = _last(site.power_events("dr"), "power-off")["disks"]
    found = [(disk["capacity_bytes"], Path(disk["image"]).stat()) for disk in disks]
    return [DiskSpace(capacity, stat.st_blocks * 512) for capacity, stat in found]


def committed(site: Site, late_text: str) -> Iterator[Proof]:
    """What must be true after a commit."""
    off = _last(site.power_events("dr"), "power-off")
    on = _last(site.power_events("production"), "power-on")
    yield from _equal(off, on, "target at its power-on = replica at its power-off, disk {}")
    for index, disk in enumerate(on["disks"]):
        yield _clean(Path(disk["image"]), f"e2fsck -fn finds nothing on disk {index}")
    images = [Path(disk["image"]) for disk in on["disks"]]
    yield _files(site.manifest["demo"], images)
    yield _late(site.manifest["demo"], images, late_text)
    production, replica = site.vm("production"), site.vm("dr")
    yield Proof(
        "target VM runs, VM replica is off",
        f"{production['power']}, {replica['power']}",
        (production["power"], replica["power"]) == ("poweredOn", "poweredOff"),
    )
    names = [snapshot["name"] for snapshot in replica["snapshots"]]
    yield Proof(
        "replica keeps its protective snapshot as restore point",
        ", ".join(name.rpartition("/")[2] for name in names) or "none",
        [name.rpartition("/")[2] for name in names] == ["protective"],
    )
    yield _nothing_left("the target", production)
    yield _state(site, "READY")


def undone(site: Site) -> Iterator[Proof]:
    """What must be true after an undo: both sides as they were."""
    events = site.power_events("production")
    # The run's first act: the target as it was, after its last own write.
    before = next(event for event in events if event["event"] == "power-off")
    between = _last(events, "power-on")
    now = site.vm("production")
    for index, disk in enumerate(before["disks"]):
        image, live = Path(disk["image"]), Path(now["disks"][index]["flat_path"])
        claim = f"target disk {index} = what it was before the run"
        yield _same(image, live, claim, (disk["sha256"], disk["sha256"]))
    yield _carried(before, between)
    dr = site.power_events("dr")
    off, on = _last(dr, "power-off"), _last(dr, "power-on")
    yield from _equal(off, on, "replica at its power-on = at its power-off, disk {}")
    replica = site.vm("dr")
    yield Proof(
        "VM replica runs, target VM is off",
        f"{replica['power']}, {now['power']}",
        (replica["power"], now["power"]) == ("poweredOn", "poweredOff"),
    )
    yield _nothing_left("the target", now)
    yield _nothing_left("the replica", replica)
    yield _state(site, "FAILOVER")


def _last(events: list[Event], kind: str) -> Event:
    found = [event for event in events if event["event"] == kind]
    if not found:
        raise DemoFailed(f"The practice site has seen no {kind}.")
    return found[-1]


def _equal(one: Event, later: Event, claim: str) -> Iterator[Proof]:
    """Both events' disks, by the images kept at those instants and the site's own digests."""
    if one["seq"] > later["seq"]:
        yield Proof(claim.format("any"), f"the {later['event']} came before", False)
        return
    for index, (left, right) in enumerate(zip(one["disks"], later["disks"], strict=True)):
        digests = (left["sha256"], right["sha256"])
        yield _same(Path(left["image"]), Path(right["image"]), claim.format(index), digests)


def _same(one: Path, other: Path, claim: str, expected: tuple[str, str]) -> Proof:
    """Byte for byte, by cmp, and by digests of both sides that are also those expected."""
    compared = subprocess.run(["cmp", str(one), str(other)], capture_output=True, check=False)
    digests = (_sha256(one), _sha256(other))
    seen = f"{one.stat().st_size >> 20} MiB, sha256 {digests[0][:12]} and {digests[1][:12]}"
    holds = compared.returncode == 0 and digests[0] == digests[1] and digests == expected
    return Proof(claim, seen, holds)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clean(image: Path, claim: str) -> Proof:
    checked = subprocess.run(
        [str(paths.program("e2fsck")), "-fn", str(image)],
        capture_output=True,
        text=True,
        check=False,
    )
    last = checked.stdout.strip().splitlines()[-1] if checked.stdout.strip() else checked.stderr
    return Proof(claim, last.rpartition(": ")[2].strip()[:60], checked.returncode == 0)


def _read(image: Path, path: str) -> bytes | None:
    """A file's content out of an image, without mounting it; None when it is not there."""
    program = str(paths.program("debugfs"))
    shown = subprocess.run(
        [program, "-R", f"stat {path}", str(image)], capture_output=True, text=True, check=False
    )
    if "Inode:" not in shown.stdout:
        return None
    read = subprocess.run(
        [program, "-R", f"cat {path}", str(image)], capture_output=True, check=False
    )
    return read.stdout


def _files(demo: dict[str, Any], images: list[Path]) -> Proof:
    """Files edited, added and deleted on DR, by content."""
    right = {"edited": 0, "added": 0, "deleted": 0}
    wrong = []
    for disk in demo["disks"]:
        image = images[disk["index"]]
        for kind in ("edited", "added"):
            for file in disk[kind]:
                content = _read(image, file["path"])
                ok = content is not None
                ok = ok and hashlib.sha256(content or b"").hexdigest() == file["sha256"]
                right[kind] += ok
                wrong += [] if ok else [file["path"]]
        for file in disk["deleted"]:
            gone = _read(image, file["path"]) is None
            right["deleted"] += gone
            wrong += [] if gone else [file["path"]]
    seen = ", ".join(f"{count} {kind}" for kind, count in right.items())
    return Proof(
        "the work done on DR is there, by content",
        f"wrong: {', '.join(wrong)}" if wrong else f"files: {seen}",
        not wrong and all(right.values()),
    )


def _late(demo: dict[str, Any], images: list[Path], text: str) -> Proof:
    late = demo["late_file"]
    content = _read(images[late["disk"]], late["path"]) or b""
    return Proof(
        "the order that came in after pass 1 had begun is there",
        content[: len(text)].decode(errors="replace").strip() or "nothing",
        content.startswith(text.encode()),
    )


def _carried(before: Event, between: Event) -> Proof:
    """An undo of nothing would prove nothing."""
    changed = [
        one["index"]
        for one, other in zip(before["disks"], between["disks"], strict=True)
        if one["sha256"] != other["sha256"]
    ]
    return Proof(
        "in between the target had run with other content",
        f"disks {', '.join(map(str, changed))} differed at its power-on"
        if changed
        else "it had not",
        len(changed) == len(before["disks"]),
    )


def _nothing_left(which: str, vm: dict[str, Any]) -> Proof:
    marks = [value for value in vm["custom_values"].values() if value]
    return Proof(
        f"nothing of the run is left on {which}",
        f"{len(vm['snapshots'])} snapshots, {len(marks)} marks",
        not vm["snapshots"] and not marks,
    )


def _state(site: Site, wanted: str) -> Proof:
    shown = json.loads(site.command("replica", "show", KEY, "--json"))
    state = shown["replica"]["state"]
    return Proof(f"replica state {wanted} in the catalog", str(state), state == wanted)
