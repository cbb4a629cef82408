"""The digest method between two movers: real TLS, real files, real ledger rules."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from failback.disks.blockio import BlockIO
from failback.disks.copier import copy
from failback.disks.file import FileDisk
from failback.disks.ledger import LedgerIdentity
from failback.disks.plan import BLOCK_BYTES, Extent, TransferPlan
from failback.disks.remote.disk import open_remote
from failback.disks.remote.scout import scouting, verify_remote
from failback.disks.testing import MemoryLedgerStore, MemoryPassLedger
from failback.errors import (
    CertificateUntrusted,
    DiskSizeMismatch,
    DiskUnavailable,
    SettingsInvalid,
    Stopped,
)
from tests.helpers.disks import MIB, QUICK, changed, content, no_check, no_report
from tests.helpers.remote import TwoSites, two_sites
from tests.helpers.tls import Authority

SIZE = 5 * MIB + 512


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[TwoSites]:
    with two_sites(tmp_path) as sites:
        yield sites


def ledger_of(plan: TransferPlan, store: MemoryLedgerStore | None = None) -> MemoryPassLedger:
    store = store or MemoryLedgerStore()
    store.save("plan", "disk", LedgerIdentity("source", "target"), plan)
    return store.open("plan", "test")


def read_block(disk: BlockIO, offset: int) -> bytes:
    """One block, as soon as it is there."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    disk.submit_read(1, offset, buffer)
    deadline = time.monotonic() + 10
    while not disk.poll(0.5):
        assert time.monotonic() < deadline
    return bytes(buffer)


def fill(sites: TwoSites, seed: int, share: float = 0.3) -> None:
    rng = random.Random(seed)
    original = content(rng, SIZE)
    sites.source.write_bytes(original)
    sites.target.write_bytes(changed(rng, original, share=share))


@pytest.mark.parametrize("seed", range(4))
def test_the_target_becomes_equal_and_only_differing_blocks_are_written(
    sites: TwoSites, seed: int
) -> None:
    fill(sites, seed)
    source, target = sites.source.read_bytes(), sites.target.read_bytes()
    differing = [
        at
        for at in range(0, SIZE, BLOCK_BYTES)
        if source[at : at + BLOCK_BYTES] != target[at : at + BLOCK_BYTES]
    ]

    ledger = ledger_of(sites.plan())
    progress = sites.copy(ledger)

    assert sites.target.read_bytes() == source
    written = [extent for record in ledger.records() for extent in record.written]
    blocks = [at for one in written for at in range(one.offset, one.end, BLOCK_BYTES)]
    assert sorted(blocks) == differing
    assert progress.examined_bytes == SIZE
    assert progress.different_bytes == sum(min(BLOCK_BYTES, SIZE - at) for at in differing)
    assert progress.different_bytes == progress.written_bytes + progress.zeroed_bytes


