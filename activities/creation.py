"""Destination `new`: the VM that this run makes, its final identity, and its removal in undo."""

from __future__ import annotations

from dataclasses import dataclass

from activities.attest import NOBODY_KNOWS, attested, require_attested, told
from activities.edge import Attempt
from activities.snapshots import STATE_ATTRIBUTE, second_copy_found, stop_second_copy
from failback.catalog.replicas import claim_of
from failback.catalog.repository import Catalog
from failback.contracts.operations import (
    CopyConfiguration,
    CreateTarget,
    CreateTargetResult,
    DeleteTarget,
    Done,
    RegisterTarget,
)
from failback.contracts.placement import NetworkMap, Placement
from failback.contracts.plan import RunPlan
from failback.contracts.shell import VmConfiguration, VmShell
from failback.contracts.start import StartRequest
from failback.contracts.vm import DiskPair, VmIdentity, VmView
from failback.errors import SiteUnreachable, TargetNotOurs, VmChanged, VmNotFound
from failback.hypervisor.ports import Sites

UNREAD = VmConfiguration(guest_id="", hardware_version="", cpus=1, memory_mb=4)
"""For a search: what identifies the VM is the run and its name, the rest is not looked at."""


@dataclass(frozen=True)
class CreationActivities:
    """Making, naming and deleting the target VM."""

    sites: Sites
    catalog: Catalog

    def create_target(self, argument: CreateTarget, attempt: Attempt) -> CreateTargetResult:
        """Make the shell, off, with empty disks, under its temporary name.

        Idempotent because a VM of this run's mark and name is returned instead of a second.
        """
        plan, run_id = argument.plan, argument.run.run_id
        site = self.sites.site(plan.target.site)
        configuration = self.sites.site(plan.replica.site).configuration(plan.replica)
        shell = shell_of(argument.request, plan, configuration)
        target = site.create_vm(shell, run_id, attempt.beat)
        # No plan names it, so another run could take it for a recovered VM.
        self.catalog.claim(run_id, [claim_of(target)])
        site.set_attribute(target, STATE_ATTRIBUTE, f"incomplete {run_id}", attempt.beat)
        view = site.read([target])[0]
        _require_empty_handed(view, plan)
        return CreateTargetResult(
            target=view.identity,
            pairs=_pairs(view, plan),
            disks=view.disks,
            power_mark=site.power_mark(target),
            # Made in the replica's order.
            unconnected=tuple(
                card.key
                for card, of in zip(view.nics, configuration.nics, strict=False)
                if not of.connected
            ),
            evidence=f"{target} is made with {len(view.disks)} empty disks",
        )

    def delete_target(self, argument: DeleteTarget, attempt: Attempt) -> Done:
        """Delete the VM that this run made, unless something on it is not this run's.

        Idempotent because a VM that is gone counts as deleted, and one whose creation nobody heard
        of is found by its mark after its task has ended.
        """
        site, run_id = self.sites.site(argument.site), argument.run.run_id
        try:
            target = argument.target or self._made(argument, attempt)
            if target is None:
                return Done(evidence="no VM was made")
            view = told(site.read([target])[0])
        except VmNotFound:
            return Done(evidence="the VM is gone", alarm=second_copy_found(self.catalog, argument))
        except SiteUnreachable as error:
            if not argument.accept_not_restored:
                raise
            return Done(evidence=f"{argument.plan.target.name} is left where it is: {error.what}")
        # One that nobody heard of may be another run's recovered VM by now: that is not deleted.
        self.catalog.claim(run_id, [claim_of(target)])
        alarm = stop_second_copy(site, self.catalog, argument, view, attempt)
        foreign = _foreign(view, argument)
        if foreign and not argument.accept_not_restored:
            raise TargetNotOurs(
                f"{target} is not deleted: {foreign}.",
                "Take that away and send retry, or send undo with accept_target_not_restored: the "
                "VM is then left as it is.",
            )
        if foreign:
            return Done(evidence=f"{target} is left: {foreign}", alarm=alarm)
        site.destroy_vm(target, run_id, attempt.beat)
        return Done(evidence=f"{target} is deleted", alarm=alarm)

    def _made(self, argument: DeleteTarget, attempt: Attempt) -> VmIdentity | None:
        plan = argument.plan
        try:
            configuration = self.sites.site(plan.replica.site).configuration(plan.replica)
        except (SiteUnreachable, VmNotFound):
            if not attested(plan.replica, argument.attest_off):
                raise
            configuration = UNREAD
        shell = shell_of(argument.request, plan, configuration)
        return self.sites.site(argument.site).find_made(shell, argument.run.run_id, attempt.beat)

    def copy_configuration(self, argument: CopyConfiguration, attempt: Attempt) -> Done:
        """CPUs, memory and NVRAM of the replica as they are now that it is off. The rest of its
        hardware was compared before (check_drift), when that could still be put right.

        Idempotent because CPUs and memory are states that are read first, and the same NVRAM is
        written again.
        """
        replica, target = argument.replica, argument.target
        theirs, ours = self.sites.site(replica.site), self.sites.site(target.site)
        now = theirs.configuration(replica)
        changed = ours.set_hardware(target, now.cpus, now.memory_mb, attempt.beat)
        told = f"{now.cpus} CPUs, {now.memory_mb} MB{' are new' if changed else ' as before'}"
        try:
            nvram = theirs.read_nvram(replica)
        except VmNotFound:
            nvram = b""
        if not nvram:
            return Done(evidence=f"{told}; the replica has no NVRAM")
        ours.write_nvram(target, nvram, argument.run.run_id, attempt.beat)
        return Done(evidence=f"{told}; NVRAM of {len(nvram)} bytes is copied")

    def register_target(self, argument: RegisterTarget, attempt: Attempt) -> Done:
        """Final name and connected cards; with `back` the temporary name and no connection.

        Idempotent because name and cards are states that are read first, and what a person
        answers for is left as it is.
        """
        target, back = argument.target, argument.back
        site = self.sites.site(target.site)
        try:
            view = told(site.read([target])[0])
        except NOBODY_KNOWS as error:
            if not back:
                raise
            if isinstance(error, VmNotFound):
                return Done(evidence="the VM is gone")
            require_attested(error, target, argument.attest_off)
            # Service comes back first. Deleting it comes after that and waits for the site, and
            # name and cards go with it.
            return Done(evidence=f"{target} cannot be asked; a person declared it to be off")
        cards = tuple(
            nic.model_copy(update={"connected": not back and nic.key not in argument.unconnected})
            for nic in view.nics
        )
        name = temporary_name(argument.final_name) if back else argument.final_name
        if back:
            site.set_nics(target, cards, attempt.beat)
        site.rename_vm(target, name, "", attempt.beat)
        if not back:
            # Only what bears the final name reaches the network.
            site.set_nics(target, cards, attempt.beat)
        how = "disconnected" if back else "connected"
        count = sum(nic.connected is not back for nic in cards)
        return Done(evidence=f"{target.moref} is named {name}, {count} cards {how}")


