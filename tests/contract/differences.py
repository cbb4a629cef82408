"""Where a back end is known to differ from the rules of the port, and why.

A test states such a rule with `backend.rule(key, holds)`. Where it is listed here the rule must
NOT hold, so that an entry cannot outlive its reason.
"""

from __future__ import annotations

LAB = "lab"
PLAIN = "plain"
DOUBLE = "double"

DIFFERENCES: dict[tuple[str, str], str] = {
    (PLAIN, "tools run in a powered-on VM"): (
        "the stock simulator runs no guest and reports no tools"
    ),
    (PLAIN, "a running VM has a boot time"): "the stock simulator never sets it",
    (PLAIN, "a snapshot moves the disks to new files"): (
        "the stock simulator makes no delta files, so names and parents stay"
    ),
    (PLAIN, "a revert restores the power state"): (
        "the stock simulator's revert moves only the current snapshot"
    ),
    (PLAIN, "a tracked disk has a change id"): "the stock simulator tracks nothing",
    (PLAIN, "a disk cannot grow under a snapshot"): "the stock simulator grows it",
    (PLAIN, "a snapshot of somebody else can be made"): (
        "the lab's side door knows no VM when its extensions are off"
    ),
    (PLAIN, "a guest can write"): "the stock simulator's disks hold no bytes",
}
