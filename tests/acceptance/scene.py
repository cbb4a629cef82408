"""What every acceptance test needs: small worlds, a run to drive, and the evidence at its end."""

from __future__ import annotations

import asyncio
import hashlib
import io
import sqlite3
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowHandle

from failback.catalog.records import ReplicaDetail
from failback.catalog.repository import Catalog
from failback.contracts.plan import BeginAnswer
from failback.contracts.requests import Answer, Request
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase, ReplicaState
from starter import cli
from starter.client import FailbackClient
from starter.errors import WorkerAbsent
from starter.plugin import connect
from starter.shell import Shell
from tests.helpers.stack import Stack, TemporalServer, until

T = TypeVar("T")
MIB = 1 << 20
SOURCE, REPLICA = ("production", "web01"), ("dr", "web01-replica")
GUEST_FILE = {"path": "/journal", "extents": [[0, 65536]]}


def world(
    *sizes: int, target: dict[str, Any] | None = None, replica: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A production VM that is off and stale, and its replica that runs and writes by itself.

    Every disk differs in all of its blocks, and the replica has a hole where the target has data.
    """
    old = [{"size_bytes": size, "seed": 7 + number} for number, size in enumerate(sizes)]
    new = [
        {
            "size_bytes": size,
            "seed": 70 + number,
            "holes": [{"offset": size // 2, "length": 65536}],
            "guest_files": [GUEST_FILE],
        }
        for number, size in enumerate(sizes)
    ]
    production = {"name": SOURCE[1], "power": "off", "disks": old} | (target or {})
    recovered = {
        "name": REPLICA[1],
        "power": "on",
        "guest": {"interval_ms": 20},
        "disks": new,
    } | (replica or {})
    return {
        "sites": [
            {"name": "production", "datastore": "ds-production", "vms": [production]},
            {"name": "dr", "datastore": "ds-dr", "vms": [recovered]},
        ]
    }


def enrol(
    stack: Stack,
    key: str,
    replica: tuple[str, str],
    source: tuple[str, str],
    *,
    in_failover: bool = True,
) -> None:
    """`failback replica add`, in this process: a process of its own would take a second more."""
    said = io.StringIO()
    shell = Shell(
        io.StringIO(), said, said, stack.env(FAILBACK_SETTINGS=str(stack.settings)), "ann"
    )
    places = ("--replica", ":".join(replica), "--source", ":".join(source))
    state = ("--in-failover",) if in_failover else ()
    assert cli.run(["replica", "add", key, *state, *places], shell) == 0, said.getvalue()


class Scene:
    """One replica of one installation, its run, and what is known of it from outside."""

    def __init__(self, stack: Stack, key: str, server: TemporalServer | None = None) -> None:
        self.stack, self.key, self.lab = stack, key, stack.lab.control
        self.server = server
        self.loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.temporal: Client = self.wait(connect(stack.env()))
        self.client = FailbackClient(self.temporal, task_queue=stack.queue)
        enrol(stack, key, REPLICA, SOURCE)
        self.before = self.vms()
        self.digests = self.target_digests()

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run one call of the asynchronous client."""

        async def call() -> T:
            return await awaitable

        return self.loop.run(call())

    def close(self) -> None:
        self.loop.close()
        self.stack.close()

    # --- driving a run ---

    def start(self, **options: Any) -> BeginAnswer:
        """Start a run; preflight has answered."""
        return self.wait(self.client.start(StartRequest(replica=self.key, **options)))

    def begin(self, **options: Any) -> None:
        """Start a run; nobody need have looked at it."""
        request = StartRequest(replica=self.key, **options)
        self.wait(self.client.start(request, wait=False))

    @property
    def handle(self) -> WorkflowHandle[Any, Any]:
        """The newest run."""
        return self.temporal.get_workflow_handle(f"failback/{self.key}")

    def status(self) -> Status | None:
        """Status of the newest run; None while no worker answers."""
        try:
            return self.wait(self.client.status(self.key)).status
        except WorkerAbsent:
            return None

    def until(self, *phases: Phase, timeout_s: float = 40.0) -> Status:
        """Wait until the run is in one of these phases."""
        last: list[Status] = []

        def ask() -> Status | None:
            found = self.status()
            last[:] = [found] if found else last
            return found if found is not None and found.phase in phases else None

        try:
            return until(f"phase {phases}", ask, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; last seen: {last}") from None

    def commit(self) -> Status:
        """Commit, and wait for the end of the run and of its cleanup."""
        answer = self.wait(self.client.commit(self.key, Request(by="ann")))
        assert answer.accepted, answer.message
        return self.cleaned()

    def cleaned(self, timeout_s: float = 30.0) -> Status:
        """Wait for the end of a run that was committed, and of its cleanup."""
        status = self.ended(timeout_s)
        cleanup = self.temporal.get_workflow_handle(f"failback-cleanup/{status.run_id}")
        self.wait(asyncio.wait_for(cleanup.result(), timeout_s))
        return status

    def ask_undo(self) -> Answer:
        """Ask for undo; the run has answered."""
        return self.wait(self.client.undo(self.key, Request(by="ann")))

    def undo(self) -> Status:
        """Undo, and wait for the end of the run."""
        answer = self.ask_undo()
        assert answer.accepted, answer.message
        return self.ended()

    def ended(self, timeout_s: float = 40.0) -> Status:
        """Wait for the end of the run."""
        return self.wait(asyncio.wait_for(self.client.wait(self.key), timeout_s))

    def written_segments(self, pass_segments: int) -> None:
        """Wait until so many segments of the run are flushed and in the ledger."""
        until(f"{pass_segments} segments done", lambda: self.ledger()[0] >= pass_segments)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The catalog's file, read beside the workers: what writes nothing disturbs nobody."""
        url = f"file:{self.stack.catalog_file}?mode=ro"
        with closing(sqlite3.connect(url, uri=True)) as database:
            yield database

    def ledger(self) -> tuple[int, int]:
        """Finished segments of all passes, and their bytes."""
        with self.reading() as database:
            count, size = database.execute(
                "select count(*), coalesce(sum(examined_bytes), 0) from ledger_segment"
            ).fetchone()
        return int(count), int(size)

    def catalog_is_locked(self) -> bool:
        """Whether somebody is in the middle of a write to the catalog."""
        with closing(sqlite3.connect(self.stack.catalog_file, timeout=0)) as database:
            try:
                database.execute("begin immediate")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                return True
            database.rollback()
        return False

    # --- what is seen from outside ---

    def vm(self, place: tuple[str, str]) -> dict[str, Any]:
        return self.lab.vm(*place)

    def vms(self) -> dict[str, Any]:
        """Both VMs as far as a run may change them: power, disks, snapshots, tracking, marks."""
        return {
            name: {
                "power": vm["power"],
                "disks": [(d["key"], d["file"], d["capacity_bytes"]) for d in vm["disks"]],
                "snapshots": vm["snapshots"],
                "tracking": vm["tracking"],
                "marks": {key: value for key, value in vm["custom_values"].items() if value},
            }
            for site, name in (SOURCE, REPLICA)
            for vm in [self.vm((site, name))]
        }

    def files(self, place: tuple[str, str]) -> list[Path]:
        """The flat files of a VM's live disks."""
        return [Path(disk["flat_path"]) for disk in self.vm(place)["disks"]]

    def target_digests(self) -> list[str]:
        """SHA-256 of the bytes of the target's live disks."""
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files(SOURCE)]

    def events(self, place: tuple[str, str], event: str) -> list[dict[str, Any]]:
        """Power events of a VM, oldest first."""
        site, vm = place
        found = self.lab.get(f"/power-events?site={site}&vm={vm}")["events"]
        return [one for one in found if one["event"] == event]

    def calls(self, place: tuple[str, str], method: str) -> int:
        """How often a SOAP method was called at the VM's site."""
        return self.lab.calls(place[0]).get(method, 0)

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        with closing(Catalog(f"sqlite:///{self.stack.catalog_file}")) as opened:
            yield opened

    def detail(self) -> ReplicaDetail:
        """The replica in the catalog."""
        with self.catalog() as catalog:
            return catalog.replica_detail(self.key)

    def claims(self) -> Sequence[object]:
        with self.catalog() as catalog:
            return catalog.claims()

    # --- evidence ---

    def same_content(self) -> None:
        """The target got at power-on exactly what the replica had when it went off."""
        off, on = self.events(REPLICA, "power-off")[-1], self.events(SOURCE, "power-on")[-1]
        assert off["seq"] < on["seq"]
        assert [disk["sha256"] for disk in on["disks"]] == [disk["sha256"] for disk in off["disks"]]
        assert [disk["sha256"] for disk in on["disks"]] != self.digests

    def committed(self, status: Status) -> None:
        """Everything that must hold after commit and its cleanup."""
        assert status.outcome is Outcome.COMMITTED
        self.same_content()
        vms, key = self.vms(), f"failback/{status.run_id}/protective"
        source, replica = vms[SOURCE[1]], vms[REPLICA[1]]
        assert source == self.before[SOURCE[1]] | {"power": "poweredOn"}
        assert replica["power"] == "poweredOff" and replica["marks"] == {}
        kept = replica["snapshots"]
        assert [(one["name"], one["children"]) for one in kept] == [(key, [])]
        detail = self.detail()
        assert detail.replica.state is ReplicaState.READY
        points = [(point.name, point.snapshot) for point in detail.restore_points]
        assert points == [(key, kept[0]["moref"])]
        assert detail.runs[0].outcome is Outcome.COMMITTED
        assert self.claims() == ()

    def undone(self, status: Status) -> None:
        """Everything that must hold after undo: bytes, inventory and catalog as before."""
        assert status.outcome is Outcome.UNDONE
        assert self.target_digests() == self.digests
        assert self.vms() == self.before
        detail = self.detail()
        assert detail.replica.state is ReplicaState.FAILOVER
        assert detail.restore_points == ()
        assert detail.runs[0].outcome is Outcome.UNDONE
        assert self.claims() == ()