def temporary_name(final_name: str) -> str:
    """What the VM is called until it is the production VM; vSphere allows 80 characters."""
    suffix = " (failback in progress)"
    return f"{final_name[: 80 - len(suffix)]}{suffix}"


def shell_of(request: StartRequest, plan: RunPlan, configuration: VmConfiguration) -> VmShell:
    """The VM to make: the replica's configuration, without what is left behind."""
    kept = tuple(
        disk for disk in configuration.disks if str(disk.address) not in request.leave_behind
    )
    return VmShell(
        name=temporary_name(plan.final_name),
        configuration=configuration.model_copy(update={"disks": kept}),
        placement=whole_placement(request, configuration.nics),
        keep_bios_uuid=request.new_vm.keep_bios_uuid,
        keep_macs=request.new_vm.keep_macs,
        connect_nics=False,
    )


def whole_placement(request: StartRequest, nics: tuple[object, ...]) -> Placement:
    """The placement with a place for every network of the replica: one not named keeps its name."""
    asked = request.new_vm.placement
    named = {pair.replica for pair in asked.networks}
    networks = dict.fromkeys(str(getattr(nic, "network", "")) for nic in nics)
    same = tuple(NetworkMap(replica=n, target=n) for n in networks if n and n not in named)
    return asked.model_copy(update={"networks": (*asked.networks, *same)})


def _pairs(view: VmView, plan: RunPlan) -> tuple[DiskPair, ...]:
    made = {disk.address: disk for disk in view.disks}
    return tuple(
        pair.model_copy(
            update={
                "target_key": made[pair.address].key,
                "target_capacity_bytes": made[pair.address].capacity_bytes,
            }
        )
        for pair in plan.pairs
    )


def _require_empty_handed(view: VmView, plan: RunPlan) -> None:
    wanted = {pair.address for pair in plan.pairs}
    if {disk.address for disk in view.disks} != wanted or view.snapshots:
        raise VmChanged(
            f"{view.identity} has other disks or snapshots than this run gave it.",
            "Take them away and send retry, or send undo.",
        )


def _foreign(view: VmView, argument: DeleteTarget) -> str:
    """What is on the VM that this run did not put there; empty: nothing."""
    if view.snapshots:
        return f"it has {len(view.snapshots)} snapshots, and this run makes none of it"
    known = {pair.address for pair in argument.plan.pairs}
    added = [
        disk
        for disk in view.disks
        if disk.address not in known or (argument.files and disk.file not in argument.files)
    ]
    if added:
        return f"disk {added[0].address} ({added[0].file}) was not made by this run"
    return ""
