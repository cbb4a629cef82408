"""Finds the file that holds a VMDK's bytes, and refuses those whose bytes are not the disk's.

A VMDK is a small text file, the descriptor, that names its extents. Only a single flat extent can
be opened as it is: byte n of that file is byte n of the disk. A link of a snapshot chain holds only
what changed since its parent, and sparse kinds have a layout of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from failback.disks.mounts import require_mounted, unreachable
from failback.errors import (
    DiskHasParent,
    DiskSizeMismatch,
    DiskUnavailable,
    SettingsInvalid,
)

SECTOR_BYTES = 512
MAX_DESCRIPTOR_BYTES = 64 * 1024
NO_PARENT = "ffffffff"
FLAT_KINDS = frozenset({"VMFS", "FLAT"})
_FILE = re.compile(r"\[(?P<datastore>[^\]\[]+)\] ?(?P<path>.+)")
_EXTENT = re.compile(
    r"(?P<access>RW|RDONLY|NOACCESS)\s+(?P<sectors>\d+)\s+(?P<kind>[A-Z0-9]+)"
    r'(?:\s+"(?P<file>[^"]*)"(?:\s+(?P<offset>\d+))?)?'
)
_SETTING = re.compile(r'(?P<key>[A-Za-z]\w*)\s*=\s*"?(?P<value>[^"]*)"?')


@dataclass(frozen=True)
class FlatExtent:
    """The one extent of a monolithic flat disk."""

    file: str
    capacity_bytes: int
    parent_cid: str


def resolve_flat(
    datastores: Mapping[str, Path], file: str, *, chain_members_complete: bool = False
) -> Path:
    """The flat file behind `file`, a name like "[ds] dir/x.vmdk".

    Args:
        datastores: where each datastore's root is mounted on this host.
        chain_members_complete: this site writes every member of a snapshot chain as a complete
            image, so a disk with a parent may be opened too.

    Raises SettingsInvalid for an unknown datastore, for the folder of another one and for a path
    that leads out of one, DiskUnavailable for a missing file or mount, DiskHasParent for what is
    not one complete flat file, DiskSizeMismatch if the flat file is not as long as its descriptor
    says."""
    named = _FILE.fullmatch(file)
    if named is None:
        raise SettingsInvalid(
            f"{file!r} is no name of a disk.",
            'Expected is a name like "[datastore] folder/x.vmdk".',
        )
    root = datastores.get(named["datastore"])
    if root is None:
        known = ", ".join(sorted(datastores)) or "none"
        raise SettingsInvalid(
            f"The datastore {named['datastore']!r} of {file} is not in the settings"
            f" (known: {known}).",
            "Add the directory where it is mounted to the site's settings.",
            datastore=named["datastore"],
        )
    require_mounted(root, named["datastore"])
    descriptor = _inside(root, PurePosixPath(named["path"]), file)
    extent = parse_descriptor(_read(descriptor, file), file)
    if extent.parent_cid != NO_PARENT and not chain_members_complete:
        raise DiskHasParent(
            f"{file} is a link of a snapshot chain (its parent is {extent.parent_cid}).",
            "Consolidate the disk, or read it through a method that understands chains.",
        )
    name = PurePosixPath(named["path"]).parent / extent.file
    flat = _inside(root, name, file, by_descriptor=PurePosixPath(extent.file))
    actual = _size(flat, file)
    if actual != extent.capacity_bytes:
        raise DiskSizeMismatch(
            f"{flat.name} of {file} has {actual} bytes, its descriptor says"
            f" {extent.capacity_bytes}.",
            "Check the disk with the site's own tools before anything is written to it.",
            actual=actual,
            planned=extent.capacity_bytes,
        )
    return flat


def parse_descriptor(text: str, file: str) -> FlatExtent:
    """The extent of a monolithic flat disk; raises DiskHasParent for every other kind."""
    parent, kind, extents = NO_PARENT, "", list[re.Match[str]]()
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith(("RW ", "RDONLY ", "NOACCESS ")):
            extent = _EXTENT.fullmatch(line)
            if extent is None:
                raise _unfit(file, f"has an extent that cannot be read ({line[:80]!r})")
            extents.append(extent)
        elif setting := _SETTING.fullmatch(line):
            if setting["key"] == "parentCID":
                parent = setting["value"].strip().lower()
            elif setting["key"] == "createType":
                kind = setting["value"].strip()
    if len(extents) != 1:
        raise _unfit(file, f"is made of {len(extents)} files (type {kind or 'unknown'})")
    (extent,) = extents
    if extent["kind"] not in FLAT_KINDS or extent["access"] == "NOACCESS":
        raise _unfit(file, f"is of the kind {extent['kind']} (type {kind or 'unknown'})")
    if not extent["file"] or int(extent["offset"] or 0) != 0:
        raise _unfit(file, "does not begin at the start of its file")
    return FlatExtent(extent["file"], int(extent["sectors"]) * SECTOR_BYTES, parent)


def _read(descriptor: Path, file: str) -> str:
    try:
        with descriptor.open("rb") as opened:
            data = opened.read(MAX_DESCRIPTOR_BYTES + 1)
    except OSError as error:
        raise unreachable(error, f"{descriptor.name} of {file}") from error
    # A sparse disk carries its descriptor inside; its file begins with "KDMV".
    if len(data) > MAX_DESCRIPTOR_BYTES or b"\0" in data or not data.lstrip().startswith(b"#"):
        raise _unfit(file, "is not described by a text file")
    return data.decode("utf-8", "replace")


def _size(flat: Path, file: str) -> int:
    try:
        return flat.stat().st_size
    except OSError as error:
        raise unreachable(error, f"{flat.name} of {file}") from error


def _inside(
    root: Path, path: PurePosixPath, file: str, *, by_descriptor: PurePosixPath | None = None
) -> Path:
    """The existing regular file below the datastore's root, after following links."""
    parts = by_descriptor or path
    if path.is_absolute() or parts.is_absolute() or ".." in path.parts:
        raise _outside(file, str(parts))
    if by_descriptor is not None and len(by_descriptor.parts) != 1:
        raise _outside(file, str(parts))
    try:
        found = (root / path).resolve(strict=True)
        top = root.resolve(strict=True)
    except OSError as error:
        raise unreachable(error, f"{path} of {file}") from error
    except RuntimeError as error:  # links in a circle
        raise _outside(file, str(parts)) from error
    if not found.is_relative_to(top):
        raise _outside(file, str(parts))
    if not found.is_file():
        raise DiskUnavailable(
            f"{path} of {file} is not a regular file.", "Check the datastore's content."
        )
    return found


def _unfit(file: str, why: str) -> DiskHasParent:
    return DiskHasParent(
        f"{file} {why}, so its file does not hold the disk's bytes in order.",
        "Consolidate or convert it to a flat disk, or use a method that understands its kind.",
    )


def _outside(file: str, path: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{path!r} of {file} leads out of its datastore.",
        "Nothing outside a datastore is opened; check the disk's descriptor and its links.",
    )
