"""Servers that lie, stammer, hang or die: always one typed error, never a hang or a wrong byte."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failback.disks import nbd_wire as wire
from failback.disks.blockio import Answer
from failback.disks.nbd import NbdDisk
from failback.disks.plan import BLOCK_BYTES, Extent
from failback.errors import DiskReadOnly, DiskUnavailable

SIZE = 1 << 20
FLAGS = wire.FLAG_HAS_FLAGS | wire.FLAG_SEND_FLUSH | wire.FLAG_SEND_WRITE_ZEROES


class Peer:
    """The server's side of a connection, for a script to play."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise ConnectionError("the client is gone")
            data += part
        return data

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def option(self) -> int:
        _, option, length = wire.OPTION.unpack(self.take(wire.OPTION.size))
        self.take(length)
        return int(option)

    def reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self.send(wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    def greet(self) -> None:
        self.send(wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT) + b"\0\3")
        self.take(4)

    def handshake(
        self, *, size: int = SIZE, flags: int = FLAGS, structured: bool = True, infos: bytes = b""
    ) -> None:
        self.greet()
        while True:
            option = self.option()
            if option == wire.OPT_STRUCTURED_REPLY:
                self.reply(option, wire.REP_ACK if structured else wire.REP_ERR_UNSUP)
            elif option == wire.OPT_SET_META_CONTEXT:
                self.reply(option, wire.REP_META_CONTEXT, b"\0\0\0\7" + wire.BASE_ALLOCATION)
                self.reply(option, wire.REP_ACK)
            elif option == wire.OPT_GO:
                export = struct.pack(">HQH", wire.INFO_EXPORT, size, flags)
                self.reply(option, wire.REP_INFO, export)
                if infos:
                    self.reply(option, wire.REP_INFO, infos)
                self.reply(option, wire.REP_ACK)
                return

    def request(self) -> tuple[int, int, int, int]:
        """(command, handle, offset, length); a write's payload is taken too."""
        _, _, command, handle, offset, length = wire.REQUEST.unpack(self.take(wire.REQUEST.size))
        if command == wire.CMD_WRITE:
            self.take(length)
        return command, handle, offset, length

    def chunk(self, handle: int, kind: int, data: bytes = b"", *, done: bool = True) -> None:
        head = wire.STRUCTURED_REPLY.pack(
            wire.STRUCTURED_REPLY_MAGIC, int(done), kind, handle, len(data)
        )
        self.send(head + data)

    def simple(self, handle: int, error: int = 0) -> None:
        self.send(wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, handle))


Script = Callable[[Peer], None]


