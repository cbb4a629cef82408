"""Where a back end is known to differ from the rules of the port, and why.

A test states such a rule with `backend.rule(key, holds)`. Where it is listed here the rule must
NOT hold, so that an entry cannot outlive its reason.
"""

from __future__ import annotations

LAB = "lab"
PLAIN = "plain"
OLD = "old"
"""The stock simulator of govmomi v0.38.0, without a line of ours inside it."""
DOUBLE = "double"

_STOCK = {
    "tools run in a powered-on VM": "the stock simulator runs no guest and reports no tools",
    "a running VM has a boot time": "the stock simulator never sets it",
    "a snapshot moves the disks to new files": (
        "the stock simulator makes no delta files, so names and parents stay"
    ),
    "a revert restores the power state": (
        "the stock simulator's revert moves only the current snapshot"
    ),
    "a revert restores the hardware": (
        "the stock simulator's revert moves only the current snapshot"
    ),
    "a tracked disk has a change id": "the stock simulator tracks nothing",
    "a disk cannot grow under a snapshot": "the stock simulator grows it",
    "a registered VM has the disks of its file": (
        "the stock simulator does not read the file: such a VM comes back empty"
    ),
    "a guest can write": "the stock simulator's disks hold no bytes",
}
"""Of the stock simulator in every release that we run against."""

DIFFERENCES: dict[tuple[str, str], str] = {
    **{(PLAIN, key): reason for key, reason in _STOCK.items()},
    **{(OLD, key): reason for key, reason in _STOCK.items()},
    (PLAIN, "a snapshot of somebody else can be made"): (
        "the lab's side door knows no VM when its extensions are off"
    ),
    (PLAIN, "there is a second datastore"): "a world of the lab has one datastore per site",
    (LAB, "there is a second datastore"): "a world of the lab has one datastore per site",
    (OLD, "a VM can be found by uuid"): "it finds one VM by uuid, but not all of them",
    (OLD, "a snapshot of somebody else can be made"): "it has no side door",
}
