"""Where the third-party programs are: for tests, the demo and scripts. Finds, never builds."""

from __future__ import annotations

from pathlib import Path

from tools import system, temporal_binary, vddk_plugin
from tools.go_program import LAB, REFEREE
from tools.host import Host, Problem


def temporal() -> Path:
    """The `temporal` program (server and command line), of a release that was tested."""
    return _there(temporal_binary.locate(Host()), "The Temporal server", "temporal")


def lab() -> Path:
    """The practice site, built from the sources as they are now."""
    return _there(LAB.locate(Host()), "The practice site", "lab")


def referee() -> Path:
    """The older release of the vCenter simulator that the contract tests run against."""
    return _there(REFEREE.locate(Host()), "The older vCenter simulator", "referee")


def program(name: str) -> Path:
    """A program of the system's packages: nbdkit, mke2fs, debugfs, e2fsck."""
    if name not in system.PROGRAMS:
        raise ValueError(f"{name} is not among {', '.join(system.PROGRAMS)}")
    return _there(Host().which(name), f"The program {name}", "nbdkit")


def vddk_plugin_file() -> Path:
    """nbdkit's VDDK plugin, as nbdkit loads it by its path."""
    return _there(vddk_plugin.locate(Host()), "nbdkit's VDDK plugin", "vddk-plugin")


def _there(path: Path | None, what: str, target: str) -> Path:
    if path is None:
        raise Problem(f"{what} is not there yet: run `python3 tools/ensure.py {target}`.")
    return path
