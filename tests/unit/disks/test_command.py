"""`python -m failback.disks`, with real files and real NBD servers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from failback.disks.claim import claim
from failback.disks.command.main import main
from failback.disks.command.show import Lines, line
from failback.disks.progress import CopyProgress
from tests.helpers.disks import KIB, MIB, REPOSITORY, changed, content, eventually

SIZE = 4 * MIB + 12345
needs_qemu = pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="qemu-nbd is not here")


class Disks:
    """Two files and a place for more."""

    def __init__(self, root: Path, seed: int = 1) -> None:
        rng = random.Random(seed)
        self.root = root
        self.source, self.target = root / "source.img", root / "target.img"
        self.original = content(rng, SIZE)
        self.before = changed(rng, self.original)
        self.source.write_bytes(self.original)
        self.target.write_bytes(self.before)

    @property
    def args(self) -> list[str]:
        return [str(self.source), str(self.target)]


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    status = main([str(one) for one in argv])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


def results(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@contextmanager
def serving(path: Path, argv: Sequence[str]) -> Iterator[str]:
    """An NBD server on a unix socket; gives its address."""
    process = subprocess.Popen(argv)

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0 or process.poll() is not None

    try:
        eventually(answers)
        yield f"nbd+unix:///?socket={path}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def nbdkit(root: Path, file: Path, *more: str) -> Iterator[str]:
    path = root / f"{file.name}.sock"
    flags = [one for one in more if one.startswith("-")]
    values = [one for one in more if not one.startswith("-")]
    argv = ["nbdkit", "-f", "-U", str(path), *flags, "file", str(file), *values]
    with serving(path, argv) as address:
        yield address


@contextmanager
def qemu(root: Path, file: Path, form: str) -> Iterator[str]:
    path = root / f"{file.name}.sock"
    # Persistent, because asking whether it answers is a first client.
    argv = ["qemu-nbd", "-t", "-e", "4", "-k", str(path), "-f", form, str(file)]
    with serving(path, argv) as address:
        yield address


@contextmanager
def storage_daemon(root: Path, file: Path) -> Iterator[str]:
    """qemu's server for disks of running machines; one connection at a time."""
    path = root / f"{file.name}.sock"
    argv = [
        "qemu-storage-daemon",
        f"--blockdev=driver=file,node-name=file,filename={file},discard=unmap",
        "--blockdev=driver=raw,node-name=disk,file=file",
        f"--nbd-server=addr.type=unix,addr.path={path},max-connections=1",
        "--export=type=nbd,id=export,node-name=disk,name=disk,writable=on",
    ]
    with serving(path, argv) as address:
        yield address.replace(":///?", ":///disk?")


def different(left: bytes, right: bytes) -> set[int]:
    step = 64 * KIB
    return {at for at in range(0, SIZE, step) if left[at : at + step] != right[at : at + step]}


def test_compare_tells_every_extent_and_writes_nothing(
    disks: Disks, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "compare", *disks.args, "--json")

    *extents, last = results(out)
    blocks = {
        at
        for one in extents
        for at in range(one["offset"], one["offset"] + one["length"], 64 * KIB)
    }
    expected = different(disks.original, disks.before)
    assert (status, blocks) == (1, expected)
    assert last["event"] == "compared"
    assert last["different_bytes"] == sum(one["length"] for one in extents)
    assert last["first_difference"] == min(expected)
    assert disks.target.read_bytes() == disks.before
    status, out, _ = run(capsys, "compare", *disks.args)
    assert (status, "The disks differ" in out) == (1, True)


def test_sync_makes_files_equal_and_compare_and_verify_agree(
    disks: Disks, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "sync", *disks.args, "--json")

    assert status == 0
    assert disks.target.read_bytes() == disks.original
    done = results(out)[-1]
    count = len(different(disks.original, disks.before))
    assert count - 1 < done["different_bytes"] / (64 * KIB) <= count
    assert done["different_bytes"] == done["written_bytes"] + done["zeroed_bytes"]
    assert run(capsys, "compare", *disks.args)[0] == 0
    status, out, _ = run(capsys, "verify", *disks.args, "--json")
    assert status == 0
    assert results(out)[-1]["checked_bytes"] == SIZE
    assert len(results(out)[-1]["root"]) == 64