def test_areas_and_a_larger_target_are_served(sites: TwoSites) -> None:
    fill(sites, 5)
    with sites.target.open("ab") as file:
        file.write(b"x" * 70_000)
    before, source = sites.target.read_bytes(), sites.source.read_bytes()
    areas = (Extent(BLOCK_BYTES, 3 * BLOCK_BYTES), Extent(SIZE // BLOCK_BYTES * BLOCK_BYTES, 512))

    sites.copy(ledger_of(TransferPlan(SIZE, 256 * 1024, areas)))

    after = sites.target.read_bytes()
    assert after[BLOCK_BYTES : 4 * BLOCK_BYTES] == source[BLOCK_BYTES : 4 * BLOCK_BYTES]
    assert after[areas[1].offset : SIZE] == source[areas[1].offset :]
    assert after[4 * BLOCK_BYTES : areas[1].offset] == before[4 * BLOCK_BYTES : areas[1].offset]
    assert after[SIZE:] == before[SIZE:]


def test_holes_are_not_read_and_cross_the_link_as_nothing(sites: TwoSites) -> None:
    sites.target.write_bytes(random.Random(1).randbytes(16 * MIB))
    with sites.source.open("wb") as file:
        file.truncate(16 * MIB)

    progress = sites.copy(ledger_of(sites.plan()))

    assert sites.target.read_bytes() == bytes(16 * MIB)
    assert (progress.written_bytes, progress.zeroed_bytes) == (0, 16 * MIB)


def test_a_stopped_pass_goes_on_with_the_unfinished_segments(sites: TwoSites) -> None:
    fill(sites, 6, share=0.9)
    store = MemoryLedgerStore()
    ledger = ledger_of(sites.plan(), store)

    def check() -> None:
        if ledger.finished():
            raise Stopped("enough")

    remote, target = sites.open(), FileDisk(sites.target, writable=True)
    with pytest.raises(Stopped):
        copy(
            remote,
            target,
            ledger,
            options=replace(QUICK, window=1, flush_bytes=1),
            check=check,
            report=no_report,
            clock=time.monotonic,
            scout=scouting(remote, target, ledger.plan.segment_bytes),
        )
    remote.close()
    target.close()
    progress = sites.copy(ledger_of(sites.plan(), store))

    assert progress.resumed_bytes >= 256 * 1024
    assert sites.target.read_bytes() == sites.source.read_bytes()


def test_verify_finds_one_different_byte_without_reading_across_the_link(sites: TwoSites) -> None:
    fill(sites, 7, share=0)

    def outcome(*, whole_disk: bool) -> tuple[bool, int, int | None, str]:
        remote, target = sites.open(), FileDisk(sites.target, writable=False)
        try:
            found = verify_remote(
                remote,
                target,
                [Extent(BLOCK_BYTES, BLOCK_BYTES)],
                check=no_check,
                report=no_report,
                min_samples=0,
                sample_fraction=0,
                whole_disk=whole_disk,
                segment_bytes=256 * 1024,
            )
        finally:
            remote.close()
            target.close()
        return (
            found.equal,
            found.checked_bytes,
            found.first_difference_offset,
            found.root_hex,
        )

    equal, checked, difference, root = outcome(whole_disk=True)
    assert (equal, checked, difference, len(root)) == (True, SIZE, None, 64)

    with sites.target.open("r+b") as file:
        file.seek(SIZE - 1)
        file.write(bytes([sites.source.read_bytes()[-1] ^ 1]))
    assert outcome(whole_disk=False)[:3] == (True, BLOCK_BYTES, None)
    assert outcome(whole_disk=True)[::2] == (False, SIZE // BLOCK_BYTES * BLOCK_BYTES)


def test_only_movers_with_a_certificate_of_the_authority_come_in(sites: TwoSites) -> None:
    fill(sites, 8)
    stranger = Authority(sites.root / "theirs").issue("client", "mover.test")
    files = type(stranger)(sites.client.ca, stranger.certificate, stranger.key)

    with pytest.raises((CertificateUntrusted, DiskUnavailable)):
        sites.open(address=sites.address(files=files))
    sites.open().close()


def test_only_listed_movers_come_in(tmp_path: Path) -> None:
    with two_sites(tmp_path, peers=("other.test",)) as sites:
        fill(sites, 9)
        with pytest.raises(SettingsInvalid, match=r"mover\.test is not one of those"):
            sites.open()


def test_files_outside_the_allowed_folders_stay_closed(sites: TwoSites, tmp_path: Path) -> None:
    fill(sites, 10)
    sites.source.unlink()
    sites.source.symlink_to("/proc/self/environ")

    with pytest.raises(SettingsInvalid, match="not in a folder that this mover serves"):
        sites.open()


def test_a_source_of_another_size_is_refused(sites: TwoSites) -> None:
    fill(sites, 11)
    remote = sites.open()
    with sites.source.open("ab") as file:
        file.write(b"more")
    remote.close()
    address = sites.address()
    with pytest.raises(DiskSizeMismatch, match=f"the plan says {SIZE}"):
        open_remote(address, str(sites.source), "replica disk", capacity_bytes=SIZE)


def test_a_mover_that_goes_away_ends_the_attempt_with_an_offset(sites: TwoSites) -> None:
    fill(sites, 12)
    remote = sites.open()
    sites.service.close()
    with pytest.raises(DiskUnavailable):
        read_block(remote, BLOCK_BYTES)
    remote.close()


def test_the_remote_disk_cannot_be_written(sites: TwoSites) -> None:
    fill(sites, 13)
    remote = sites.open()
    with pytest.raises(ValueError, match="only read"):
        remote.submit_write(1, 0, memoryview(bytearray(512)))
    remote.close()
