"""The machine as the tools see it: commands, environment, rights, and a voice for people.

Standard library only, like everything in this folder: it runs before there is an environment.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

# mke2fs, debugfs and e2fsck live here on Debian, which leaves it out of an ordinary user's PATH.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class Problem(Exception):
    """Something a person must settle: one sentence that says what and how."""


@dataclass(frozen=True)
class Done:
    """A finished command: exit status and what it printed, both streams together."""

    status: int
    output: str


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Done:
    """Run a command quietly, without standard input. A missing program is status 127."""
    try:
        finished = subprocess.run(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Passes on what is marked inheritable, and that is only the lock of tools.cache.
            close_fds=False,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        return Done(127, f"{argv[0]}: not found")
    except PermissionError:
        return Done(126, f"{argv[0]}: may not be executed")
    except OSError as error:
        # Among them ENOEXEC: a binary for another machine.
        return Done(126, f"{argv[0]}: {error}")
    except subprocess.TimeoutExpired as error:
        printed = error.stdout or b""
        return Done(124, printed.decode(errors="replace") + f"\nno end after {timeout_s:.0f} s")
    return Done(finished.returncode, finished.stdout.decode(errors="replace"))


def _read_os_release() -> str:
    try:
        return Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""


@dataclass(frozen=True)
class Host:
    """What the tools ask of the machine; tests hand in another one."""

    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[..., Done] = run
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    os_release: str = field(default_factory=_read_os_release)
    system: str = field(default_factory=lambda: platform.system().lower())
    machine: str = field(default_factory=platform.machine)
    system_folders: tuple[str, ...] = SYSTEM_FOLDERS

    def which(self, program: str) -> Path | None:
        """Find a program on PATH, then in the folders for administrators."""
        path = os.pathsep.join([self.env.get("PATH", os.defpath), *self.system_folders])
        found = shutil.which(program, path=path)
        return Path(found) if found else None

    @property
    def has_apt(self) -> bool:
        """Debian, Ubuntu and their like, with apt-get present."""
        names = {
            word
            for line in self.os_release.splitlines()
            if line.startswith(("ID=", "ID_LIKE="))
            for word in line.split("=", 1)[1].strip("\"'").split()
        }
        return bool(names & {"debian", "ubuntu"}) and self.which("apt-get") is not None

    @property
    def arch(self) -> str:
        """The processor in Go's words."""
        return {"x86_64": "amd64", "aarch64": "arm64"}.get(self.machine, self.machine)


def say(message: str) -> None:
    """Tell the person. On stderr: stdout carries only what scripts read."""
    print(f"failback: {message}", file=sys.stderr, flush=True)


@contextmanager
def long_step(what: str, usually: str) -> Iterator[None]:
    """Announce something slow before it starts, and say how long it took."""
    say(f"{what} (usually {usually}) ...")
    started = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - started:.0f} s")


def tail(output: str, lines: int = 15) -> str:
    """The end of a command's output, where the reason usually stands."""
    return "\n".join(output.rstrip().splitlines()[-lines:])
