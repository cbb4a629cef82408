"""Bad input: exit status 2, one clear sentence, and nothing changed anywhere.

One installation serves all of these tests: none of them may leave anything behind.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from failback.catalog.repository import Catalog
from failback.contracts.words import ReplicaState
from tests.acceptance.scene import MIB, enrol
from tests.helpers.lab import start_lab
from tests.helpers.stack import Stack, TemporalServer, until

pytestmark = pytest.mark.acceptance

DISK, SMALL = [{"size_bytes": MIB, "seed": 7}], [{"size_bytes": MIB // 2}]

PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fine": ({"disks": DISK}, {"disks": DISK}),
    "smaller": ({"disks": SMALL}, {"disks": DISK}),
    "unpaired": ({"disks": []}, {"disks": DISK}),
    "extra": ({"disks": DISK}, {"disks": DISK * 2}),
    "running": ({"disks": DISK, "power": "on"}, {"disks": DISK}),
    "ready": ({"disks": DISK}, {"disks": DISK}),
}
"""Target and replica of each kind of trouble."""


@dataclass
class Office:
    """An installation with a worker, and a replica for each kind of trouble."""

    stack: Stack
    keys: dict[str, str] = field(default_factory=dict)

    def lab_state(self) -> Any:
        """What the lab knows of all VMs."""
        return self.stack.lab.control.get("/state")

    def catalog_state(self) -> Any:
        """States of all replicas and all claims."""
        with closing(Catalog(f"sqlite:///{self.stack.catalog_file}")) as catalog:
            states = {one.key: (one.state, one.revision) for one in catalog.list_replicas()}
            return states, catalog.claims()


@pytest.fixture(scope="module")
def office(server: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder, mark = tmp_path_factory.mktemp("bad input"), uuid.uuid4().hex[:6]
    production = [{"name": name, "power": "off"} | pair[0] for name, pair in PAIRS.items()]
    dr = [{"name": f"{name}-replica", "power": "on"} | pair[1] for name, pair in PAIRS.items()]
    sites = [
        {"name": "production", "datastore": "ds-production", "vms": production},
        {"name": "dr", "datastore": "ds-dr", "vms": dr},
    ]
    stack = Stack(
        start_lab({"sites": sites}, folder), folder, server.address, f"queue-bad-input-{mark}"
    )
    try:
        made = Office(stack)
        for name in PAIRS:
            made.keys[name] = f"{name}-{mark}"
            enrol(
                stack,
                made.keys[name],
                ("dr", f"{name}-replica"),
                ("production", name),
                in_failover=name != "ready",
            )
        stack.worker()
        yield made
    finally:
        stack.close()


@pytest.fixture
def refused(office: Office) -> Iterator[Callable[..., str]]:
    """Runs a command that must be refused; gives back the sentence. Nothing may have changed."""
    before = office.lab_state(), office.catalog_state()

    def run(*arguments: str, settings: Path | None = None) -> str:
        return sentence(office.stack.cli(*arguments, settings=settings))

    yield run
    assert (office.lab_state(), office.catalog_state()) == before
    assert office.catalog_state()[1] == ()


def sentence(done: CompletedProcess[str]) -> str:
    """What a refused command said, in one line."""
    said = " ".join((done.stderr + done.stdout).split())
    assert done.returncode == 2, said
    assert "Traceback" not in said
    return said


def test_an_unknown_replica(refused: Callable[..., str]) -> None:
    said = refused("start", "nobody-knows-me")
    assert "nobody-knows-me" in said and "failback replica add" in said, said


def test_an_invalid_key(refused: Callable[..., str]) -> None:
    said = refused("start", "No Such Key!")
    assert "No Such Key!" in said and "a-z" in said, said


def test_a_replica_that_is_not_in_failover(refused: Callable[..., str], office: Office) -> None:
    key = office.keys["ready"]
    said = refused("start", key)
    assert key in said and ReplicaState.READY in said, said
    assert f"failback replica mark-failover {key}" in said


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("smaller", "Disk scsi0:0 of smaller", "--grow-target"),
        ("unpaired", "No disk of unpaired-replica", "mapped to the right VM"),
        ("extra", "Disk scsi0:1 of extra-replica", "--leave-behind scsi0:1"),
        ("running", "running (production:", "--accept-target-overwrite"),
    ],
)
def test_a_target_that_does_not_fit(
    refused: Callable[..., str], office: Office, name: str, what: str, remedy: str
) -> None:
    said = refused("start", office.keys[name])
    assert what in said and remedy in said and "nothing was changed" in said, said


def add(office: Office) -> tuple[str, ...]:
    """A command that asks both sites."""
    return (
        *("replica", "add", office.keys["fine"], "--in-failover"),
        *("--replica", "dr:fine-replica", "--source", "production:fine"),
    )


def with_site(office: Office, path: Path, **production: Any) -> Path:
    """Settings in which one thing about production is different."""
    settings = path / "other.toml"
    settings.write_text(office.stack.settings_text(production=production), encoding="utf-8")
    return settings


def test_a_wrong_password(refused: Callable[..., str], office: Office, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("not-the-password")
    wrong.chmod(0o600)
    settings = with_site(office, tmp_path, password_file=str(wrong))
    said = refused(*add(office), settings=settings)
    assert "production" in said and "password" in said, said
    assert "not-the-password" not in said


def test_a_vcenter_that_cannot_be_reached(refused: Callable[..., str], office: Office) -> None:
    office.stack.lab.control.post("/sites/production/down")
    try:
        said = refused(*add(office))
    finally:
        office.stack.lab.control.post("/sites/production/up")
    assert "production" in said, said


def test_a_certificate_of_another_authority(
    refused: Callable[..., str], office: Office, tmp_path: Path
) -> None:
    with start_lab("tiny", tmp_path / "other") as other:
        ca_file = other.manifest["ca_file"]
        settings = with_site(office, tmp_path, tls={"ca_file": ca_file})
        said = refused(*add(office), settings=settings)
    assert "production" in said and "certificate" in said, said


def test_a_certificate_with_another_thumbprint(
    refused: Callable[..., str], office: Office, tmp_path: Path
) -> None:
    settings = with_site(office, tmp_path, tls={"thumbprint_sha256": "ab" * 32})
    said = refused(*add(office), settings=settings)
    assert "production" in said and "certificate" in said, said


@pytest.mark.parametrize("trouble", ["password", "authority", "down"])
def test_a_start_whose_worker_cannot_use_a_site(
    refused: Callable[..., str], office: Office, tmp_path: Path, trouble: str
) -> None:
    code, production = "CERTIFICATE_UNTRUSTED", dict[str, Any]()
    match trouble:
        case "password":
            code, wrong = "LOGIN_REFUSED", tmp_path / "password"
            wrong.write_text("not-the-password")
            wrong.chmod(0o600)
            production = {"password_file": str(wrong)}
        case "authority":
            with start_lab("tiny", tmp_path / "other") as other:
                production = {"tls": {"ca_file": other.manifest["ca_file"]}}
        case _:
            code = "SITE_UNREACHABLE"
    settings = with_site(office, tmp_path, **production)
    # A queue of its own, so that only this worker hears of the run.
    queue = f"{office.stack.queue}-{trouble}"
    settings.write_text(settings.read_text().replace(office.stack.queue, queue))
    worker = office.stack.worker(settings)
    control = office.stack.lab.control
    if trouble == "down":
        control.post("/sites/production/down")
    try:
        said = refused("start", office.keys["fine"], settings=settings)
    finally:
        control.post("/sites/production/up")
        worker.kill()
    assert code in said and "production" in said and "nothing was changed" in said, said
    assert "not-the-password" not in said


def test_objects_that_do_not_exist(refused: Callable[..., str]) -> None:
    assert "no-one" in refused("status", "no-one")
    assert "no-one" in refused("commit", "no-one")
    places = ("--replica", "dr:none", "--source", "production:fine")
    assert "none" in refused("replica", "add", "no-one", *places)


@pytest.mark.parametrize("program", ["command", "worker"])
def test_a_wrong_settings_file(
    refused: Callable[..., str], office: Office, tmp_path: Path, program: str
) -> None:
    settings = tmp_path / "wrong.toml"
    lines = office.stack.settings.read_text().splitlines()
    settings.write_text("\n".join([*lines[:2], "movers = 0", *lines[2:]]))
    if program == "command":
        said = refused(*add(office), settings=settings)
    else:
        worker = office.stack.worker(settings, ready=False)
        assert worker.wait() == 2
        said = worker.output
        assert len(said.splitlines()) == 1, said
    assert "wrong.toml" in said and "line 3" in said and "worker.movers" in said, said


def test_requests_at_the_wrong_time_are_refused_and_change_nothing(office: Office) -> None:
    key, control = office.keys["fine"], office.stack.lab.control
    gate = control.fault("hold-before", method="CreateSnapshot_Task", object="fine")
    started = office.stack.cli("start", key)
    assert started.returncode == 0, started.stderr
    until("the run is held", lambda: control.get(f"/faults/{gate}")["holding"] > 0)
    before = office.lab_state()

    second = sentence(office.stack.cli("start", key))
    early = sentence(office.stack.cli("commit", key))
    untimely = sentence(office.stack.cli("retry", key))
    assert office.lab_state() == before
    control.post(f"/faults/{gate}/release")
    assert office.stack.cli("watch", key).returncode == 0
    assert office.stack.cli("commit", key).returncode == 0
    assert office.stack.cli("watch", key, "--until", "end").returncode == 0
    after = office.catalog_state()
    late = sentence(office.stack.cli("undo", key, "--yes"))

    assert key in second and "open already" in second and f"failback status {key}" in second
    assert key in early and "commit is not possible" in early and "awaits the decision" in early
    assert key in untimely and "only when the run needs an operator" in untimely
    assert key in late and "undo is not possible" in late and "ended" in late
    assert office.catalog_state() == after
    assert after[0][key][0] is ReplicaState.READY and after[1] == ()
