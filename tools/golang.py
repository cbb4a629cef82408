"""Builds Go programs: the Temporal binary and the practice site."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tools.host import Host, Problem, tail

Version = tuple[int, ...]


def parse_version(text: str) -> Version:
    """`go1.26.8` or `1.26.8` -> (1, 26, 8); pre-release marks are dropped, nonsense is ()."""
    found = re.match(r"(?:go)?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def wanted_version(go_mod: Path) -> Version:
    """The Go release that a module asks for."""
    found = re.search(r"^go (\S+)$", go_mod.read_text(encoding="utf-8"), re.MULTILINE)
    return parse_version(found[1]) if found else ()


def require_go(host: Host, go_mod: Path, purpose: str) -> Path:
    """Find a Go that can build this module, or say in one sentence what to install."""
    wanted = wanted_version(go_mod)
    named = ".".join(map(str, wanted))
    go = host.which("go")
    if go is None:
        raise Problem(
            f"Go is needed to build {purpose}: install Go {named} or newer and put it on PATH."
        )
    # Asked from the root folder: inside the module an old Go refuses even this question.
    answer = host.run([str(go), "env", "GOVERSION", "GOTOOLCHAIN"], cwd=Path("/"))
    lines = [*answer.output.splitlines(), "", ""]
    have, toolchain = parse_version(lines[0]), lines[1].strip()
    if answer.status != 0 or not have:
        raise Problem(f"`go env` failed, so {purpose} cannot be built: {tail(answer.output, 1)}")
    # From 1.21 on, Go fetches the toolchain that a module asks for, unless told "local".
    fetches = have >= (1, 21) and toolchain not in ("", "local", "path")
    if have < wanted and not fetches:
        raise Problem(
            f"Go {'.'.join(map(str, have))} is too old to build {purpose}:"
            f" install Go {named} or newer (or set GOTOOLCHAIN=auto)."
        )
    return go


def build(
    host: Host,
    go: Path,
    module: Path,
    package: str,
    output: Path,
    *,
    purpose: str,
    ldflags: Sequence[str] = (),
) -> None:
    """Build one static program of a module, without changing the module's files."""
    done = host.run(
        [
            str(go),
            "build",
            # A checkout owned by another user makes git refuse, and Go fail, to stamp a revision.
            "-buildvcs=false",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            " ".join(["-s", "-w", *ldflags]),
            "-o",
            str(output),
            package,
        ],
        cwd=module,
        env={**host.env, "CGO_ENABLED": "0", "GOWORK": "off"},
    )
    if done.status != 0:
        raise Problem(f"Building {purpose} failed; Go says:\n{tail(done.output)}")