def test_verify_finds_a_single_byte(disks: Disks, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(disks.original)
    data[3 * MIB + 7] ^= 1
    disks.target.write_bytes(data)

    status, out, _ = run(capsys, "verify", *disks.args)

    assert (status, out) == (1, f"The disks differ, first at offset {3 * MIB}.\n")


@pytest.mark.parametrize("blank", [False, True])
def test_full_reads_no_target(
    disks: Disks, capsys: pytest.CaptureFixture[str], blank: bool
) -> None:
    more = ["--blank-target"] if blank else []
    if blank:
        disks.target.write_bytes(b"")
        os.truncate(disks.target, SIZE)

    status, _, _ = run(capsys, "sync", *disks.args, "--method", "full", *more)

    assert status == 0
    assert disks.target.read_bytes() == disks.original


def test_tracked_touches_only_the_named_areas(
    disks: Disks, capsys: pytest.CaptureFixture[str]
) -> None:
    areas = disks.root / "areas.json"
    areas.write_text(json.dumps([{"offset": MIB + 5, "length": MIB, "type": 1}]))
    more = disks.root / "more.json"
    more.write_text(json.dumps({"extents": [{"offset": 3 * MIB, "length": 1}]}))

    assert run(capsys, "sync", *disks.args, "--extents", areas, "--extents", more)[0] == 0

    expected = bytearray(disks.before)
    for start, end in ((MIB, 2 * MIB + 64 * KIB), (3 * MIB, 3 * MIB + 64 * KIB)):
        expected[start:end] = disks.original[start:end]
    assert disks.target.read_bytes() == expected


@pytest.mark.parametrize(
    "kind", ["nbdkit", "one connection", "no extents", "raw", "qcow2", "storage daemon"]
)
def test_sync_over_nbd(disks: Disks, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    program = {"raw": "qemu-nbd", "qcow2": "qemu-nbd", "storage daemon": "qemu-storage-daemon"}
    if shutil.which(program.get(kind, "nbdkit")) is None:
        pytest.skip(f"{program[kind]} is not here")
    # NBD servers round a disk up to whole sectors, or cut it off there.
    disks.source.write_bytes(disks.original[: 4 * MIB])
    disks.target.write_bytes(disks.before[: 4 * MIB])
    target = disks.target
    if kind == "qcow2":
        target = disks.root / "target.qcow2"
        convert = ["qemu-img", "convert", "-O", "qcow2", str(disks.target), str(target)]
        subprocess.run(convert, check=True)
    servers = {
        "nbdkit": lambda: nbdkit(disks.root, target),
        "one connection": lambda: nbdkit(
            disks.root, target, "--filter=multi-conn", "multi-conn-mode=disable"
        ),
        "no extents": lambda: nbdkit(disks.root, target, "--filter=noextents"),
        "storage daemon": lambda: storage_daemon(disks.root, target),
        "raw": lambda: qemu(disks.root, target, "raw"),
        "qcow2": lambda: qemu(disks.root, target, "qcow2"),
    }
    with nbdkit(disks.root, disks.source, "-r") as ours, servers[kind]() as theirs:
        assert run(capsys, "compare", ours, theirs)[0] == 1
        assert run(capsys, "sync", ours, theirs)[0] == 0
        assert run(capsys, "verify", disks.source, theirs)[0] == 0


@needs_qemu
def test_a_file_that_qemu_has_open_is_in_use(
    disks: Disks, capsys: pytest.CaptureFixture[str]
) -> None:
    with qemu(disks.root, disks.target, "raw"):
        status, _, err = run(capsys, "sync", *disks.args)

    assert (status, "is in use by another program" in err) == (3, True)
    assert disks.target.read_bytes() == disks.before


def test_one_writer_at_a_time(disks: Disks, capsys: pytest.CaptureFixture[str]) -> None:
    for path, writable in ((disks.target, True), (disks.target, False), (disks.source, True)):
        held = claim(path, "", writable=writable)
        assert run(capsys, "sync", *disks.args)[0] == 3
        os.close(held)
    held = claim(disks.source, "", writable=False)
    assert run(capsys, "sync", *disks.args)[0] == 0
    os.close(held)


def small_target(disks: Disks) -> list[str | Path]:
    os.truncate(disks.target, SIZE - 1)
    return ["sync", *disks.args]


def linked(disks: Disks) -> list[str | Path]:
    link = disks.root / "link.img"
    os.link(disks.source, link)
    return ["sync", disks.source, link]


def other_format(disks: Disks) -> list[str | Path]:
    disks.target.write_bytes(b"QFI\xfb" + disks.before[4:])
    return ["sync", *disks.args]


def bad_extents(disks: Disks) -> list[str | Path]:
    file = disks.root / "areas.json"
    file.write_text(json.dumps([{"offset": 0, "length": SIZE + 1}]))
    return ["sync", *disks.args, "--extents", file]


def no_ledger(disks: Disks) -> list[str | Path]:
    return ["sync", *disks.args, "--ledger", disks.source]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (linked, "are the same disk"),
        (small_target, "target .* has .* bytes"),
        (other_format, "is a qcow2 image"),
        (bad_extents, "lies outside the disk"),
        (no_ledger, "is not a ledger"),
        (lambda d: ["sync", *d.args, "--method", "tracked"], "belong together"),
        (lambda d: ["sync", *d.args, "--blank-target"], "full only"),
        (lambda d: ["sync", "nbd://x/a", "nbd://X:10809/a"], "are the same disk"),
        (lambda d: ["sync", "nbd://u:pw@x/a", d.target], "carries a user name"),
        (lambda d: ["sync", *d.args, "--segment", "100000"], "--segment cannot be used"),
    ],
)
def test_refusals_touch_nothing(
    disks: Disks, capsys: pytest.CaptureFixture[str], arguments: Any, says: str
) -> None:
    argv = arguments(disks)
    before = (disks.source.read_bytes(), disks.target.read_bytes())

    status, _, err = run(capsys, *argv)

    assert status == 2
    assert err.startswith("failback: ")
    assert err.count("\n") == 1
    assert re.search(says, err)
    assert (disks.source.read_bytes(), disks.target.read_bytes()) == before


