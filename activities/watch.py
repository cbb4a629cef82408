"""The watch while a person decides: power states, the workload, and what our snapshots cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from temporalio import activity

from activities.attest import attested, told
from activities.edge import Attempt, now
from activities.hooks import occasion_of
from activities.probes import Asker, Probing
from activities.room import Reserve, stores_of
from failback.catalog.repository import Catalog
from failback.contracts.operations import (
    SnapshotLook,
    WatchDecision,
    WatchProgress,
    WatchResult,
)
from failback.contracts.vm import Snapshot, VmIdentity, VmView
from failback.contracts.words import Phase, PowerState
from failback.errors import SiteError, VmDisconnected, VmError
from failback.hooks.calls import Calls
from failback.hypervisor.ports import Sites

OLD = timedelta(hours=72)
"""Age at which a snapshot is told of: it grows with every write, and its merge takes the longer."""

LOOK_S = 0.5
ALARM_CHARACTERS = 2000


@dataclass(frozen=True)
class WatchActivities:
    """Only reads. `sleep` and the clock are injected for tests."""

    sites: Sites
    catalog: Catalog
    calls: Calls = field(default_factory=Calls)
    reserve: Reserve = field(default_factory=Reserve)
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], datetime] = now

    def watch_decision(self, argument: WatchDecision, attempt: Attempt) -> WatchResult:
        """Return when two copies run, one that must be off does not, a probe fails, or our
        snapshots grow too large or too old; of these last two only once for each VM.

        Idempotent because it only reads.
        """
        self.catalog.set_run_phase(argument.run.run_id, Phase.AWAITING_DECISION)
        started, due = self.clock(), self.clock()
        first: dict[str, int] = {}
        asker = self._asker(argument, attempt)
        with Probing(asker, argument.probes, argument.probes_count_from, self.clock) as probing:
            while True:
                if self.clock() >= due:
                    due = self.clock() + argument.interval
                    for result in self._round(argument, attempt, first, started):
                        # Cancelled meanwhile: what it saw may be the undo's own work.
                        attempt.beat()
                        return self._tell(argument, result)
                failed = probing.failure()
                if failed:
                    return self._tell(argument, ("PROBE_FAILED", failed))
                attempt.beat()
                self.sleep(LOOK_S)

    def _tell(self, argument: WatchDecision, result: tuple[str, str]) -> WatchResult:
        code, alarm = result[0], result[1][:ALARM_CHARACTERS]
        self.catalog.raise_alarm(argument.run.run_id, code, alarm)
        return WatchResult(alarm=alarm, code=code)

    def _asker(self, argument: WatchDecision, attempt: Attempt) -> Asker:
        replica = next(iter(argument.must_be_off), None)
        occasion = occasion_of(argument, attempt, replica, argument.target)
        return Asker(self.sites, self.calls, argument.target, occasion)

    # --- one look ---

    def _round(
        self,
        argument: WatchDecision,
        attempt: Attempt,
        first: dict[str, int],
        started: datetime,
    ) -> Iterator[tuple[str, str]]:
        """What is wrong, the worst first."""
        views: list[VmView] = []
        for vm in dict.fromkeys((*argument.must_be_off, argument.target)):
            view = self._read(vm)
            if view is None:
                continue
            views.append(view)
            breach = _breach(view, argument.attest_off) if vm in argument.must_be_off else ""
            if breach:
                yield "SPLIT_BRAIN", breach
        looks: list[SnapshotLook] = []
        prefix = f"failback/{argument.run.run_id}/"
        for view in views:
            ours = [one for one in view.snapshots if one.name.startswith(prefix)]
            for one in ours:
                look = self._look(view, one, first)
                looks.append(look)
                attempt.details = WatchProgress(since=started, snapshots=tuple(looks))
            if ours:
                yield from self._costs(argument, view, ours)

    def _read(self, vm: VmIdentity) -> VmView | None:
        try:
            return self.sites.site(vm.site).read([vm])[0]
        except (SiteError, VmError):
            # Not to be read is not a breach; the next round asks again, and every power-on proves
            # the state anew.
            return None

    def _look(self, view: VmView, snapshot: Snapshot, first: dict[str, int]) -> SnapshotLook:
        stored = sum(disk.stored_bytes or 0 for disk in view.disks)
        began = first.setdefault(str(view.identity), stored)
        free = [one.free_bytes for one in stores_of(view) if one.capacity_bytes]
        return SnapshotLook(
            vm=str(view.identity)[:255],
            name=snapshot.name,
            created_at=snapshot.created_at,
            stored_bytes=stored,
            grown_bytes=max(stored - began, 0),
            free_bytes=min(free) if free else None,
        )

    def _costs(
        self, argument: WatchDecision, view: VmView, ours: list[Snapshot]
    ) -> Iterator[tuple[str, str]]:
        vm = view.identity
        seems_short = self.reserve.short(stores_of(view)) is not None
        if seems_short and not self._told(argument, "SNAPSHOT_GROWS", vm):
            short = self.reserve.short(stores_of(self._refreshed(view)))
            if short is not None:
                yield (
                    "SNAPSHOT_GROWS",
                    f"{vm} runs on or keeps a snapshot of this run, and "
                    f"{self.reserve.words(short)}. Commit or undo before it is full, or make "
                    "room there.",
                )
        times = [one.created_at for one in ours if one.created_at is not None]
        if (
            times
            and self.clock() - min(times) >= OLD
            and not self._told(argument, "SNAPSHOT_OLD", vm)
        ):
            yield (
                "SNAPSHOT_OLD",
                f"{vm} has had a snapshot of this run since {min(times):%Y-%m-%d %H:%M} UTC, "
                f"{OLD.total_seconds() / 3600:.0f} hours or more. It grows with every write and "
                "its removal takes the longer: commit or undo.",
            )

    def _refreshed(self, view: VmView) -> VmView:
        """The VM after its site has looked at the free space anew: what it knows may be old."""
        site = self.sites.site(view.identity.site)
        try:
            site.refresh_datastores([one.moref for one in stores_of(view)])
            return site.read([view.identity])[0]
        except (SiteError, VmError):
            return view

    def _told(self, argument: WatchDecision, code: str, vm: VmIdentity) -> bool:
        """Whether an earlier watch of this run told the workflow. What an attempt of this very
        scheduling wrote down before it died did not reach the workflow."""
        return any(
            alarm.code == code
            and alarm.message.startswith(f"{vm} ")
            and alarm.at < activity.info().scheduled_time
            for alarm in self.catalog.alarms(argument.run.run_id)
        )


def _breach(view: VmView, names: tuple[str, ...]) -> str:
    """Why two copies may run, of a VM that must be off; empty when it is off. One that its site
    shows without knowing may run for as long as nobody answers for it."""
    vm = view.identity
    try:
        power = told(view).power
    except VmDisconnected as error:
        if attested(vm, names):
            return ""
        return (
            f"{error.what} It must be off until commit or undo: two copies of one machine may run. "
            "Bring its host back, or decide."
        )
    if power is PowerState.OFF:
        return ""
    return (
        f"{vm} is {power} although it must be off until commit or undo: two copies of one machine "
        "may run. Power it off, or decide at once."
    )
