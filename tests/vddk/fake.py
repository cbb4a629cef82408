"""A host behind the fake library (fake_vixdisklib.c): its disks, what it expects, what it saw."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from failback.disks.hosts import HostLimits
from failback.disks.vddk import VddkSite
from tools import paths
from tools.host import Problem

SOURCE = Path(__file__).with_name("fake_vixdisklib.c")
THUMBPRINT = ":".join(["AB"] * 20)
PASSWORD = "s3cret, and $(more) =+-"
USER = "svc@vsphere.local"
SERVER = "vcenter.test"


def needed(what: str) -> None:
    """This machine lacks something: a failure where checks are complete, else a named skip."""
    if os.environ.get("CI"):
        pytest.fail(f"The VDDK path cannot be tested: {what}")
    pytest.skip(f"The VDDK path is not tested here: {what}")


def plugin() -> Path:
    """nbdkit's real plugin."""
    try:
        return paths.vddk_plugin_file()
    except Problem as problem:
        needed(str(problem))
        raise


def build(folder: Path, *defines: str) -> Path:
    """Compile the library; returns its file."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        needed("there is no C compiler (package gcc).")
    library = folder / "libvixDiskLib.so.8"
    subprocess.run(
        [
            *(compiler or "cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC"),
            *("-shared", "-pthread", *(f"-D{name}" for name in defines)),
            *("-o", str(library), str(SOURCE)),
        ],
        check=True,
        timeout=60,
    )
    return library


@dataclass(frozen=True)
class FakeHost:
    """A folder that the library takes for itself, and a site that leads to it."""

    root: Path
    site: VddkSite

    @classmethod
    def make(cls, root: Path, library: Path, *, limits: HostLimits | None = None) -> FakeHost:
        """A host that expects exactly what its site says."""
        (root / "lib64").mkdir(parents=True)
        (root / "fake").mkdir()
        (root / "lib64" / library.name).symlink_to(library)
        password = root / "password"
        password.touch(mode=0o600)
        password.write_text(PASSWORD + "\n")
        (root / "fake" / "password").write_text(PASSWORD)
        (root / "fake" / "expect").write_text(
            f"user={USER}\nserver={SERVER}\nthumbprint={THUMBPRINT}\ntransports=nbdssl:nbd\n"
        )
        return cls.at(root, limits=limits)

    @classmethod
    def at(cls, root: Path, *, limits: HostLimits | None = None) -> FakeHost:
        """A host that was made before, perhaps by another process."""
        site = VddkSite(
            libdir=root,
            server=SERVER,
            user=USER,
            password_file=root / "password",
            thumbprint=THUMBPRINT,
            transports="nbdssl:nbd",
            plugin=str(plugin()),
            limits=limits or HostLimits(),
            open_timeout_s=60.0,
        )
        return cls(root, site)

    def serve(self, name: str, file: Path, *, snapshot: str = "-") -> None:
        """Have a disk of this name, also as a snapshot froze it."""
        with (self.root / "fake" / "disks").open("a") as disks:
            disks.write(f"{snapshot}\t{name}\t{file}\n")

    def forget_disks(self) -> None:
        (self.root / "fake" / "disks").unlink()

    def control(self, **values: int | str) -> None:
        """What the library does from now on; see fake_vixdisklib.c."""
        text = "".join(f"{key}={value}\n" for key, value in values.items())
        (self.root / "fake" / "control").write_text(text)

    def hang(self, on: bool) -> None:
        """Answer no request, until told otherwise."""
        if on:
            (self.root / "fake" / "hang").touch()
        else:
            (self.root / "fake" / "hang").unlink()

    def log(self) -> list[str]:
        """Every call, in order."""
        log = self.root / "fake" / "log"
        return log.read_text().splitlines() if log.exists() else []

    def count(self, pattern: str) -> int:
        """Calls whose line matches from its beginning."""
        return sum(re.match(pattern, line) is not None for line in self.log())

    def pid(self) -> int:
        """The exporter that started the library last."""
        return int([line for line in self.log() if line.startswith("init ")][-1].split()[-1])

    def peak_bytes(self) -> int:
        """The most bytes that were under way at once, over all exporters of this host."""
        now = peak = 0
        for line in self.log():
            if moved := re.match(r"(begin|end) (?:read|write) (\d+)", line):
                now += int(moved[2]) * (1 if moved[1] == "begin" else -1)
                peak = max(peak, now)
        return peak

    def requests(self) -> list[tuple[str, int, int]]:
        """(read or write, length, offset) of all requests."""
        found = (re.match(r"begin (\w+) (\d+) at (\d+)", line) for line in self.log())
        return [(one[1], int(one[2]), int(one[3])) for one in found if one]
