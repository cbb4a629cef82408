"""What preflight looks at: the two VMs of a request, found and read, with their disks' labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from activities.attest import told
from activities.creation import temporary_name, whole_placement
from activities.disks import Disks
from activities.edge import Attempt
from failback.catalog.records import ReplicaRecord
from failback.catalog.repository import Catalog
from failback.contracts.placement import (
    DatastoreView,
    Misplaced,
    NetworkMap,
    Placement,
    PlacementView,
)
from failback.contracts.plan import RunPlan, Tuning
from failback.contracts.start import StartRequest
from failback.contracts.vm import Disk, VmIdentity, VmView
from failback.contracts.words import Destination, PowerState
from failback.errors import (
    DiskError,
    FailbackError,
    SiteUnreachable,
    VmChanged,
    VmNotFound,
)
from failback.hooks.calls import Calls
from failback.hypervisor.ports import Sites
from failback.preflight.carry import carried
from failback.preflight.collect import Ask, collect
from failback.preflight.evidence import Evidence

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The target of a request: a VM that exists, or the wish for one."""

    identity: VmIdentity
    wish: VmView | None = None
    placement: PlacementView | None = None
    final_name: str = ""


@dataclass(frozen=True)
class Gathering:
    """Reads everything that the checks and the plan of one request rest on; changes nothing."""

    sites: Sites
    catalog: Catalog
    disks: Disks
    tuning: Tuning
    calls: Calls = field(default_factory=Calls)

    def target(self, request: StartRequest, record: ReplicaRecord) -> Wanted:
        """Find the target. Errors: those of finding a VM, PlacementInvalid for a bad place."""
        match request.destination:
            case Destination.ORIGINAL:
                return Wanted(record.source)
            case Destination.RECOVERED:
                return Wanted(self._recovered(request, record))
            case Destination.NEW:
                return self._new(request, record)

    def evidence(
        self, request: StartRequest, record: ReplicaRecord, wanted: Wanted, attempt: Attempt
    ) -> Evidence:
        """Read both VMs, once, and look at their disks."""
        ask = Ask(
            request=request,
            state=record.state,
            replica=record.replica,
            target=wanted.identity,
            running_jobs=self.catalog.running_jobs(record.source),
            wish=wanted.wish,
        )
        (evidence,) = collect(self.sites, [ask], attempt.beat, datetime.now(UTC))
        view, unknown = self._old_source(request, record)
        unopenable = self._unopenable(evidence)
        made = wanted.wish is not None
        evidence = replace(evidence, lacking_networks=self._lacking_networks(evidence))
        return replace(
            evidence,
            unopenable=unopenable,
            labels={} if unopenable or made else self._labels(evidence, attempt),
            unknown_hooks=self.calls.unknown(names_of_hooks(request)),
            placement=wanted.placement,
            new_name=wanted.final_name,
            old_source=view,
            old_source_unknown=unknown,
            power_ons_unread=self._power_ons_unread(evidence, attempt),
            switch_at=request.switch.at,
        )

    def plan(self, evidence: Evidence, record: ReplicaRecord) -> RunPlan:
        """What a run of this evidence follows."""
        replaced = evidence.request.destination is not Destination.ORIGINAL
        source = evidence.old_source
        return RunPlan(
            replica=evidence.replica.identity,
            target=evidence.target.identity,
            pairs=evidence.pairs(),
            replica_power=evidence.replica.power,
            target_power=evidence.target.power,
            replica_tracking=evidence.replica.tracking_enabled,
            target_tracking=self._tracking(evidence),
            target_snapshots=len(evidence.target.snapshots),
            tuning=self.tuning,
            old_source=record.source if replaced else None,
            old_source_there=bool(source or evidence.old_source_unknown),
            old_source_power=source.power if source is not None else PowerState.UNKNOWN,
            replica_tools=evidence.replica.tools_running,
            final_name=evidence.new_name,
            carry=carried(evidence),
        )

    def _tracking(self, evidence: Evidence) -> bool:
        """Whether the target's tracking is to be on after the run: also where it is off because the
        cleanup of the run before has not come yet, which leaves it to the run that claims it."""
        target = evidence.target
        if evidence.makes_target:
            return False
        return target.tracking_enabled or self.catalog.tracking_owed(target.identity)

    def _lacking_networks(self, evidence: Evidence) -> tuple[Misplaced, ...]:
        """Of the networks that carried-over cards get, those the target's host does not have."""
        carry = carried(evidence)
        if carry is None or not carry.nics:
            return ()
        wanted = tuple(NetworkMap(replica=n, target=n) for n in {c.network for c in carry.nics})
        target = evidence.target
        where = Placement(host=target.host or "", networks=wanted)
        found = self.sites.site(target.identity.site).place(where, target.identity.name)
        return tuple(one for one in found.missing if one.kind == "network")

    def _recovered(self, request: StartRequest, record: ReplicaRecord) -> VmIdentity:
        site, colon, place = request.recovered.partition(":")
        if not colon or not place:
            raise VmNotFound(
                f"The recovered VM {request.recovered!r} is not of the form SITE:NAME_OR_PATH.",
                "Start with --recovered SITE:NAME_OR_PATH.",
            )
        found = self.sites.site(site).find(place)
        if same(found, record.source):
            raise VmChanged(
                f"The recovered VM {found} is the source VM itself.",
                "Start with destination original.",
            )
        return found

    def _new(self, request: StartRequest, record: ReplicaRecord) -> Wanted:
        wish = request.new_vm
        name, site = wish.name or record.replica.name, wish.site or record.source.site
        replica = self.sites.site(record.replica.site).read([record.replica])[0]
        where = whole_placement(request, replica.nics)
        # Both names must be free; the temporary one is proven when the VM is made.
        placed = self.sites.site(site).place(where, name)
        identity = VmIdentity(
            site=site,
            vcenter_uuid=self.sites.site(site).about().uuid,
            moref="",
            name=temporary_name(name),
            instance_uuid="",
            bios_uuid="",
            path="",
        )
        stores = {name: store for store in placed.datastores for name in (store.name, store.moref)}
        first = next(iter(placed.datastores), None)
        places = {disk.address: stores.get(disk.datastore, first) for disk in where.disks}
        usual = stores.get(where.datastore, first)
        disks = tuple(
            _made(disk, places.get(str(disk.address), usual), identity.name)
            for disk in replica.disks
            if str(disk.address) not in request.leave_behind
        )
        view = VmView(
            identity=identity,
            power=PowerState.OFF,
            tools_running=False,
            disks=disks,
            cpus=replica.cpus,
            memory_mb=replica.memory_mb,
            nics=replica.nics,
            datastores=placed.datastores,
        )
        return Wanted(identity, view, placed, name)

    def _old_source(
        self, request: StartRequest, record: ReplicaRecord
    ) -> tuple[VmView | None, str]:
        """The old source VM where another takes its place, and why it could not be asked."""
        if request.destination is Destination.ORIGINAL:
            return None, ""
        try:
            return told(self.sites.site(record.source.site).read([record.source])[0]), ""
        except VmNotFound:
            return None, ""
        except (SiteUnreachable, VmChanged) as error:
            # It may run behind a host that does not answer, or under another reference.
            return None, str(error)

    def _power_ons_unread(self, evidence: Evidence, attempt: Attempt) -> tuple[VmIdentity, ...]:
        """Of both VMs, those whose site does not tell when they were powered on."""
        found = []
        for view in (evidence.replica, evidence.target):
            vm = view.identity
            attempt.beat()
            if vm.moref and self.sites.site(vm.site).power_mark(vm) is None:
                found.append(vm)
        return tuple(found)

    def _unopenable(self, evidence: Evidence) -> dict[str, str]:
        found: dict[str, str] = {}
        for view, disk in evidence.paired_disks():
            try:
                if view is evidence.target and evidence.makes_target:
                    store = disk.file[1:].partition("]")[0]
                    self.disks.require_place(view.identity.site, store)
                else:
                    self.disks.require(view.identity.site, disk.file)
            except FailbackError as error:
                found[disk.file] = str(error)
        return found

    def _labels(self, evidence: Evidence, attempt: Attempt) -> Mapping[str, tuple[str, str]]:
        """Names of both disks of each pair, where both can be read now and have one."""
        labels: dict[str, tuple[str, str]] = {}
        disks = {(view.identity, disk.key): disk for view, disk in evidence.paired_disks()}
        replica, target = evidence.replica.identity, evidence.target.identity
        for pair in evidence.pairs():
            try:
                ours = self.disks.label(replica, disks[replica, pair.replica_key], attempt)
                theirs = self.disks.label(target, disks[target, pair.target_key], attempt)
            except DiskError as error:
                # A host may lock a running VM's disk: it is looked at again before any write.
                log.info("disk not looked at", extra={"vm": str(target), "detail": str(error)})
                continue
            if ours is not None and theirs is not None:
                labels[str(pair.address)] = (ours, theirs)
        return labels


def names_of_hooks(request: StartRequest) -> list[str]:
    """Calls of the worker's settings that a request names: its hooks and its command probes."""
    commands = [probe.command for probe in request.finalize.probes if probe.command]
    return [*(hook.name for hook in request.hooks), *commands]


def same(one: VmIdentity, other: VmIdentity) -> bool:
    """Whether both name one VM."""
    return (one.site, one.vcenter_uuid, one.moref) == (other.site, other.vcenter_uuid, other.moref)


def _made(disk: Disk, store: DatastoreView | None, folder: str) -> Disk:
    """A disk as it will be made: of the replica's size; its file only says which datastore."""
    return disk.model_copy(
        update={
            "file": f"[{store.name if store else ''}] {folder}/{disk.address}.vmdk",
            "parent_file": None,
            "change_id": None,
            "datastore": store.moref if store else None,
            "linked": False,
        }
    )
