"""Measures the data path beside other tools: `python -m benchmarks [--folder DIR] [--only WORD]`.

Every pair of numbers is measured interleaved in one run: the machine is shared and its speed
changes by the minute, so only ratios mean anything. Disks of 4 GiB with a hole of 1 GiB; page cache
warm except where the row says otherwise, so this is the cost of the work, not of the storage.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import crowd, digest, driver, tools
from benchmarks.images import MIB, Images
from benchmarks.mover import Job, Order, Outcome, measure
from benchmarks.table import Row, print_table, ratio_row, rounds

GIB = 1024 * MIB
DISKS = 8
BUDGET_BYTES = 64 * MIB


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Bench:
    """All measurements over one pair of images, served by warm servers for the other tools."""

    def __init__(self, images: Images, source: str, target: str) -> None:
        self.images, self.source, self.target = images, source, target

    def ours(self, *, stale: int = 0, job: dict[str, Any] | None = None, **order: Any) -> Outcome:
        """One run of ours over the whole images, checked afterwards if it wrote."""
        jobs = [Job(str(self.images.source), str(self.images.target), **(job or {}))]
        return self.run(jobs, stale=stale, **order)

    def run(
        self, jobs: Sequence[Job], *, stale: int = 0, warm: bool = True, **order: Any
    ) -> Outcome:
        if stale:
            self.images.make_stale(stale)
        if warm:
            self.images.warm()
        with tempfile.TemporaryDirectory(dir=self.images.root) as folder:
            outcome = measure(Order(jobs, folder, **order))
        if stale and outcome.different_bytes != sum(e.length for e in self.images.changes(stale)):
            raise RuntimeError(
                f"{outcome.different_bytes} bytes differed, which is not what was made"
            )
        return outcome

    def changed_areas(self, percent: int) -> dict[str, Any]:
        return {"areas": [(e.offset, e.length) for e in self.images.changes(percent)]}

    def theirs(self, work: Callable[[], float]) -> Callable[[], float]:
        """Another tool's work over the whole images, warm as ours."""

        def warmed() -> float:
            self.images.warm()
            return work()

        return warmed

    def rsync(self, percent: int) -> float:
        self.images.make_stale(percent)
        self.images.warm()
        return tools.rsync(self.images.source, self.images.target)

    # --- groups of rows ---

    def two_per_cent(self) -> Iterator[Row]:
        """Comparing, tracked and equal disks, against everything that could be used instead."""
        images = self.images
        times = rounds(
            {
                "compare": lambda: self.ours(stale=2).wall_s,
                "floor": self.theirs(lambda: tools.read_both(self.source, self.target)),
                "file": lambda: self.ours(stale=2, job={"kind": "file"}).wall_s,
                "qemu-img files": self.theirs(
                    lambda: tools.compare(str(images.source), str(images.target))
                ),
                "nbdcopy": self.theirs(lambda: tools.nbdcopy(self.source, self.target)),
                "tracked": lambda: self.ours(stale=2, job=self.changed_areas(2)).wall_s,
                "rsync": lambda: self.rsync(2),
                "equal": lambda: self.ours().wall_s,
                "qemu-img nbd": self.theirs(lambda: tools.compare(self.source, self.target)),
            },
            3,
            tell,
        )
        images.check_equal(images.target)
        yield ratio_row("compare 2 % / floor", times, "compare", "floor", 1.35)
        yield ratio_row("compare 2 % / full nbdcopy", times, "compare", "nbdcopy", 0.85)
        yield ratio_row("compare 2 % / rsync --inplace", times, "compare", "rsync", 0.5)
        yield ratio_row("file kind 2 % / qemu-img compare", times, "file", "qemu-img files", 1.25)
        yield ratio_row("file kind 2 % / our NBD path", times, "file", "compare", 0.6)
        yield ratio_row("equal / qemu-img compare, NBD", times, "equal", "qemu-img nbd", 0.5)
        yield ratio_row("tracked 2 % / full nbdcopy", times, "tracked", "nbdcopy", 0.15)

    def ten_per_cent(self) -> Iterator[Row]:
        """Comparing where more differs."""
        times = rounds(
            {"compare": lambda: self.ours(stale=10).wall_s, "rsync": lambda: self.rsync(10)},
            3,
            tell,
        )
        yield ratio_row("compare 10 % / rsync --inplace", times, "compare", "rsync", 0.25)

    def one_stream(self) -> Iterator[Row]:
        """Reading one disk."""
        times = rounds(
            {
                "ours": lambda: self.ours(read_only=True).wall_s,
                "nbdcopy": self.theirs(lambda: tools.read(self.source)),
            },
            5,
            tell,
        )
        yield ratio_row(
            "one read stream, speed / nbdcopy",
            times,
            "ours",
            "nbdcopy",
            0.85,
            at_least=True,
            faster=True,
        )

    def full_copy(self) -> Iterator[Row]:
        """Everything, to a disk that was never written."""
        empty = self.images.empty

        def ours() -> float:
            self.images.make_empty()
            options = {"full": True, "blank_target": True}
            return self.run([Job(str(self.images.source), str(empty))], options=options).wall_s

        def theirs() -> float:
            self.images.make_empty()
            self.images.warm()
            with tools.served(empty, self.images.root, writable=True) as uri:
                return tools.nbdcopy(self.source, uri, "--destination-is-zero")

        times = rounds({"ours": ours, "nbdcopy": theirs}, 3, tell)
        ours()
        self.images.check_equal(empty)
        empty.unlink()
        yield ratio_row("full copy / nbdcopy", times, "ours", "nbdcopy", 1.4)

    def durability(self) -> Iterator[Row]:
        """What the ledger and the flushes cost."""
        shares = []

        def durable() -> float:
            outcome = self.ours(stale=2)
            shares.append((outcome.flush_s + outcome.commit_s) / outcome.wall_s)
            return outcome.wall_s

        times = rounds(
            {"on": durable, "off": lambda: self.ours(stale=2, durable=False).wall_s}, 9, tell
        )
        yield ratio_row("ledger and flush on / off", times, "on", "off", 1.10)
        share = sorted(shares)[len(shares) // 2]
        yield Row(
            "time in FLUSH and commit",
            f"{share:.1%}",
            "<= 8 %",
            share <= 0.08,
            f"median of {len(shares)}, {min(shares):.1%} to {max(shares):.1%}",
        )

    def written(self) -> Iterator[Row]:
        """What reaches the target, counted by its exporter."""
        for percent in (2, 10):
            outcome = self.ours(stale=percent, count=True)
            changed, zeroed = self.images.changes(percent), self.images.zeroed()
            zeroes = sum(e.length for e in zeroed)
            expected = sum(e.length for e in changed) - zeroes
            met = (outcome.exporter_written_bytes, outcome.exporter_zeroed_bytes) == (
                expected,
                zeroes,
            )
            yield Row(
                f"data written, {percent} %",
                str(outcome.exporter_written_bytes),
                f"= {expected}",
                met,
                f"and {outcome.exporter_zeroed_bytes} zeroed of {zeroes}",
            )

    def memory(self) -> Iterator[Row]:
        """Peak of the mover above its interpreter, at two sizes."""
        small = self.ours(stale=2)
        sparse = Images(self.images.root / "sparse", 64 * GIB)
        sparse.root.mkdir(exist_ok=True)
        for path in (sparse.source, sparse.target):
            with path.open("wb") as file:
                file.truncate(sparse.size)
                for offset in range(0, sparse.size, GIB):
                    file.seek(offset)
                    file.write(path.name.encode() * 1000)
        try:
            large = self.run([Job(str(sparse.source), str(sparse.target))])
        finally:
            sparse.source.unlink()
            sparse.target.unlink()
        for name, outcome in (("4 GiB", small), ("64 GiB, sparse", large)):
            mib = outcome.rss_bytes / MIB
            yield Row(f"memory, {name}", f"{mib:.0f} MiB", "<= 64 MiB", mib <= 64)

    def eight_disks(self) -> Iterator[Row]:
        """The same bytes as eight disks at once and as one."""
        size = self.images.size // DISKS
        paths = str(self.images.source), str(self.images.target)
        jobs = [Job(*paths, window=(number * size, size)) for number in range(DISKS)]
        whole = [Job(*paths, window=(0, self.images.size))]
        times = rounds(
            {
                "eight": lambda: self.run(jobs, stale=2, budget_bytes=BUDGET_BYTES).wall_s,
                "one": lambda: self.run(whole, stale=2, budget_bytes=BUDGET_BYTES).wall_s,
            },
            9,
            tell,
        )
        yield ratio_row(
            "8 disks at once, throughput / one",
            times,
            "eight",
            "one",
            0.9,
            at_least=True,
            faster=True,
        )

    def cold(self) -> Iterator[Row]:
        """The same with nothing in the page cache: mostly the speed of this machine's disk."""

        def forgetting(run: Callable[[], float]) -> Callable[[], float]:
            def forgotten() -> float:
                self.images.make_stale(2)
                self.images.forget_cached()
                return run()

            return forgotten

        times = rounds(
            {
                "compare": forgetting(lambda: self.ours(warm=False).wall_s),
                "file": forgetting(lambda: self.ours(job={"kind": "file"}, warm=False).wall_s),
                "nbdcopy": forgetting(lambda: tools.nbdcopy(self.source, self.target)),
            },
            2,
            tell,
        )
        for ours in ("compare", "file"):
            ratio = min(times[ours]) / min(times["nbdcopy"])
            yield Row(f"cold cache: {ours} 2 % / full nbdcopy", f"{ratio:.2f}", detail="best of 2")

    def two_sites(self) -> Iterator[Row]:
        """The digest method over a slow link, with images of its own."""
        folder = self.images.root / "sites"
        folder.mkdir(exist_ok=True)
        yield from digest.rows(folder)


SITES: dict[str, Callable[[Path, Callable[[str], None]], Iterator[Row]]] = {
    "crowd": crowd.rows,
    "driver": driver.rows,
}
"""Groups that need simulated sites and no images."""

DISKS_GROUPS = (
    "written",
    "memory",
    "two_per_cent",
    "ten_per_cent",
    "one_stream",
    "full_copy",
    "durability",
    "eight_disks",
    "cold",
    "two_sites",
)


def disks(stack: ExitStack, root: Path, only: str, rows: list[Row]) -> str:
    """Run the groups over images; returns why they cannot run, if they cannot."""
    if missing := tools.missing():
        return f"Not installed: {', '.join(missing)}."
    images = Images(root, 4 * GIB)
    if not images.enough_room():
        return f"{root} has not enough room for the images."
    tell("making images")
    images.make()
    source = stack.enter_context(tools.served(images.source, root, writable=False))
    target = stack.enter_context(tools.served(images.target, root, writable=True))
    bench = Bench(images, source, target)
    for name in DISKS_GROUPS:
        if only in name:
            tell(name)
            rows.extend(getattr(bench, name)())
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the images are made (13 GiB)")
    parser.add_argument("--only", default="", help="groups whose name contains this word")
    arguments = parser.parse_args()
    rows = list[Row]()
    with ExitStack() as stack:
        root = arguments.folder or Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="failback-bench-", dir="/var/tmp")
            )
        )
        for name, group in SITES.items():
            if arguments.only in name:
                tell(name)
                rows.extend(group(root / name, tell))
        if any(arguments.only in name for name in DISKS_GROUPS):
            problem = disks(stack, root, arguments.only, rows)
            if problem:
                print(problem, file=sys.stderr)
                return 2
    print_table(rows)
    missed = sum(row.met is False for row in rows)
    print(f"\n{missed} bars missed" if missed else "\nall bars met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
