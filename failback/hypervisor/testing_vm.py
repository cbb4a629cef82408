"""A VM in memory, with disks that hold bytes: the inside of the double in `testing`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from failback.contracts.shell import VmConfiguration
from failback.contracts.vm import Disk, DiskAddress, Nic, Snapshot, VmIdentity, VmView
from failback.contracts.words import PowerState


@dataclass
class FakeDisk:
    """A disk; `data` is its content and its size. Write into it to play the guest."""

    key: int
    unit: int
    file: str
    data: bytearray
    refusals: tuple[str, ...] = ()
    parent_file: str | None = None
    tracking: int = 0
    """Number of the current tracking; another number means reset. 0: off."""
    epoch: int = 0
    past: dict[str, bytes] = field(default_factory=dict)
    """Change id -> content at that moment."""
    datastore: str | None = None
    address: DiskAddress | None = None
    """None: unit of the first SCSI controller."""

    def view(self) -> Disk:
        return Disk(
            key=self.key,
            address=self.address or DiskAddress(controller="scsi", bus=0, unit=self.unit),
            file=self.file,
            capacity_bytes=len(self.data),
            change_id=f"52 aa {self.tracking:02x}/{self.epoch}" if self.tracking else None,
            parent_file=self.parent_file,
            datastore=self.datastore,
            refusals=self.refusals,
        )

    def track(self, *, reset: bool = False) -> None:
        """Close an epoch; `reset` begins another tracking."""
        if self.tracking:
            self.tracking, self.epoch = self.tracking + reset, self.epoch + 1
            self.past[self.view().change_id or ""] = bytes(self.data)


@dataclass
class FakeSnapshot:
    """A snapshot: what it shows, and what it froze."""

    shown: Snapshot
    disks: tuple[Disk, ...]
    contents: dict[int, bytes]
    hardware: tuple[int, int, tuple[Nic, ...]]
    """CPUs, memory and network cards."""


@dataclass
class FakeVm:
    """A VM; tests may change any field between calls."""

    identity: VmIdentity
    disks: list[FakeDisk]
    power: PowerState
    tools: bool = True
    ignores_shutdown: bool = False
    shutdown_looks: int = 0
    """So often it is read as running after its guest was asked to shut down."""
    stopping: int | None = None
    """How many of them are left; None: it was not asked."""
    tracking: bool = False
    snapshots: list[FakeSnapshot] = field(default_factory=list)
    current: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    power_ons: int = 0
    booted_at: datetime | None = None
    open_task: str = ""
    """Set it to keep `settle` waiting."""
    question: str | None = None
    """Id of the message that it waits for an answer to."""
    answers: list[tuple[str, str]] = field(default_factory=list)
    """What was answered, by id of the message."""
    missing_privileges: frozenset[str] = frozenset()
    files: int = 0
    mark: str = ""
    """The run that made it."""
    made_as: tuple[str, str] = ("", "")
    """Run and name it was made for, whatever its name is now."""
    folder: str = "vm"
    configuration: VmConfiguration | None = None
    cpus: int = 1
    memory_mb: int = 1024
    nics: list[Nic] = field(
        default_factory=lambda: [Nic(key=4000, kind="vmxnet3", network="VM Network")]
    )
    nvram: bytes = b"nvram"
    changes: dict[str, object] = field(default_factory=dict)
    """Fields of the view to show otherwise, for instance {"fault_tolerant": True}."""
    after_refresh: dict[str, object] = field(default_factory=dict)
    """The same, from the moment on when datastores are refreshed."""

    def view(self) -> VmView:
        view = VmView(
            identity=self.identity,
            power=self.power,
            tools_running=self.tools and self.power is PowerState.ON,
            disks=tuple(disk.view() for disk in self.disks),
            snapshots=tuple(s.shown for s in self.snapshots),
            current_snapshot=self.current,
            tracking_enabled=self.tracking,
            tracking_supported=True,
            booted_at=self.booted_at,
            question=self.question,
            memory_mb=self.memory_mb,
            cpus=self.cpus,
            host=f"{self.identity.site}-host",
            nics=tuple(self.nics),
        )
        return view.model_copy(update=self.changes)

    def turn(self, power: PowerState, *, hard: bool = False) -> None:
        """Change the power state as a person at the console would."""
        self.stopping = None
        if power is PowerState.ON and self.power is not PowerState.ON:
            self.power_ons += 1
            self.booted_at = datetime.now(UTC)
        elif power is not PowerState.ON:
            self.booted_at = None
        self.power = power
        for disk in self.disks:
            disk.track(reset=hard)

    def looked_at(self) -> None:
        """A guest that is shutting down comes nearer to its end."""
        if self.stopping == 0:
            self.turn(PowerState.OFF)
        elif self.stopping is not None:
            self.stopping -= 1

    def track(self, enabled: bool, number: int) -> None:
        """Switch change tracking; every enabling begins a new one."""
        self.tracking = enabled
        for disk in self.disks:
            disk.tracking = number if enabled else 0
            disk.track()

    def freeze(self, moref: str, name: str, description: str) -> str:
        """Make a snapshot; the disks go on in new files."""
        for disk in self.disks:
            disk.track()
        self.snapshots.append(
            FakeSnapshot(
                Snapshot(
                    moref=moref,
                    name=name,
                    description=description,
                    parent=self.current,
                    created_at=datetime.now(UTC),
                ),
                tuple(disk.view() for disk in self.disks),
                {disk.key: bytes(disk.data) for disk in self.disks},
                (self.cpus, self.memory_mb, tuple(self.nics)),
            )
        )
        self._continue_from(self.snapshots[-1])
        return moref

    def revert(self, snapshot: FakeSnapshot) -> None:
        """Content and hardware as frozen, power off, tracking reset."""
        self.cpus, self.memory_mb, nics = snapshot.hardware
        self.nics = list(nics)
        # A disk that was added since is detached.
        self.disks = [disk for disk in self.disks if disk.key in snapshot.contents]
        for disk in self.disks:
            disk.data[:] = snapshot.contents[disk.key]
        self.turn(PowerState.OFF, hard=True)
        self._continue_from(snapshot)

    def remove(self, snapshot: FakeSnapshot) -> None:
        """Merge one snapshot away; its children move up."""
        gone = snapshot.shown
        self.snapshots.remove(snapshot)
        for other in self.snapshots:
            if other.shown.parent == gone.moref:
                other.shown = other.shown.model_copy(update={"parent": gone.parent})
        if self.current == gone.moref:
            above = next((s for s in self.snapshots if s.shown.moref == gone.parent), None)
            self._continue_from(above)

    def _continue_from(self, snapshot: FakeSnapshot | None) -> None:
        self.current = snapshot.shown.moref if snapshot is not None else None
        frozen = {disk.key: disk.file for disk in snapshot.disks} if snapshot is not None else {}
        for disk in self.disks:
            disk.parent_file = frozen.get(disk.key)
            stem = disk.file.removesuffix(".vmdk").split("-0000")[0]
            self.files += 1
            disk.file = f"{stem}-{self.files:06d}.vmdk" if snapshot is not None else f"{stem}.vmdk"
