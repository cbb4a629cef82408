"""Two sites with the VMs of one run, a second record of every byte that a guest or a person wrote,
and somebody who does what nobody asked for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from failback.contracts.vm import DiskOpening, VmIdentity
from failback.contracts.words import PowerState, StepName
from failback.hypervisor.testing_vm import FakeVm
from tests.simulation.crew import Crew, Wrong
from tests.simulation.doubles import SimDisks
from tests.simulation.wire import SimSite, SimSites
from workflows.engine import Run

KIB = 1024
SIZE = 256 * KIB
BLOCK = 4 * KIB


class World:
    """What there is beside the product.

    Args:
        choice: for what the world is like; the crew's own random numbers make the schedule.
    """

    def __init__(
        self, crew: Crew, choice: random.Random, seed: int, *, forgets_marks: bool = False
    ) -> None:
        self.crew, self.choice = crew, choice
        self.sites = SimSites(crew)
        self.production, self.dr = (
            self.sites.put(SimSite(name, forgets_marks=forgets_marks))
            for name in ("production", "dr")
        )
        self.run: Callable[[], Run]
        self.disks: SimDisks
        self._vms()
        self.content: list[bytearray] = [bytearray(d.data) for d in self.dr.vm(self.replica).disks]
        """The replica's bytes, written beside its disks: nothing that the product does reaches
        this."""
        self.production_wrote: list[tuple[int, int, bytes]] = []
        """What the target's guest wrote after the switch: disk, offset, bytes."""
        self.protected: list[bytes] | None = None
        """`content` when somebody first wrote to the replica behind its protective snapshot."""
        self.by_somebody: set[str] = set()
        """Names of the VMs that run because somebody wants it, not the product."""
        self.used = self.touched = self.rotten = self.reverted = False
        self.may_revert = False
        """Whether people have said that what was written behind the snapshot may be lost."""
        self.growth = random.Random(f"growth {seed}")
        self.grows = self.growth.random() < 0.2
        """Whether somebody will make the replica's disks larger."""
        self.somebody = random.Random(f"somebody {seed}")
        kinds = ["use", "use", "touch", "rot", "", "", ""]
        self.plans = self.somebody.choice(kinds)
        """What somebody will do: use the replica that is off, run the target between the passes,
        or be a storage that loses a block between the last write and verify."""
        self.stays_on = self.somebody.random() < 0.5
        self.insists = self.somebody.random() < 0.3
        """Whether people commit although the replica was used."""
        crew.tick, crew.watch, crew.guest = self.sites.tick, self.at_most_one, self.guest
        self.sites.rewritten, self.sites.copies = self.rewritten, self.copies
        self.before = self.picture()
        self.on_at_first = {vm.identity.name for vm in self.all() if vm.power is PowerState.ON}
        self.by_somebody |= self.on_at_first - {"web01-replica"}

    def _vms(self) -> None:
        rng = self.choice

        def disks() -> list[bytearray]:
            return [bytearray(rng.randbytes(SIZE)) for _ in range(2)]

        def power() -> PowerState:
            return PowerState.ON if rng.random() < 0.15 else PowerState.OFF

        old, new = disks(), disks()
        new[0][64 * KIB : 128 * KIB] = bytes(64 * KIB)
        new[1][: 64 * KIB] = old[1][: 64 * KIB]
        self.source = self.production.add_vm("web01", old, power(), tracking=True)
        self.restored = self.production.add_vm("web01-restored", disks(), power())
        self.replica = self.dr.add_vm(
            "web01-replica", new, PowerState.ON, tools=rng.random() < 0.85
        )

    # --- what there is ---

    def all(self) -> list[FakeVm]:
        """Every VM."""
        return [*self.production.vms.values(), *self.dr.vms.values()]

    def target(self) -> FakeVm | None:
        """The target VM, once there is one."""
        plan = self.run().facts.plan
        if plan is None or not plan.target_exists:
            return None
        return self.production.vms.get(plan.target.moref)

    def copies(self) -> list[FakeVm]:
        """The VMs of which at most one may run."""
        found = [self.dr.vm(self.replica), self.target()]
        plan = self.run().facts.plan
        if plan is not None and plan.old_source is not None:
            found.append(self.production.vms.get(plan.old_source.moref))
        return [vm for vm in found if vm is not None]

    def picture(self) -> dict[str, dict[str, Any]]:
        """Everything that undo gives back."""
        return {
            vm.identity.name: {
                "power": vm.power,
                "tracking": vm.tracking,
                "snapshots": [s.shown.name for s in vm.snapshots],
                "attributes": {k: v for k, v in vm.attributes.items() if v},
                "nics": list(vm.nics),
                "hardware": (vm.cpus, vm.memory_mb),
                "data": [bytes(disk.data) for disk in vm.disks],
            }
            for vm in self.all()
        }

    # --- what must hold at every moment ---

    def at_most_one(self) -> None:
        """Invariant I1. What somebody started is a breach that the product did not make."""
        ons = {vm.identity.name for vm in self.copies() if vm.power is PowerState.ON}
        self.by_somebody &= ons | (self.on_at_first if self.run().facts.plan is None else set())
        if len(ons - self.by_somebody) > 1:
            raise Wrong(f"two copies run: {sorted(ons)}")

    def rewritten(self, vm: VmIdentity) -> None:
        """A site has written the disks of a VM, or powered it on: its bytes are durable, and the
        ledger's word for them is void."""
        self.disks.forget(vm)
        agreed = vm.site == "dr" and self.may_revert and not self.reverted
        if agreed and self.protected is not None and self.dr.vm(vm).power is PowerState.OFF:
            self.reverted, self.content = True, [bytearray(part) for part in self.protected]
        for disk in self.production.vm(vm).disks if vm.site == "production" else ():
            self.disks.settled(disk)

    # --- what happens by itself ---

    def guest(self) -> None:
        """The guest of the VM that serves writes now and then, and disks grow."""
        replica = self.dr.vm(self.replica)
        if replica.power is PowerState.ON and self.crew.rng.random() < 0.02:
            self.write_replica(self.crew.rng)
        target = self.target()
        if (
            target is not None
            and target.power is PowerState.ON
            and target.identity.name not in self.by_somebody
            and self.crew.rng.random() < 0.02
        ):
            number, offset, data = self._block(self.crew.rng)
            self.disks.put(target.disks[number], offset, data)
            self.production_wrote.append((number, offset, data))
        # No disk grows under a snapshot.
        can = self.grows and replica.power is PowerState.ON and not replica.snapshots
        # After pass 1 the target can follow; before it, the run is refused or undone.
        often = 0.03 if self.run().facts.base else 0.0006
        if can and self.growth.random() < often:
            self.grows = False
            number = self.growth.randrange(2)
            disk, more = replica.disks[number], self.growth.randbytes(BLOCK) + bytes(60 * KIB)
            disk.data.extend(more)
            self.content[number].extend(more)
            disk.track(reset=True)
            self.crew.note(f"the replica's disk {disk.key} has grown")

    def write_replica(self, rng: random.Random) -> None:
        """The replica's guest writes a block."""
        number, offset, data = self._block(rng)
        self.dr.vm(self.replica).disks[number].data[offset : offset + BLOCK] = data
        self.content[number][offset : offset + BLOCK] = data

    @staticmethod
    def _block(rng: random.Random) -> tuple[int, int, bytes]:
        return rng.randrange(2), rng.randrange(0, SIZE - BLOCK), rng.randbytes(BLOCK)

    # --- somebody ---

    def meddle(self, chance: float = 0.15) -> None:
        """Between two attempts, somebody may do what nobody asked for."""
        run, crew = self.run(), self.crew
        if crew.quiet or crew.zombies or self.production.tasks or self.dr.tasks:
            # A task that was sent before must not find what it could not know.
            return
        if run.undo_asked or run.commit_asked or self.somebody.random() > chance:
            return
        if self.plans == "use" and StepName.POWER_OFF_REPLICA in run.finished():
            self._use(run)
        elif self.plans == "touch" and StepName.PROTECT_TARGET in run.finished():
            self._touch(run)

    def _use(self, run: Run) -> None:
        """Powers on the replica that was switched off, and works with it."""
        vm = self.dr.vm(self.replica)
        protected = run.facts.protective is not None
        if vm.power is not PowerState.OFF or bool(vm.snapshots) is not protected:
            return
        self.plans, self.used = "", protected
        if protected:
            self.protected = [bytes(part) for part in self.content]
        vm.turn(PowerState.ON)
        self.write_replica(self.somebody)
        if self.stays_on:
            self.by_somebody.add(vm.identity.name)
        else:
            vm.turn(PowerState.OFF)
        self.crew.note(f"somebody uses the replica, {vm.power}")

    def _touch(self, run: Run) -> None:
        """Runs the target between the passes, and switches it off again."""
        vm = self.target()
        if vm is None or vm.power is not PowerState.OFF or StepName.VERIFY in run.started():
            return
        self.plans, self.touched = "", True
        vm.turn(PowerState.ON)
        number, offset, data = self._block(self.somebody)
        self.disks.put(vm.disks[number], offset, data)
        vm.turn(PowerState.OFF)
        self.rewritten(vm.identity)
        self.crew.note("somebody has run the target")

    def rot(self, opening: DiskOpening) -> None:
        """The storage loses a block of the target that was written and flushed."""
        if self.plans == "rot":
            self.plans, self.rotten = "", True
            self.disks.rot(opening, self.somebody.randbytes(BLOCK))
            self.crew.note("the storage has lost a block")

    def power_off_by_hand(self) -> None:
        """A person reads what the run says and switches off what somebody started."""
        for vm in self.copies():
            if vm.power is PowerState.ON and vm.identity.name in self.by_somebody:
                vm.turn(PowerState.OFF)
                self.crew.note(f"{vm.identity.name} is powered off by hand")
