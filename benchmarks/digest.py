"""Two sites: digests and changed blocks over a slow link, beside reading the disk through it.

`python -m benchmarks.digest [--folder DIR] [--rounds N]`. Source mover (or nbdkit, for streaming),
link and target mover are three processes on this machine. The link delays every byte by 20 ms each
way, so a round trip takes 40 ms, and lets 200 Mbit/s through in each direction; it counts what it
carries, TLS included. Streaming is our own compare method reading the source by NBD over TLS
through the same link; it too does not read what the source says is a hole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.images import MIB, Images
from benchmarks.table import Row, print_table
from failback.disks.blockio import BlockIO
from failback.disks.copier import CopyOptions, Scouting, copy
from failback.disks.file import FileDisk
from failback.disks.ledger import LedgerIdentity
from failback.disks.nbd import NbdDisk, connect
from failback.disks.plan import TransferPlan, total_bytes
from failback.disks.progress import CopyProgress
from failback.disks.remote.disk import MoverAddress, open_remote
from failback.disks.remote.scout import over_link, scouting
from failback.disks.testing import MemoryLedgerStore
from failback.disks.tls import TlsClient, TlsFiles
from tests.helpers.tls import Authority

SIZE = 1024 * MIB
PERCENT = 2
DELAY_S = 0.02
RATE = 200_000_000 / 8
NAME = "source.test"
PIECE = 16 * 1024


# --- the link: a process of its own ---


class _Direction:
    """Carries bytes one way: each leaves when the rate allows, and arrives a delay later."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.count = 0
        self._source, self._sink = source, sink
        # What a link of this rate and delay holds, and as much again.
        self._way: queue.Queue[tuple[float, bytes]] = queue.Queue(
            max(4, int(2 * RATE * DELAY_S / PIECE))
        )
        for target in (self._enter, self._leave):
            threading.Thread(target=target, daemon=True).start()

    def _enter(self) -> None:
        free_at = time.monotonic()
        with contextlib.suppress(OSError):
            while data := self._source.recv(PIECE):
                self.count += len(data)
                free_at = max(free_at, time.monotonic()) + len(data) / RATE
                time.sleep(max(0.0, free_at - time.monotonic()))
                self._way.put((free_at + DELAY_S, data))
        self._way.put((0.0, b""))

    def _leave(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = self._way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    break
                self._sink.sendall(data)
            self._sink.shutdown(socket.SHUT_WR)


def link(port: int) -> None:
    """Print the port, carry connections to `port` until SIGTERM, print the counts."""
    directions: list[_Direction] = []
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)

    def end(*_: object) -> None:
        print(json.dumps(sum(one.count for one in directions)), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        directions += [_Direction(near, far), _Direction(far, near)]


class Carried:
    """A running link; `bytes` after its end."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port, self.bytes = process, port, 0


@contextlib.contextmanager
def linked(port: int) -> Iterator[Carried]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.digest", "--link", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            carried = Carried(process, int(process.stdout.readline()))
            yield carried
            process.terminate()
            carried.bytes = int(process.stdout.readline())
        finally:
            process.kill()


# --- both sites ---


class Sites:
    """Images and certificates; each measurement starts its own servers."""

    def __init__(self, root: Path) -> None:
        self.images = Images(root, SIZE)
        self.images.make()
        authority = Authority(root / "tls")
        self.server = authority.issue("server", NAME)
        self.client = authority.issue("client", "target.test")

    def tls(self) -> TlsClient:
        return TlsClient(self.client.client(), NAME)

    def digest(self) -> tuple[float, int]:
        """(seconds, bytes on the link) of the digest method."""
        argv = [sys.executable, "-m", "failback.disks.remote", "serve"]
        port = _free_port()
        argv += ["--listen", f"127.0.0.1:{port}", "--allow-root", str(self.images.root)]
        argv += ["--certificates", str(self.server.key.parent)]
        with _server(argv, port), linked(port) as carried:
            began = time.monotonic()
            address = MoverAddress("127.0.0.1", carried.port, self.tls())
            remote = open_remote(address, str(self.images.source), "source", capacity_bytes=SIZE)
            options = over_link(CopyOptions())
            self._copy(
                remote, options, lambda target, plan: scouting(remote, target, plan.segment_bytes)
            )
            seconds = time.monotonic() - began
        return seconds, carried.bytes

    def stream(self) -> tuple[float, int]:
        """(seconds, bytes on the link) of reading the source through it."""
        pki = self.images.root / "pki"
        if not pki.exists():
            _name_as_nbdkit_does(self.server, pki)
        port = _free_port()
        argv = ["nbdkit", "-f", "-r", "--ipaddr", "127.0.0.1", "--port", str(port), "-t", "32"]
        argv += ["--tls=require", f"--tls-certificates={pki}", "--tls-verify-peer"]
        argv += ["file", str(self.images.source)]
        with _server(argv, port), linked(port) as carried:
            began = time.monotonic()
            sock = connect(("127.0.0.1", carried.port), "source")
            source = NbdDisk(sock, "source", writable=False, tls=self.tls())
            self._copy(source, CopyOptions(window=16, request_bytes=512 * 1024), None)
            seconds = time.monotonic() - began
        return seconds, carried.bytes

    def _copy(
        self,
        source: BlockIO,
        options: CopyOptions,
        scout: Callable[[BlockIO, TransferPlan], Scouting] | None,
    ) -> None:
        store, plan = MemoryLedgerStore(), TransferPlan(SIZE)
        store.save("bench", "disk", LedgerIdentity("source", "target"), plan)
        target = FileDisk(self.images.target, writable=True)
        try:
            progress: CopyProgress = copy(
                source,
                target,
                store.open("bench", "bench"),
                options=options,
                check=lambda: None,
                report=lambda _: None,
                clock=time.monotonic,
                scout=scout(target, plan) if scout else None,
            )
        finally:
            source.close()
            target.close()
        changed = total_bytes(self.images.changes(PERCENT))
        if progress.different_bytes != changed:
            raise RuntimeError(f"{progress.different_bytes} bytes differed instead of {changed}")

    def make_compressible(self) -> None:
        """Changed blocks of the source become text, as in a log; zeroed ones stay."""
        rng = random.Random(5)
        words = [rng.randbytes(rng.randint(1, 5)).hex() for _ in range(2000)]
        zeroed = set(self.images.zeroed())
        with self.images.source.open("r+b") as file:
            for block in self.images.changes(PERCENT):
                if block not in zeroed:
                    text = " ".join(rng.choices(words, k=block.length // 3)).encode()
                    os.pwrite(file.fileno(), text[: block.length], block.offset)
            os.fsync(file.fileno())


def rows(folder: Path | None = None, rounds: int = 3) -> list[Row]:
    """Best of so many rounds; streaming and digests take turns."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        sites = Sites(Path(name))
        streams: list[tuple[float, int]] = []
        digests: list[tuple[float, int]] = []
        for _ in range(rounds):
            for method, found in ((sites.stream, streams), (sites.digest, digests)):
                sites.images.make_stale(PERCENT)
                found.append(method())
                sites.images.check_equal(sites.images.target)
        sites.make_compressible()
        sites.images.make_stale(PERCENT)
        text_s, text_bytes = sites.digest()
        sites.images.check_equal(sites.images.target)
        changed = total_bytes(sites.images.changes(PERCENT))
    (stream_s, stream_bytes), (digest_s, _) = min(streams), min(digests)
    most, bar = max(count for _, count in digests), changed + SIZE // 100
    return [
        Row(
            "digest, 2 %, 200 Mbit/s, 20 ms each way",
            f"{digest_s / stream_s:.3f}",
            "<= 0.10",
            digest_s <= 0.10 * stream_s,
            f"best of {rounds}: {digest_s:.2f} s / {stream_s:.2f} s streaming by NBD over TLS"
            f" ({stream_bytes / MIB:.0f} MiB)",
        ),
        Row(
            "digest, bytes on the link, both ways",
            f"{most / MIB:.2f} MiB",
            f"<= {bar / MIB:.2f} MiB",
            most <= bar,
            f"changed {changed / MIB:.2f} MiB, incompressible, and 1 % of the disk; worst run",
        ),
        Row(
            "the same, changed blocks are text",
            f"{text_bytes / MIB:.2f} MiB",
            detail=f"{text_s:.2f} s, one run; zstd on the wire",
        ),
    ]


@contextlib.contextmanager
def _server(argv: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"{argv[0]} does not listen")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def _name_as_nbdkit_does(files: TlsFiles, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "ca-cert.pem").write_bytes(files.ca.read_bytes())
    (folder / "server-cert.pem").write_bytes(files.certificate.read_bytes())
    (folder / "server-key.pem").write_bytes(files.key.read_bytes())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.link is not None:
        link(given.link)
    else:
        print_table(rows(given.folder, given.rounds))


if __name__ == "__main__":
    main()