def test_a_failing_disk_is_a_sentence_with_its_offset(
    disks: Disks, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = ["--filter=error", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"]
    path = disks.root / "t.sock"
    argv = ["nbdkit", "-f", "-U", str(path), failing[0], "file", str(disks.target), *failing[1:]]
    with serving(path, argv) as address:
        status, out, err = run(capsys, "sync", disks.source, address, "--json")

    said = results(out)[-1]
    assert (status, said["type"]) == (3, "DiskFull")
    assert said["offset"] % (64 * KIB) == 0
    assert "No room to write" in err
    assert "Run it again" in err


def test_nobody_answering_is_a_sentence(disks: Disks, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = f"nbd+unix:///?socket={disks.root}/nowhere"
    status, _, err = run(capsys, "sync", disks.source, nowhere)

    assert status == 3
    assert "cannot be reached" in err


# --- going on ---


def started(disks: Disks, *more: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "failback.disks", "sync", *disks.args, *map(str, more)),
            *("--bandwidth", "2M", "--segment", "256K", "--checkpoint", "0.05"),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(ledger: Path) -> int:
    try:
        with sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True) as database:
            count: int = database.execute("SELECT count(*) FROM ledger_segment").fetchone()[0]
            return count
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sync_that_was_ended_goes_on_where_its_ledger_says(
    disks: Disks, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    ledger = disks.root / "sync.ledger"
    process = started(disks, "--ledger", ledger)
    eventually(lambda: finished(ledger) >= 3 or process.poll() is not None)
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=20)
    if number is signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert time.monotonic() - began < 2
        assert process.returncode == 130, (out, err)
        assert err.startswith("failback: Interrupted at a checkpoint. Run the same command again")
    done = finished(ledger)
    assert 3 <= done < 17
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
    again: list[str | Path] = [
        "sync",
        *disks.args,
        "--ledger",
        ledger,
        "--segment",
        "256K",
        "--json",
    ]

    status, out, err = run(capsys, *again)

    assert (status, err) == (0, f"Going on: {done} segments are finished already.\n")
    assert results(out)[-1]["resumed_bytes"] == done * 256 * KIB
    assert disks.target.read_bytes() == disks.original
    # What is complete begins anew, so that a later change is found.
    disks.target.write_bytes(disks.before)
    status, out, err = run(capsys, *again)
    assert (status, results(out)[-1]["resumed_bytes"], err) == (0, 0, "")
    assert disks.target.read_bytes() == disks.original


@pytest.mark.soak
@pytest.mark.parametrize("method", ["compare", "full", "tracked"])
def test_syncs_killed_at_random_instants_end_in_equality(
    disks: Disks, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    rng = random.Random(method)
    ledger = disks.root / "sync.ledger"
    more: list[str | Path] = ["--ledger", ledger, "--method", method]
    if method == "tracked":
        areas = disks.root / "areas.json"
        areas.write_text(json.dumps([{"offset": 0, "length": SIZE}]))
        more += ["--extents", areas]
    kills = resumed = 0
    while kills < 25:
        disks.target.write_bytes(disks.before)
        for _ in range(rng.randint(1, 4)):
            process = started(disks, *more)
            # Any instant from the first import to the last commit.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.05, 2.5))
            process.kill()
            process.communicate(timeout=20)
            kills += process.returncode == -9

        status, out, _ = run(capsys, "sync", *disks.args, *more, "--segment", "256K", "--json")

        assert status == 0
        resumed += results(out)[-1]["resumed_bytes"] > 0
        assert disks.target.read_bytes() == disks.original
    assert resumed > 2


def test_a_ledger_of_another_disk_counts_for_nothing(
    disks: Disks, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = disks.root / "sync.ledger"
    process = started(disks, "--ledger", ledger)
    eventually(lambda: finished(ledger) >= 3 or process.poll() is not None)
    process.kill()
    process.communicate(timeout=20)
    other = disks.root / "other.img"
    other.write_bytes(disks.before)
    other.replace(disks.target)

    status, _, err = run(capsys, "sync", *disks.args, "--ledger", ledger, "--segment", "256K")

    assert status == 0
    assert "is of other disks or another plan" in err
    assert disks.target.read_bytes() == disks.original


def test_verify_checks_what_a_sync_wrote(disks: Disks, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = disks.root / "sync.ledger"
    argv: list[str | Path] = ["verify", *disks.args, "--ledger", ledger, "--json"]
    assert run(capsys, *argv)[0] == 2
    assert run(capsys, "sync", *disks.args, "--ledger", ledger)[0] == 0

    status, out, _ = run(capsys, *argv)

    assert (status, results(out)[-1]["equal"]) == (0, True)


def test_progress_is_a_line_every_two_seconds_where_there_is_no_terminal() -> None:
    now, stream = [0.0], io.StringIO()
    lines = Lines(stream, line, clock=lambda: now[0])
    progress = CopyProgress(4 * MIB, MIB, 64 * KIB, rate_bytes_s=MIB, eta_s=3)

    for at in (0.5, 1.9, 2.0, 2.1, 3.9, 4.0):
        now[0] = at
        lines.show(progress)

    text = "25.0 % of 4.00 MiB, 64.0 KiB different, 1.00 MiB/s, 3.0 s left\n"
    assert stream.getvalue() == text * 2


def test_help_names_every_command_and_loads_no_database(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(word in said for word in ("compare", "sync", "verify", "exit status", "130"))
    code = "import sys, failback.disks.command.main as m\nprint(*sys.modules)"
    seen = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stdout.split()
    assert not {"sqlalchemy", "rich", "temporalio", "blake3"} & set(seen)
