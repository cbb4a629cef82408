"""NBD addresses, and a relay in front of somebody's server."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failback.disks.address import NbdAddress, is_address, parse_address
from failback.disks.opening import open_disk
from failback.disks.relay import RelayCommand
from failback.errors import SettingsInvalid
from tests.helpers.disks import MIB, Site, alive, content, eventually, exporter_pid, no_check
from tests.unit.disks.test_command import nbdkit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nbd://host", NbdAddress("host", 10809)),
        ("NBD://Host:1/a/b%20c", NbdAddress("host", 1, "", "a/b c")),
        ("nbd://[::1]:2/x", NbdAddress("::1", 2, "", "x")),
        ("nbds://host/x", NbdAddress("host", 10809, "", "x", True)),
        ("nbd+unix:///?socket=/run/a.sock", NbdAddress(socket_path="/run/a.sock")),
        ("nbds+unix:///x?socket=/a%20b", NbdAddress("", 10809, "/a b", "x", True)),
        ("nbds://h/x?tls-hostname=n", NbdAddress("h", 10809, "", "x", True, "n")),
    ],
)
def test_addresses_that_are_understood(text: str, expected: NbdAddress) -> None:
    assert is_address(text)
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("nbd:", "nbd:///x", "nbd://host:x/", "nbd://host:99999/", "nbd+unix:///x"),
        *("nbd+unix://host/?socket=/a", "nbd://host/?tls=1", "nbd+ssh://host/", "nbd://[::1/"),
        "nbd://user:pass@host/",
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        parse_address(text)
    assert "pass" not in caught.value.what.replace("password", "")


def test_paths_are_not_addresses() -> None:
    assert not any(map(is_address, ["/dev/nbd0", "nbd.img", "nbd/x", "./nbd:x", "C:/x"]))


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


@given(names, names, st.integers(1, 65535), st.booleans())
def test_an_address_survives_being_written(export: str, path: str, port: int, secure: bool) -> None:
    for address in (
        NbdAddress("host.example", port, "", export, secure),
        NbdAddress("", 10809, f"/{path}", export, secure),
    ):
        assert parse_address(str(address)) == address


def test_a_disk_behind_a_relay_is_written_and_its_writer_can_be_killed(tmp_path: Path) -> None:
    site = Site(tmp_path, MIB)
    site.target.write_bytes(bytes(MIB))
    data = bytearray(content(random.Random(1), MIB, zero_share=0))
    with nbdkit(tmp_path, site.target) as text:
        command = RelayCommand(parse_address(text))
        with open_disk(
            Path(text), writable=True, fence=site.fence(), check=no_check, command=command
        ) as (disk, _):
            disk.submit_write(1, 0, memoryview(data))
            assert [answer.errno for answer in disk.poll(10)] == [0]
            disk.submit_flush(2)
            assert [answer.errno for answer in disk.poll(10)] == [0]
            pid = exporter_pid(site.fence())
            assert alive(pid)
        eventually(lambda: not alive(pid))
    assert site.target.read_bytes() == data


def test_the_relay_asks_for_tls_where_the_address_does() -> None:
    command = RelayCommand(parse_address("nbds://host/x"), Path("/etc/failback/tls"))

    argv = command.argv(Path("unused"), writable=False)

    assert argv == [
        *("nbdkit", "--single", "--readonly", "nbd", "hostname=host", "port=10809"),
        *("export=x", "tls=require", "tls-certificates=/etc/failback/tls"),
    ]
    with pytest.raises(ValueError, match="needs certificates"):
        RelayCommand(parse_address("nbds://host/x"))


def test_the_program_says_what_is_wrong_with_an_address() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "failback.disks", "compare", "nbd://", "b.img"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