@contextlib.contextmanager
def served(
    script: Script, *, connect_timeout_s: float = 5.0, io_timeout_s: float = 5.0
) -> Iterator[Callable[[], NbdDisk]]:
    """`script` plays the server in a thread; the context gives a function that connects."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)

    def play() -> None:
        with theirs, contextlib.suppress(OSError):
            script(Peer(theirs))

    thread = threading.Thread(target=play)
    thread.start()
    disks: list[NbdDisk] = []

    def connect() -> NbdDisk:
        disks.append(
            NbdDisk(
                ours,
                "the disk",
                writable=True,
                connect_timeout_s=connect_timeout_s,
                io_timeout_s=io_timeout_s,
            )
        )
        return disks[0]

    try:
        yield connect
    finally:
        for disk in disks:
            disk.close()
        ours.close()
        thread.join(20)
        assert not thread.is_alive()


def wait_for_failure(disk: NbdDisk) -> DiskUnavailable:
    deadline = time.monotonic() + 10
    try:
        while time.monotonic() < deadline:
            assert not disk.poll(0.2), "a broken reply was taken for an answer"
    except DiskUnavailable as error:
        return error
    raise AssertionError("the broken reply was not noticed")


def poll_until_failure(disk: NbdDisk, answers: list[Answer]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answers += disk.poll(0.2)


def go_with(infos: bytes = b"", *, size: int = SIZE, flags: int = FLAGS) -> Script:
    return lambda peer: peer.handshake(infos=infos, size=size, flags=flags)


def greeting(data: bytes) -> Script:
    return lambda peer: peer.send(data)


def after_greeting(data: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.option()
        peer.send(data)

    return script


def endless(peer: Peer) -> None:
    peer.greet()
    option = peer.option()
    while True:
        peer.reply(option, wire.REP_INFO, b"\0\7")


def trickle(peer: Peer) -> None:
    for byte in wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT):
        peer.send(bytes([byte]))
        time.sleep(0.1)


def refuse_go(peer: Peer) -> None:
    peer.greet()
    while (option := peer.option()) != wire.OPT_GO:
        peer.reply(option, wire.REP_ERR_UNSUP)
    peer.reply(wire.OPT_GO, wire.REP_ERROR + 6, b"no such export")


def info(*sizes: int) -> bytes:
    return struct.pack(">HIII", wire.INFO_BLOCK_SIZE, *sizes)


OPTION_REPLY = wire.OPTION_REPLY.pack


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (greeting(b""), "closed the connection"),
        (greeting(b"NBDMAGIC"), "closed the connection"),
        (greeting(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not an NBD server"),
        (greeting(wire.GREETING.pack(wire.NBDMAGIC, wire.OLDSTYLE_MAGIC)), "outdated"),
        (after_greeting(OPTION_REPLY(1, 8, 1, 0)), "something else"),
        (after_greeting(OPTION_REPLY(wire.OPTION_REPLY_MAGIC, 7, 1, 0)), "something else"),
        (after_greeting(OPTION_REPLY(wire.OPTION_REPLY_MAGIC, 8, 1, 1 << 31)), "option reply of"),
        (after_greeting(OPTION_REPLY(wire.OPTION_REPLY_MAGIC, 8, 1, 9)), "closed the connection"),
        (endless, "without end"),
        (refuse_go, "no such export"),
        (go_with(size=1 << 63), "impossible size"),
        (go_with(flags=0), "no transmission flags"),
        (go_with(flags=wire.FLAG_HAS_FLAGS), "offers no flush"),
        (go_with(info(0, 4096, 1 << 20)), "blocks of 0 bytes"),
        (go_with(info(3, 4096, 1 << 20)), "blocks of 3 bytes"),
        (go_with(info(1 << 17, 1 << 17, 1 << 20)), "cannot be used"),
        (go_with(info(512, 4096, 8192)), "do not fit"),
        (go_with(info(512, 4096, 8192)[:-1]), "block sizes in 11 bytes"),
        (go_with(info(512, 4096, 1 << 20), size=SIZE + 1), "no multiple of its block size"),
    ],
)
def test_a_broken_handshake_is_disk_unavailable(script: Script, said: str) -> None:
    with served(script) as connect, pytest.raises(DiskUnavailable, match=said):
        connect()


@pytest.mark.parametrize("script", [trickle, lambda peer: peer.take(99)])
def test_a_handshake_that_takes_too_long_is_given_up(script: Script) -> None:
    began = time.monotonic()
    with served(script, connect_timeout_s=0.3) as connect, pytest.raises(DiskUnavailable):
        connect()
    assert time.monotonic() - began < 3


def test_an_export_that_is_read_only_is_not_opened_for_writing() -> None:
    with served(go_with(flags=FLAGS | wire.FLAG_READ_ONLY)) as connect, pytest.raises(DiskReadOnly):
        connect()


def test_a_server_that_knows_neither_options_nor_structure_still_works() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        while (option := peer.option()) != wire.OPT_EXPORT_NAME:
            peer.reply(option, wire.REP_ERR_UNSUP)
        peer.send(wire.EXPORT.pack(SIZE, FLAGS & ~wire.FLAG_SEND_WRITE_ZEROES))
        disk = bytearray(b"d" * SIZE)
        while True:
            _, _, command, handle, offset, length = wire.REQUEST.unpack(
                peer.take(wire.REQUEST.size)
            )
            if command == wire.CMD_WRITE:
                disk[offset : offset + length] = peer.take(length)
            peer.simple(handle)
            if command == wire.CMD_READ:
                peer.send(bytes(disk[offset : offset + length]))

    with served(script) as connect:
        disk = connect()
        assert disk.capacity_bytes == SIZE
        assert not disk.maps_zeroes
        buffer = bytearray(3 * BLOCK_BYTES)
        disk.submit_zero(1, BLOCK_BYTES, BLOCK_BYTES)
        assert disk.poll(5)[0].errno == 0
        disk.submit_read(2, 0, memoryview(buffer))
        assert disk.poll(5)[0].errno == 0
        assert buffer == b"d" * BLOCK_BYTES + bytes(BLOCK_BYTES) + b"d" * BLOCK_BYTES


def test_write_zeroes_that_fails_as_unknown_becomes_a_write() -> None:
    commands: list[int] = []

    def script(peer: Peer) -> None:
        peer.handshake(structured=False)
        while True:
            command, handle, _, _ = peer.request()
            commands.append(command)
            peer.simple(handle, 95 if command == wire.CMD_WRITE_ZEROES else 0)

    with served(script) as connect:
        disk = connect()
        for tag in (1, 2):
            disk.submit_zero(tag, 0, BLOCK_BYTES)
            (answer,) = disk.poll(5)
            assert (answer.tag, answer.errno) == (tag, 0)
    assert commands[:3] == [wire.CMD_WRITE_ZEROES, wire.CMD_WRITE, wire.CMD_WRITE]


def test_the_server_s_block_size_limits_hold() -> None:
    with served(go_with(info(512, 65536, 1 << 17))) as connect:
        disk = connect()
        assert disk.max_request_bytes == 1 << 17
        with pytest.raises(ValueError, match="does not fit"):
            disk.submit_zero(1, 0, 1 << 18)
        with pytest.raises(ValueError, match="does not fit"):
            disk.submit_zero(1, 100, 512)


def offset_data(offset: int, data: bytes) -> bytes:
    return struct.pack(">Q", offset) + data


def send_twice(peer: Peer, handle: int) -> None:
    for _ in range(2):
        peer.chunk(handle, 1, offset_data(8192, b"x" * 4096), done=False)


def send_dust(peer: Peer, handle: int) -> None:
    for offset in range(8192, 8192 + 4096, 2):
        peer.chunk(handle, 1, offset_data(offset, b"x"), done=False)


def status(*pairs: int, context: int = 7) -> bytes:
    return struct.pack(f">I{len(pairs)}I", context, *pairs)


READS: dict[str, Callable[[Peer, int], object]] = {
    "unknown handle": lambda p, h: p.chunk(h + 1, 0),
    "wrong magic": lambda p, h: p.send(b"\0" * 64),
    "cut in the header": lambda p, h: p.send(b"\x66\x8e\x33\xef\0"),
    "cut in the data": lambda p, h: p.send(
        wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, 1, 1, h, 4104) + b"\0" * 99
    ),
    "nothing": lambda p, h: None,
    "simple reply": lambda p, h: p.send(
        wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, h) + bytes(4096)
    ),
    "too little": lambda p, h: p.chunk(h, 1, offset_data(8192, b"x" * 100)),
    "too much": lambda p, h: p.chunk(h, 1, offset_data(8192, b"x" * 4097)),
    "too early": lambda p, h: p.chunk(h, 1, offset_data(8191, b"x" * 4096)),
    "far away": lambda p, h: p.chunk(h, 1, offset_data(1 << 63, b"x" * 4096)),
    "twice": send_twice,
    "dust": send_dust,
    "endless length": lambda p, h: p.send(
        wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, 1, 1, h, 0xFFFFFFFF)
    ),
    "hole too long": lambda p, h: p.chunk(h, 2, struct.pack(">QI", 8192, 0xFFFFFFFF)),
    "malformed hole": lambda p, h: p.chunk(h, 2, b"123"),
    "done without data": lambda p, h: p.chunk(h, 0),
    "empty chunk without end": lambda p, h: p.chunk(h, 0, done=False),
    "unknown kind": lambda p, h: p.chunk(h, 77, b"x"),
    "status for a read": lambda p, h: p.chunk(h, 5, status(4096, 2)),
    "malformed error": lambda p, h: p.chunk(h, wire.CHUNK_ERROR, b"x"),
    "error without number": lambda p, h: p.chunk(h, wire.CHUNK_ERROR, bytes(6)),
}


@pytest.mark.parametrize("reply", READS.values(), ids=READS.keys())
def test_a_broken_read_reply_is_one_error_with_the_offset(
    reply: Callable[[Peer, int], object],
) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        _, handle, _, _ = peer.request()
        reply(peer, handle)

    buffer = bytearray(b"-" * (4096 + 64))
    with served(script) as connect:
        disk = connect()
        disk.submit_read(1, 8192, memoryview(buffer)[32:-32])
        error = wait_for_failure(disk)
        assert error.evidence["offset"] == 8192
        with pytest.raises(DiskUnavailable):
            disk.submit_flush(2)
    assert buffer[:32] == buffer[-32:] == b"-" * 32


@pytest.mark.parametrize(
    "payload",
    [
        status(),
        status(0, 2),
        status(4096, 2, context=8),
        status(4096, 2, 4096, 0, 4096, 0),
        status(4096, 2)[:-1],
    ],
    ids=["empty", "no progress", "other context", "beyond the request", "cut"],
)
def test_a_broken_block_status_is_one_error(payload: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        _, handle, _, _ = peer.request()
        peer.chunk(handle, wire.CHUNK_BLOCK_STATUS, payload)

    with served(script) as connect:
        disk = connect()
        disk.submit_map(1, 0, 8192)
        assert wait_for_failure(disk).evidence["offset"] == 0


@given(
    st.lists(st.tuples(st.integers(0, 1 << 33), st.integers(0, 3)), min_size=1, max_size=9),
    st.integers(1, 1 << 20),
)
def test_block_status_says_only_what_was_asked(pairs: list[tuple[int, int]], length: int) -> None:
    asked = Extent(4096, length)
    flat = [min(number, 0xFFFFFFFF) for pair in pairs for number in pair]
    try:
        zeroes = wire.parse_status("disk", status(*flat), 7, asked)
    except DiskUnavailable:
        return
    for extent in zeroes:
        assert asked.offset <= extent.offset < extent.end <= asked.end


def test_an_answer_before_the_payload_was_sent_is_refused() -> None:
    """Else the caller would reuse the buffer while the old bytes are still on their way."""

    def script(peer: Peer) -> None:
        peer.handshake()
        handle = wire.REQUEST.unpack(peer.take(wire.REQUEST.size))[3]
        peer.simple(handle)

    with served(script, io_timeout_s=0.5) as connect:
        disk = connect()
        disk.submit_write(1, 0, memoryview(bytearray(SIZE)))
        wait_for_failure(disk)


@pytest.mark.parametrize("write", [True, False])
def test_a_server_that_falls_silent_is_given_up_and_submitting_never_blocks(write: bool) -> None:
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.handshake()
        done.wait(20)

    with served(script, io_timeout_s=1.0) as connect:
        disk = connect()
        began = time.monotonic()
        for tag in range(8):
            if write:
                disk.submit_write(tag, 0, memoryview(bytearray(SIZE)))
            else:
                disk.submit_read(tag, 0, memoryview(bytearray(SIZE)))
        assert time.monotonic() - began < 0.9
        assert "moved no byte" in str(wait_for_failure(disk))
        assert time.monotonic() - began < 5
        done.set()


def test_an_idle_connection_is_not_given_up() -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        _, handle, _, _ = peer.request()
        peer.simple(handle)
        peer.take(1)

    with served(script, io_timeout_s=0.1) as connect:
        disk = connect()
        assert disk.poll(1.2) == []
        disk.submit_flush(1)
        assert disk.poll(5)[0].errno == 0


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=200), st.integers())
def test_garbage_after_the_handshake_never_hangs_or_answers_wrongly(
    garbage: bytes, seed: int
) -> None:
    rng = random.Random(seed)

    def script(peer: Peer) -> None:
        peer.handshake()
        _, handle, _, _ = peer.request()
        magic = rng.choice((wire.STRUCTURED_REPLY_MAGIC, wire.SIMPLE_REPLY_MAGIC))
        head = struct.pack(">IHHQ", magic, rng.randrange(4), rng.randrange(9), handle)
        peer.send(head[: rng.randrange(len(head) + 1)] + garbage)

    with served(script) as connect:
        disk = connect()
        disk.submit_read(1, 0, memoryview(bytearray(4096)))
        answers: list[Answer] = []
        with pytest.raises(DiskUnavailable):
            poll_until_failure(disk, answers)
        assert all(answer.errno != 0 for answer in answers)
