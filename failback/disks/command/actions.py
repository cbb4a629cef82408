"""compare, sync and verify. Each returns whether the disks are equal (sync: have become so)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

from failback.disks.blockio import BlockIO
from failback.disks.command.areas import read_all
from failback.disks.command.interrupt import Interrupt
from failback.disks.command.show import Screen
from failback.disks.command.sides import Pair, opened
from failback.disks.command.units import size, span
from failback.disks.command.unwritten import PassOnce, Unwritten
from failback.disks.copier import CopyOptions, copy
from failback.disks.digest import VerifyOptions
from failback.disks.digest import verify as digest
from failback.disks.ledger import PassLedger
from failback.disks.plan import SEGMENT_BYTES, Extent, TransferPlan, plan_areas
from failback.disks.progress import CopyProgress
from failback.disks.throttle import Throttle
from failback.errors import FailbackError, SettingsInvalid, Stopped

SHOWN_EXTENTS = 10
REPORT_S = 0.5


def compare(args: argparse.Namespace, shown: Screen, interrupt: Interrupt) -> bool:
    """Tell where the disks differ; writes nothing."""
    found = _Differences(shown)
    with _both(args, write=False) as pair:
        ledger = PassOnce(_plan(args, pair.capacity_bytes), found.add)
        progress = _copy(args, pair, Unwritten(pair.target), ledger, shown, interrupt)
    found.close()
    shown.end()
    extra = pair.target.capacity_bytes - pair.capacity_bytes
    shown.give(
        "compared",
        equal=not found.bytes,
        different_bytes=found.bytes,
        extents=found.count,
        first_difference=found.first,
        examined_bytes=progress.examined_bytes,
        beyond_source_bytes=extra,
    )
    if found.bytes:
        if found.count > SHOWN_EXTENTS:
            shown.say(f"  ... and {found.count - SHOWN_EXTENTS} more (--json shows all)")
        shown.say(
            f"The disks differ: {found.bytes} bytes ({size(found.bytes)}) in {found.count}"
            f" extent{'s' * (found.count != 1)}, the first at offset {found.first}."
        )
    else:
        shown.say(f"The disks are equal: {size(progress.examined_bytes)} compared.")
    if extra:
        shown.say(f"The target is {extra} bytes longer; what lies there was not compared.")
    return not found.bytes


def sync(args: argparse.Namespace, shown: Screen, interrupt: Interrupt) -> bool:
    """Make the target equal to the source, going on where the ledger says."""
    args.method = args.method or ("tracked" if args.extents else "compare")
    if (args.method == "tracked") != (args.extents is not None):
        raise SettingsInvalid(
            "The method tracked and --extents belong together.",
            "Give the changed areas with --extents FILE, or use --method compare.",
        )
    if args.blank_target and args.method != "full":
        raise SettingsInvalid(
            "--blank-target is for --method full only.",
            "Leave it out: a comparison finds by itself what is zero.",
        )
    began = time.monotonic()
    with _both(args, write=True) as pair:
        plan = _plan(args, pair.capacity_bytes, args.segment or SEGMENT_BYTES)
        with (
            (
                _passes().kept(args.ledger, pair, plan, shown.note)
                if args.ledger
                else nullcontext(PassOnce(plan))
            ) as ledger,
            _going_on(args, ledger),
        ):
            progress = _copy(args, pair, pair.target, ledger, shown, interrupt)
            totals = ledger.totals()
    shown.end()
    seconds = time.monotonic() - began
    shown.give(
        "synced",
        method=args.method,
        different_bytes=totals.different_bytes,
        written_bytes=totals.written_bytes,
        zeroed_bytes=totals.zeroed_bytes,
        examined_bytes=totals.examined_bytes,
        resumed_bytes=progress.resumed_bytes,
        seconds=round(seconds, 3),
    )
    shown.say(
        f"The target is equal now: {size(totals.written_bytes)} written and"
        f" {size(totals.zeroed_bytes)} zeroed of {size(totals.examined_bytes)}, in {span(seconds)}."
    )
    return True


def verify(args: argparse.Namespace, shown: Screen, interrupt: Interrupt) -> bool:
    """Digest both sides over the whole disk, or over what is named and a sample."""
    shown.begin("verifying")
    with _both(args, write=False) as pair:
        written: tuple[Extent, ...] = ()
        if args.extents:
            written += read_all(args.extents, pair.capacity_bytes)
        if args.ledger:
            written += _passes().written(args.ledger, pair)
        whole = args.whole or not (args.extents or args.ledger)
        # Nothing is written, so a signal may end it at any instant.
        outcome = digest(
            pair.source,
            pair.target,
            written,
            check=lambda: None,
            report=shown.progress,
            sample_fraction=args.sample,
            whole_disk=whole,
            options=VerifyOptions(report_interval_s=REPORT_S),
        )
    shown.end()
    shown.give(
        "verified",
        equal=outcome.equal,
        checked_bytes=outcome.checked_bytes,
        root=outcome.root_hex,
        first_difference=outcome.first_difference_offset,
    )
    if outcome.equal:
        shown.say(f"The disks are equal: {size(outcome.checked_bytes)} checked.")
        shown.say(f"root {outcome.root_hex}")
    else:
        shown.say(f"The disks differ, first at offset {outcome.first_difference_offset}.")
    return outcome.equal


def _passes() -> Any:
    """The ledger in a file; only now, because it loads a database."""
    return import_module("failback.disks.command.passes")


def _both(args: argparse.Namespace, *, write: bool) -> AbstractContextManager[Pair]:
    return opened(args.source, args.target, write=write, raw=args.raw, tls_dir=args.tls)


def _plan(
    args: argparse.Namespace, capacity_bytes: int, segment_bytes: int = SEGMENT_BYTES
) -> TransferPlan:
    areas = read_all(args.extents, capacity_bytes) if args.extents else None
    try:
        plan = plan_areas(capacity_bytes, areas, segment_bytes)
        if segment_bytes % 65536:
            raise ValueError("it is not a multiple of 64K")
    except ValueError as error:
        raise SettingsInvalid(f"--segment cannot be used: {error}.", "Use 64M.") from None
    return plan


def _copy(
    args: argparse.Namespace,
    pair: Pair,
    target: BlockIO,
    ledger: PassLedger,
    shown: Screen,
    interrupt: Interrupt,
) -> CopyProgress:
    shown.begin("comparing" if args.name == "compare" else "syncing")
    limit = args.bandwidth
    options = CopyOptions(
        full=getattr(args, "method", "") == "full",
        blank_target=getattr(args, "blank_target", False),
        throttle=Throttle(float(limit), clock=time.monotonic) if limit else None,
        flush_interval_s=getattr(args, "checkpoint", CopyOptions.flush_interval_s),
        report_interval_s=REPORT_S,
    )
    interrupt.patient = True
    try:
        return copy(
            pair.source,
            target,
            ledger,
            options=options,
            check=interrupt.check,
            report=shown.progress,
            clock=time.monotonic,
        )
    finally:
        interrupt.patient = False


@contextmanager
def _going_on(args: argparse.Namespace, ledger: PassLedger) -> Iterator[None]:
    """Every end before the end says what is done and how to continue."""
    try:
        yield
    except FailbackError as error:
        totals = ledger.totals()
        how = (
            f"Run the same command again: it goes on after the {totals.segments} segments"
            f" ({size(totals.examined_bytes)}) that are finished and flushed."
            if args.ledger
            else "Run it again: everything is compared anew, but what is equal is not written again"
            " (with --ledger FILE it would go on from here)."
        )
        if isinstance(error, Stopped):
            raise Stopped("Interrupted at a checkpoint.", how) from error
        error.remedy = f"{error.remedy} {how}".strip()
        error.args = (f"{error.what} {error.remedy}",)
        raise


class _Differences:
    """Sums and prints extents, those that touch as one."""

    def __init__(self, shown: Screen) -> None:
        self._shown = shown
        self._last: Extent | None = None
        self.count = self.bytes = 0
        self.first: int | None = None

    def add(self, extent: Extent) -> None:
        last = self._last
        if last is not None and last.end == extent.offset:
            self._last = Extent(last.offset, last.length + extent.length)
        else:
            self.close()
            self._last = extent

    def close(self) -> None:
        extent, self._last = self._last, None
        if extent is None:
            return
        self.count += 1
        self.bytes += extent.length
        self.first = extent.offset if self.first is None else min(self.first, extent.offset)
        self._shown.give("extent", offset=extent.offset, length=extent.length)
        if self.count <= SHOWN_EXTENTS:
            self._shown.say(f"  differs at {extent.offset}, {extent.length} bytes")
