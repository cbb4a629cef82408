"""`failback replica` and `failback catalog` over a real catalog."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from failback.catalog.repository import Catalog
from failback.contracts.vm import VmIdentity
from failback.contracts.words import ReplicaState
from starter.cli import run
from starter.queue import task_queue
from tests.unit.starter.doubles import err, out, shell


def vm(site: str, moref: str) -> VmIdentity:
    return VmIdentity(
        site=site,
        vcenter_uuid=f"vc-{site}",
        moref=moref,
        name=f"web-{moref}",
        instance_uuid=f"i-{site}-{moref}",
        bios_uuid=f"b-{moref}",
        path=f"/{site}/vm/web-{moref}",
    )


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Two sites where nobody answers, and a catalog in a private place."""
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    site = 'username = "u"\npassword_file = "password"\nrequest_timeout_s = 2.0\n'
    tls = f'tls = {{ thumbprint_sha256 = "{":".join(["AB"] * 32)}" }}\n'
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    file = tmp_path / "failback.toml"
    file.write_text(
        f'[worker]\nstate_dir = "{state}"\n'
        f'[sites.dr]\nurl = "https://127.0.0.1:1"\n{site}{tls}'
        f'[sites.production]\nurl = "https://127.0.0.1:2"\n{site}{tls}'
    )
    return file


def call(settings: Path, *line: str, expect: int = 0) -> tuple[str, str]:
    around = shell()
    assert run([*line, "--settings", str(settings)], around) == expect, err(around)
    return out(around), err(around)


@pytest.fixture
def filled(settings: Path, tmp_path: Path) -> Path:
    """The catalog of these settings with one replica in READY."""
    call(settings, "catalog", "migrate")
    catalog = Catalog(f"sqlite:///{tmp_path / 'state' / 'catalog.db'}")
    catalog.add_replica("web01", vm("dr", "vm-1"), vm("production", "vm-2"), ReplicaState.READY)
    catalog.close()
    return settings


def test_list(filled: Path) -> None:
    shown, _ = call(filled, "replica", "list")
    assert "web01" in shown
    assert "READY" in shown
    assert "dr:web-vm-1" in shown
    listed, _ = call(filled, "replica", "list", "--json")
    (record,) = json.loads(listed)
    assert (record["key"], record["state"]) == ("web01", "READY")
    assert record["replica"]["moref"] == "vm-1"
    assert record["replication_on_hold"] is False


def test_list_of_nothing(settings: Path) -> None:
    call(settings, "catalog", "migrate")
    assert "There are no VM replicas." in call(settings, "replica", "list")[0]


def test_mark_failover_twice_and_show(filled: Path) -> None:
    for _ in range(2):
        shown, _ = call(filled, "replica", "mark-failover", "web01")
        assert "VM replica web01 is in state FAILOVER; its replication is on hold." in shown
    shown, _ = call(filled, "replica", "show", "web01")
    assert "VM replica web01: FAILOVER" in shown
    assert "source VM   production:/production/vm/web-vm-2" in shown
    assert "vm-2, instance UUID i-production-vm-2" in shown
    assert "Fail it back with `failback start web01`." in shown
    detail = json.loads(call(filled, "replica", "show", "web01", "--json")[0])
    assert detail["replica"]["state"] == "FAILOVER"
    assert detail["runs"] == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("replica show nobody", "The catalog has no replica nobody."),
        ("replica find-again nobody", "The catalog has no replica nobody."),
        ("replica mark-failover nobody", "The catalog has no replica nobody."),
        ("replica show Web01", "'Web01' is not a replica key."),
        ("replica add web02 --replica paris:a --source dr:b", "The settings have no site paris."),
        ("replica add web02 --replica dr:a --source production:b", "dr"),
    ],
)
def test_refusals(filled: Path, line: str, sentence: str) -> None:
    shown, said = call(filled, *line.split(), expect=2)
    assert shown == ""
    assert said.startswith("failback: ")
    assert sentence in said
    assert "Traceback" not in said
    assert "secret" not in said


def test_without_settings(tmp_path: Path) -> None:
    _, said = call(tmp_path / "absent.toml", "replica", "list", expect=2)
    assert "cannot be read" in said


def test_without_a_catalog(settings: Path) -> None:
    _, said = call(settings, "replica", "list", expect=2)
    assert "failback catalog migrate" in said


def test_task_queue(tmp_path: Path) -> None:
    file = tmp_path / "failback.toml"
    nowhere = {"HOME": str(tmp_path)}
    file.write_text('[temporal]\ntask_queue = "q1"\n')
    assert task_queue(str(file), nowhere) == "q1"
    assert task_queue(None, {**nowhere, "FAILBACK_SETTINGS": str(file)}) == "q1"
    assert task_queue(str(file), {"FAILBACK_TEMPORAL__TASK_QUEUE": "q2"}) == "q2"
    file.write_text("")
    assert task_queue(str(file), nowhere) == "failback"


def test_a_machine_that_runs_movers_no_more_is_forgotten(filled: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state' / 'catalog.db'}"
    with closing(Catalog(url)) as opened:
        opened.register_mover_host("old-machine/boot-1")

    call(filled, "catalog", "forget-host", "old-machine")

    with closing(Catalog(url)) as opened:
        opened.register_mover_host("new-machine/boot-1")


def test_the_ledger_of_old_runs_is_purged_by_hand(filled: Path) -> None:
    said, _ = call(filled, "catalog", "purge", "--older-than", "7", "--json")

    assert said == '{"plans": 0, "segments": 0}\n'
    call(filled, "catalog", "purge", "--older-than=-1", expect=2)
