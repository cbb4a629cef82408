"""What the product needs of a virtualisation site, in the product's words.

Synchronous: implementations block, and call `beat` at least every two seconds while they wait.
Every mutation is safe to issue twice: it reads the state first, finds its own earlier work by mark,
reattaches to a running task, and only then acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Protocol

from failback.contracts.placement import Placement, PlacementView
from failback.contracts.shell import VmConfiguration, VmShell
from failback.contracts.site import SiteAbout
from failback.contracts.vm import Disk, DiskAddress, Nic, VmIdentity, VmView

Beat = Callable[[], None]
"""Called while waiting and right before every mutation is sent. It raises LeaseLost when a newer
attempt has taken over and Stopped when the wait should end; implementations let both pass."""


class Site(Protocol):
    """One vCenter or host, below one inventory root. Errors: the SiteError and VmError trees."""

    @property
    def name(self) -> str: ...

    def about(self) -> SiteAbout:
        """What the site is; raises SiteUnreachable, LoginRefused, ..."""
        ...

    def keep_alive(self) -> bool:
        """Keep an idle session from ending; whether anything was sent. Cheap, call it often."""
        ...

    def ping(self) -> str:
        """Return product name and version; raises SiteUnreachable, LoginRefused, ..."""
        ...

    def find(self, name_or_path: str) -> VmIdentity:
        """Find exactly one VM by inventory path, moref or name: VmNotFound, VmAmbiguous."""
        ...

    def find_again(self, vm: VmIdentity) -> VmIdentity:
        """The VM's identity as it is now: its moref changes when it is registered anew. Found by
        instance UUID, or by BIOS UUID and path; VmNotFound, VmAmbiguous, VmChanged."""
        ...

    def read(self, vms: Sequence[VmIdentity]) -> list[VmView]:
        """Read all of them in one round trip, in order. VmNotFound where one is gone,
        VmChanged where a moref now names another VM (instance UUID differs)."""
        ...

    def snapshot_disks(self, vm: VmIdentity, snapshot: str) -> tuple[Disk, ...]:
        """Disks as the snapshot (moref) froze them, with its change ids; SnapshotMissing."""
        ...

    def power_mark(self, vm: VmIdentity) -> str | None:
        """Opaque mark of the newest power-on (event key and boot time); None: cannot be read."""
        ...

    def missing_privileges(
        self, vms: Sequence[VmIdentity], privileges: Sequence[str]
    ) -> dict[str, tuple[str, ...]]:
        """Of these privilege ids, those the account lacks, by moref of the VM; one round trip."""
        ...

    def refresh_datastores(self, datastores: Sequence[str]) -> None:
        """Have the site look at the free space of these (morefs) now, before it is read again."""
        ...

    def shut_down_guest(self, vm: VmIdentity, beat: Beat) -> bool:
        """Ask the guest to shut down; returns at once. False: no tools, nothing was sent."""
        ...

    def power_off(self, vm: VmIdentity, beat: Beat) -> None:
        """Hard power off; already off is success."""
        ...

    def power_on(self, vm: VmIdentity, beat: Beat) -> None:
        """Power on and wait until the state says so; already on is success. Whether it was moved
        or copied is answered (moved); OperationFailed names any other question."""
        ...

    def answer_question(self, vm: VmIdentity, message_id: str, choice: str, beat: Beat) -> bool:
        """Answer the VM's question: `message_id` such as `msg.uuid.altered`, `choice` a label or
        key it offers. False: it asks nothing. OperationFailed: it asks something else."""
        ...

    def create_snapshot(self, vm: VmIdentity, name: str, description: str, beat: Beat) -> str:
        """Snapshot without memory and quiescing; returns its moref. A snapshot of exactly this
        name is taken as ours and returned; two of them: SnapshotAmbiguous."""
        ...

    def revert_to_snapshot(self, vm: VmIdentity, snapshot: str, mark: str, beat: Beat) -> None:
        """Revert without powering on. Refuses (VmChanged) when its description lacks the mark."""
        ...

    def remove_snapshot(self, vm: VmIdentity, name: str, mark: str, beat: Beat) -> bool:
        """Remove the snapshot of this name, only it, and wait for the merge. False: it was gone.
        Refuses (VmChanged) when its description lacks the mark."""
        ...

    def set_change_tracking(self, vm: VmIdentity, enabled: bool, beat: Beat) -> bool:
        """Switch change tracking; returns whether a change was needed."""
        ...

    def changed_areas(
        self, vm: VmIdentity, snapshot: str, disk: Disk, since: str, beat: Beat
    ) -> Iterator[tuple[int, int]]:
        """(offset, length) in bytes of areas changed between change id `since` and the snapshot,
        all pages; TrackingUnusable whenever the answer cannot be trusted."""
        ...

    def grow_disk(self, vm: VmIdentity, disk_key: int, capacity_bytes: int, beat: Beat) -> None:
        """Grow to at least this capacity; larger already is success."""
        ...

    def get_attribute(self, vm: VmIdentity, name: str) -> str:
        """Value of a custom attribute of the VM; empty when there is none."""
        ...

    def set_attribute(self, vm: VmIdentity, name: str, value: str, beat: Beat) -> None:
        """Set a custom attribute, creating its definition when missing; empty clears it."""
        ...

    def configuration(self, vm: VmIdentity) -> VmConfiguration:
        """What a copy of the VM must have."""
        ...

    def place(self, where: Placement, name: str) -> PlacementView:
        """What of a placement there is; missing things are listed, not raised."""
        ...

    def create_vm(self, shell: VmShell, mark: str, beat: Beat) -> VmIdentity:
        """Make a VM with empty disks, off. One that this mark made is returned instead of a
        second; NameTaken where another VM bears the name, PlacementInvalid where it cannot go."""
        ...

    def find_made(self, shell: VmShell, mark: str, beat: Beat) -> VmIdentity | None:
        """What `create_vm` of this mark made or may still make: waits for open tasks first. None:
        there is nothing and there will be nothing."""
        ...

    def register_vm(
        self, path: str, name: str, where: Placement, mark: str, beat: Beat
    ) -> VmIdentity:
        """Register the VM of a configuration file; one registered from it already is returned.
        VmChanged where that carries another run's mark."""
        ...

    def unregister_vm(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        """Take it out of the inventory, keeping its files. False: it was gone. Refuses
        (VmChanged) without the mark, and (OperationFailed) while it is not off."""
        ...

    def destroy_vm(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        """Delete it with its files; otherwise as `unregister_vm`."""
        ...

    def clear_mark(self, vm: VmIdentity, mark: str, beat: Beat) -> bool:
        """Take the mark of its making from the VM, which is nobody's then: no run deletes it any
        more. False: it does not bear this mark; another one stays."""
        ...

    def rename_vm(self, vm: VmIdentity, name: str, folder: str, beat: Beat) -> None:
        """Rename it, and move it to another folder unless that is empty; NameTaken."""
        ...

    def set_nics(self, vm: VmIdentity, cards: Sequence[Nic], beat: Beat) -> None:
        """Give its network cards, found by key, network, address (if manual) and connection."""
        ...

    def add_nic(self, vm: VmIdentity, card: Nic, known: Sequence[int], beat: Beat) -> int:
        """Add a card of this kind and network; returns its key. A card of that kind and network
        whose key is not among `known` counts as added; PlacementInvalid without the network."""
        ...

    def set_hardware(self, vm: VmIdentity, cpus: int, memory_mb: int, beat: Beat) -> bool:
        """Give a VM that is off so many CPUs and so much memory; whether a change was needed."""
        ...

    def add_disk(
        self, vm: VmIdentity, address: DiskAddress, capacity_bytes: int, file: str, beat: Beat
    ) -> int:
        """Add an empty disk in a new file, `[datastore] folder/name.vmdk`; returns its key. A disk
        of exactly this file counts as added; VmChanged where another one sits at the address."""
        ...

    def remove_disk(self, vm: VmIdentity, file: str, beat: Beat) -> bool:
        """Take the disk of exactly this file away and delete the file. False: it was gone."""
        ...

    def read_nvram(self, vm: VmIdentity) -> bytes:
        """Content of its NVRAM file, at most 1 MiB; VmNotFound where it has none."""
        ...

    def write_nvram(self, vm: VmIdentity, data: bytes, mark: str, beat: Beat) -> None:
        """Replace the NVRAM file of a VM that is off; refuses (VmChanged) without the mark."""
        ...

    def settle(self, vm: VmIdentity, timeout: timedelta, beat: Beat) -> str:
        """Wait until no task is queued or running on the VM; returns what was waited for.
        SiteBusy when one still runs at the deadline."""
        ...


class Sites(Protocol):
    """All configured sites."""

    def site(self, name: str) -> Site:
        """The site of this name; SettingsInvalid when the settings have none."""
        ...
