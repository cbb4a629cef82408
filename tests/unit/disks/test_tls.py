"""NBD over TLS against the real nbdkit, and TLS files that are wrong."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from failback.disks.blockio import Answer
from failback.disks.nbd import NbdDisk, connect
from failback.disks.tls import TlsClient, TlsFiles
from failback.errors import CertificateUntrusted, DiskUnavailable, SettingsInvalid
from tests.helpers.disks import MIB, eventually
from tests.helpers.tls import Authority

SIZE = 8 * MIB


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def ours(authority: Authority) -> TlsFiles:
    return authority.issue("client", "mover.test")


@contextmanager
def nbdkit(folder: Path, server: TlsFiles | None, *more: str) -> Iterator[tuple[str, int]]:
    """A real nbdkit on a free loopback port; with certificates it demands TLS and ours."""
    disk = folder / "disk.img"
    if not disk.exists():
        disk.write_bytes(random.Random(1).randbytes(SIZE))
    tls = []
    if server is not None:
        certificates = folder / "pki"
        certificates.mkdir(mode=0o700)
        for path, name in (
            (server.ca, "ca-cert.pem"),
            (server.certificate, "server-cert.pem"),
            (server.key, "server-key.pem"),
        ):
            shutil.copy(path, certificates / name)
        tls = ["--tls=require", f"--tls-certificates={certificates}", "--tls-verify-peer"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = ["--ipaddr", "127.0.0.1", "--port", str(port)]
    pid = folder / "nbdkit.pid"
    with (folder / "nbdkit.log").open("wb") as log:
        process = subprocess.Popen(
            ["nbdkit", "-f", "--pidfile", str(pid), *address, *tls, *more, "file", str(disk)],
            stderr=log,
        )
        try:
            eventually(pid.exists)
            yield "127.0.0.1", port
        finally:
            process.terminate()
            process.wait()


def opened(
    where: tuple[str, int], files: TlsFiles | None, *, name: str = "dr.test", writable: bool = False
) -> NbdDisk:
    tls = TlsClient(files.client(), name) if files else None
    return NbdDisk(connect(where, "disk"), "disk", writable=writable, tls=tls)


def answers(disk: NbdDisk, count: int) -> list[Answer]:
    found: list[Answer] = []
    while len(found) < count:
        batch = disk.poll(10)
        assert batch, "no answer in 10 s"
        found += batch
    assert not any(answer.errno for answer in found)
    return found


def test_reads_and_writes_arrive_through_tls(
    tmp_path: Path, authority: Authority, ours: TlsFiles
) -> None:
    with nbdkit(tmp_path, authority.issue("server", "dr.test")) as where:
        disk = opened(where, ours, writable=True)
        fresh = random.Random(2).randbytes(4 * MIB)
        # Far more than the socket takes at once, both directions at the same time.
        buffers = [memoryview(bytearray(MIB)) for _ in range(4)]
        for tag, buffer in enumerate(buffers):
            disk.submit_write(tag, tag * MIB, memoryview(fresh)[tag * MIB : (tag + 1) * MIB])
            disk.submit_read(4 + tag, (4 + tag) * MIB, buffer)
        answers(disk, 8)
        disk.submit_flush(9)
        answers(disk, 1)
        disk.close()

    old = random.Random(1).randbytes(SIZE)
    assert (tmp_path / "disk.img").read_bytes() == fresh + old[4 * MIB :]
    assert b"".join(buffers) == old[4 * MIB :]
    assert "non-properly terminated" not in (tmp_path / "nbdkit.log").read_text()


def test_an_expired_client_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    expired = authority.issue("old", "mover.test", expired=True)
    with (
        nbdkit(tmp_path, authority.issue("server", "dr.test")) as where,
        pytest.raises(DiskUnavailable, match="do not accept a client's certificate"),
    ):
        opened(where, expired)


def test_a_client_of_another_authority_is_refused(
    tmp_path: Path, authority: Authority, ours: TlsFiles
) -> None:
    stranger = Authority(tmp_path / "theirs").issue("client", "mover.test")
    mixed = TlsFiles(ours.ca, stranger.certificate, stranger.key)
    with (
        nbdkit(tmp_path, authority.issue("server", "dr.test")) as where,
        pytest.raises(DiskUnavailable, match="do not accept a client's certificate"),
    ):
        opened(where, mixed)


def test_a_client_without_certificate_is_refused(
    tmp_path: Path, authority: Authority, ours: TlsFiles
) -> None:
    context = ssl.create_default_context(cafile=str(ours.ca))
    with (
        nbdkit(tmp_path, authority.issue("server", "dr.test")) as where,
        pytest.raises(DiskUnavailable, match="do not accept a client's certificate"),
    ):
        NbdDisk(connect(where, "disk"), "disk", writable=False, tls=TlsClient(context, "dr.test"))


@pytest.mark.parametrize(
    ("names", "expired", "said"),
    [(["other.test"], False, "dr.test"), (["dr.test"], True, "expired")],
)
def test_a_server_with_the_wrong_name_or_date_is_refused(
    tmp_path: Path,
    authority: Authority,
    ours: TlsFiles,
    names: list[str],
    expired: bool,
    said: str,
) -> None:
    with (
        nbdkit(tmp_path, authority.issue("server", *names, expired=expired)) as where,
        pytest.raises(CertificateUntrusted, match=said),
    ):
        opened(where, ours)


def test_a_server_of_another_authority_is_refused(tmp_path: Path, ours: TlsFiles) -> None:
    server = Authority(tmp_path / "theirs").issue("server", "dr.test")
    with (
        nbdkit(tmp_path, server) as where,
        pytest.raises(CertificateUntrusted, match="not accepted"),
    ):
        opened(where, ours)


def test_a_plaintext_server_is_refused_when_tls_is_asked_for(
    tmp_path: Path, ours: TlsFiles
) -> None:
    with (
        nbdkit(tmp_path, None) as where,
        pytest.raises(DiskUnavailable, match="does not speak TLS, which is required"),
    ):
        opened(where, ours)


def test_a_server_that_demands_tls_is_not_spoken_to_without(
    tmp_path: Path, authority: Authority
) -> None:
    with (
        nbdkit(tmp_path, authority.issue("server", "dr.test")) as where,
        pytest.raises(DiskUnavailable, match="demands TLS"),
    ):
        opened(where, None)


def test_files_that_are_wrong_are_named(tmp_path: Path, ours: TlsFiles) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    empty.chmod(0o600)
    other = Authority(tmp_path / "theirs").issue("client", "mover.test")
    for files, said in (
        (TlsFiles(tmp_path / "none.pem", ours.certificate, ours.key), "none.pem cannot be read"),
        (TlsFiles(empty, ours.certificate, ours.key), "empty.pem does not hold certificates"),
        (TlsFiles(ours.ca, empty, ours.key), "empty.pem does not hold a certificate"),
        (TlsFiles(ours.ca, ours.certificate, empty), "empty.pem does not hold a private key"),
        (TlsFiles(ours.ca, ours.certificate, other.key), "does not belong to"),
    ):
        with pytest.raises(SettingsInvalid, match=said):
            files.client()


def test_a_key_that_others_can_read_is_refused(ours: TlsFiles) -> None:
    ours.key.chmod(0o640)
    with pytest.raises(SettingsInvalid, match=r"can be read by other users.*chmod 600"):
        ours.server()
