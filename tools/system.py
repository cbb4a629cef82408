"""The programs that come from the system's packages: nbdkit and the ext4 tools."""

from __future__ import annotations

from pathlib import Path

from tools.cache import cache_dir, locked
from tools.host import Host, Problem, long_step, tail

PROGRAMS = {
    # Serves a disk's bytes to the copier.
    "nbdkit": "nbdkit",
    # The practice site makes, looks into and checks file systems on its disks.
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}
"""Program -> package, by the names that Debian, Ubuntu and Fedora share."""


def missing_packages(host: Host) -> list[str]:
    """Packages of which a program is not to be found, in a fixed order."""
    absent = [package for program, package in PROGRAMS.items() if host.which(program) is None]
    return list(dict.fromkeys(absent))


def ensure(host: Host) -> dict[str, Path]:
    """Return where each program is; as root on Debian and Ubuntu, install what is missing."""
    if missing_packages(host):
        # Two checkouts at once: the second finds everything there.
        with locked(cache_dir(host.env), "packages"):
            if missing := missing_packages(host):
                _install(host, missing)
    return {program: path for program in PROGRAMS if (path := host.which(program))}


def _install(host: Host, packages: list[str]) -> None:
    named = " and ".join(packages)
    line = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if not host.has_apt:
        raise Problem(f"Please install {named} with your system's package manager.")
    if not host.is_root:
        raise Problem(f"Please install {named}, which needs root: sudo {line}")
    env = {**host.env, "DEBIAN_FRONTEND": "noninteractive"}
    # Something else may be installing, an unattended upgrade for one: wait for it.
    patient = ["-o", "DPkg::Lock::Timeout=300"]
    with long_step(f"installing {named}", "half a minute"):
        done = host.run([*line.split(), *patient], env=env)
        if done.status != 0:
            # A fresh image has no package lists, an old one stale ones.
            host.run(["apt-get", "update", *patient], env=env)
            done = host.run([*line.split(), *patient], env=env)
    if done.status != 0 or missing_packages(host):
        raise Problem(f"Installing {named} failed; apt-get says:\n{tail(done.output, 5)}")
