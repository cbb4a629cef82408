"""Peers that lie, dawdle or break off: both ends answer with one typed error and never hang."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from failback.disks.faults import Op
from failback.disks.plan import BLOCK_BYTES, Extent
from failback.disks.remote import wire
from failback.disks.remote.disk import MoverAddress, RemoteDisk, open_remote
from failback.disks.remote.link import Link
from failback.disks.remote.packing import Packer, Unpacker
from failback.disks.remote.service import MoverService
from failback.disks.remote.wire import Kind, Packing
from failback.disks.testing import Fault, MemoryDisk, MemoryVolume
from failback.disks.tls import TlsClient, TlsFiles
from failback.errors import DiskReadFailed, DiskUnavailable
from tests.helpers.disks import MIB
from tests.helpers.tls import Authority

NAME = "dr.test"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsFiles, TlsFiles]:
    """Of the server and of the client."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    return authority.issue("server", NAME), authority.issue("client", "mover.test")


@contextlib.contextmanager
def talking(
    files: tuple[TlsFiles, TlsFiles], talk: Callable[[ssl.SSLSocket], None]
) -> Iterator[MoverAddress]:
    """A server that does nothing but `talk`, once."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            sock, _ = listening.accept()
            sock.settimeout(10)
            with contextlib.suppress(OSError):
                secured = files[0].server().wrap_socket(sock, server_side=True)
                with secured:
                    talk(secured)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        yield MoverAddress("127.0.0.1", port, TlsClient(files[1].client(), NAME))
        thread.join(15)


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return wire.HEAD.pack(len(payload), kind, number) + payload


WELCOME = frame(Kind.WELCOME, 0, b'{"capacity_bytes": 1048576}')


def opened(address: MoverAddress, **how: float) -> RemoteDisk:
    return open_remote(address, "disk", "replica disk", capacity_bytes=MIB, **how)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "closed the connection"),
        (frame(99, 0), "unknown kind"),
        (wire.HEAD.pack(1 << 30, Kind.WELCOME, 0), "frame of 1073741824 bytes"),
        (frame(Kind.ROOT, 0, bytes(32)), "answered the greeting"),
        (frame(Kind.WELCOME, 0, b"[1]"), "small JSON object"),
        (frame(Kind.WELCOME, 0, b"{}"), "did not tell the disk's size"),
        (frame(Kind.FAILED, 0, b'{"type": "SystemExit", "what": "no"}'), "says: no"),
    ],
)
def test_a_wrong_greeting_is_refused(
    files: tuple[TlsFiles, TlsFiles], said: bytes, why: str
) -> None:
    def talk(sock: ssl.SSLSocket) -> None:
        # Unread bytes would turn the end into a reset, which overtakes what was said.
        sock.recv(65536)
        sock.sendall(said)

    refused = pytest.raises(DiskUnavailable, match=why)
    with talking(files, talk) as address, refused:
        opened(address)


def silent(over: threading.Event) -> None:
    over.wait(10)


def test_a_mover_that_says_nothing_is_given_up(files: tuple[TlsFiles, TlsFiles]) -> None:
    over = threading.Event()
    with talking(files, lambda _: silent(over)) as address:
        with pytest.raises(DiskUnavailable, match="did not answer in time"):
            opened(address, connect_timeout_s=0.5)
        over.set()


def digest_of(disk: RemoteDisk) -> bytes:
    """Root of the first block and then its leaf, whatever comes."""
    heard: list[bytes] = []
    extents = (Extent(0, BLOCK_BYTES),)
    number = disk.digest(extents, heard.append)
    deadline = time.monotonic() + 10
    while len(heard) < 2 and time.monotonic() < deadline:
        disk.poll(0.1)
        if len(heard) == 1:
            disk.leaves(number, extents[0], 1, heard.append)
            heard.append(b"asked")
    return heard[0]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (frame(Kind.ROOT, 1, bytes(31)), "digests of the wrong length"),
        (frame(Kind.ROOT, 2, bytes(32)), "a ROOT nobody asked for"),
        (frame(Kind.LIST, 1, bytes(48)), "digests of the wrong length"),
        (frame(Kind.DATA, 1, b"\0" + bytes(BLOCK_BYTES)), "a DATA nobody asked for"),
        (frame(Kind.READ, 1, bytes(12)), "a READ nobody asked for"),
        (frame(Kind.FAILED, 0, b'{"type": "DiskReadFailed", "what": "EIO"}'), "says: EIO"),
        (b"", "closed the connection"),
    ],
)
def test_wrong_answers_end_the_connection_with_an_offset(
    files: tuple[TlsFiles, TlsFiles], said: bytes, why: str
) -> None:
    def talk(sock: ssl.SSLSocket) -> None:
        sock.sendall(WELCOME)
        # The question is awaited, so that the answer cannot be the first.
        asked = b""
        while wire.HEAD.pack(wire.EXTENT.size, Kind.DIGEST, 1) not in asked:
            asked += sock.recv(65536)
        sock.sendall(said)

    with talking(files, talk) as address:
        disk = opened(address)
        with pytest.raises((DiskUnavailable, DiskReadFailed), match=why) as caught:
            digest_of(disk)
        disk.close()
    assert caught.value.evidence["offset"] == 0


def test_a_mover_that_falls_silent_is_given_up(files: tuple[TlsFiles, TlsFiles]) -> None:
    over = threading.Event()

    def talk(sock: ssl.SSLSocket) -> None:
        sock.sendall(WELCOME)
        over.wait(10)

    with talking(files, talk) as address:
        disk = open_remote(address, "disk", "replica disk", io_timeout_s=0.3)
        with pytest.raises(DiskUnavailable, match=r"moved no byte for 0\.3 s"):
            digest_of(disk)
        disk.close()
        over.set()


# --- the service ---


@contextlib.contextmanager
def service(files: tuple[TlsFiles, TlsFiles], disk: MemoryDisk) -> Iterator[MoverAddress]:
    serving = MoverService(
        ("127.0.0.1", 0), files[0], lambda _: contextlib.closing(disk), handshake_s=0.5
    )
    try:
        yield MoverAddress("127.0.0.1", serving.port, TlsClient(files[1].client(), NAME))
    finally:
        serving.close()


def memory(*faults: Fault) -> MemoryDisk:
    return MemoryDisk(MemoryVolume(random.Random(1).randbytes(MIB)), faults=faults)


HELLO = frame(
    Kind.HELLO,
    0,
    wire.pack_json({"version": 1, "key": "00" * 32, "disk": "d", "capacity_bytes": None}),
)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "did not answer in time"),
        (frame(Kind.READ, 1, bytes(12)), "did not introduce itself"),
        (wire.HEAD.pack(1 << 31, Kind.HELLO, 0), "frame of 2147483648 bytes"),
        (frame(Kind.HELLO, 0, b"{" * 9000), "small JSON object"),
        (frame(Kind.HELLO, 0, b'{"version": 9}'), "different versions"),
        (HELLO + frame(Kind.READ, 1, wire.RANGE.pack(MIB, 1)), "1 bytes of the disk at 1048576"),
        (HELLO + frame(Kind.READ, 1, wire.RANGE.pack(0, 1 << 31)), "2147483648 bytes"),
        (HELLO + frame(Kind.DIGEST, 1, b""), "with 0 bytes"),
        (HELLO + frame(Kind.DIGEST, 1, wire.EXTENT.pack(1, BLOCK_BYTES)), "no blocks of the disk"),
        (HELLO + frame(Kind.DIGEST, 1, wire.EXTENT.pack(0, 1 << 63)), "no blocks of the disk"),
        (HELLO + frame(Kind.LEAVES, 7), "a LEAVES out of turn"),
        (HELLO + HELLO, "a HELLO out of turn"),
        (HELLO + frame(Kind.DATA, 1), "a DATA out of turn"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_told_and_cut_off(
    files: tuple[TlsFiles, TlsFiles], said: bytes, why: str
) -> None:
    with service(files, memory()) as address:
        sock = socket.create_connection((address.host, address.port), timeout=10)
        with address.tls.wrap(sock, "service", 10) as secured:
            if said:
                secured.sendall(said)
            heard = b""
            with contextlib.suppress(OSError):
                while part := secured.recv(65536):
                    heard += part
        # An oversized frame ends the link itself; everything else is answered first.
        assert why in heard.decode("latin-1") or "frame of" in why
        opened(address).close()


def test_a_failing_source_is_reported_with_its_offset(files: tuple[TlsFiles, TlsFiles]) -> None:
    broken = Fault(Op.READ, errno.EIO, times=9, extent=Extent(3 * BLOCK_BYTES, 1))
    with service(files, memory(broken)) as address:
        disk = opened(address)
        buffer = memoryview(bytearray(BLOCK_BYTES))
        disk.submit_read(1, 3 * BLOCK_BYTES, buffer)
        with pytest.raises(DiskReadFailed, match="EIO") as caught:
            wait(disk)
        disk.close()
    assert caught.value.evidence["offset"] == 3 * BLOCK_BYTES


def wait(disk: RemoteDisk) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        disk.poll(0.5)


# --- packing ---


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_packed_is_unpacked(seed: int) -> None:
    rng = random.Random(seed)
    packer, unpacker = Packer(), Unpacker("peer")
    for length in (1, 512, BLOCK_BYTES, BLOCK_BYTES - 7):
        kinds = bytes(length), rng.randbytes(length), b"log line\n" * length
        content = rng.choice(kinds)[:length]
        packing, data = packer.pack(memoryview(bytearray(content)), rng.choice([None, 1e6, 1e12]))
        into = memoryview(bytearray(rng.randbytes(length)))
        unpacker.unpack(memoryview(bytes([packing]) + bytes(data)), into, 0)
        assert bytes(into) == content


def test_text_is_packed_for_a_slow_link_and_noise_is_not() -> None:
    text = memoryview(bytearray(b"log line\n" * 7000))
    noise = memoryview(bytearray(random.Random(1).randbytes(BLOCK_BYTES)))

    def packings(data: memoryview, rate: float) -> list[Packing]:
        packer = Packer()
        return [packer.pack(data, rate)[0] for _ in range(40)]

    assert set(packings(text, 1e6)) == {Packing.ZSTD}
    assert set(packings(noise, 1e6)) == {Packing.RAW}
    assert packings(text, 1e15).count(Packing.ZSTD) <= 3


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0" + bytes(511),
        b"\2x",
        b"\7" + bytes(512),
        b"\1 no zstd at all",
        # Claims, and has, more than was asked for: memory for it is never allocated.
        b"\1" + zstandard.compress(bytes(64 * MIB)),
        b"\1" + zstandard.compress(bytes(100)),
    ],
)
def test_data_of_another_size_is_refused(payload: bytes) -> None:
    with pytest.raises(DiskUnavailable):
        Unpacker("peer").unpack(memoryview(payload), memoryview(bytearray(512)), 0)


def listen(link: Link) -> None:
    while True:
        link.wait(time.monotonic() + 10)


def test_random_bytes_never_hang_the_service(files: tuple[TlsFiles, TlsFiles]) -> None:
    rng = random.Random(3)
    with service(files, memory()) as address:
        for _ in range(10):
            sock = socket.create_connection((address.host, address.port), timeout=10)
            link = Link(address.tls.wrap(sock, "service", 10), "service")
            link.send(Kind(rng.choice(list(Kind))), rng.randrange(1 << 32), rng.randbytes(200))
            with pytest.raises(DiskUnavailable, match=r"closed the|broke the"):
                listen(link)
            link.close(0)
        opened(address).close()


def test_the_command_serves_disks_by_name(files: tuple[TlsFiles, TlsFiles], tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys

    from tests.activity.world import write_disk
    from tests.helpers.disks import REPOSITORY, eventually

    (tmp_path / "dr").mkdir()
    file = write_disk(tmp_path / "dr", "disk0", random.Random(1).randbytes(MIB))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "failback.disks.remote", "serve", "--listen", f"127.0.0.1:{port}"]
    argv += ["--certificates", str(files[0].key.parent), "--datastore", f"ds-dr={tmp_path / 'dr'}"]
    with subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        try:

            def connected() -> RemoteDisk | None:
                with contextlib.suppress(DiskUnavailable):
                    address = MoverAddress("127.0.0.1", port, TlsClient(files[1].client(), NAME))
                    return open_remote(address, file, "replica disk")
                return None

            disk = eventually(connected)
            assert disk.capacity_bytes == MIB
            disk.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
