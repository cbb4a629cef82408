"""Resolves the dependencies into the locks: `make lock`, or `make lock UPGRADE=1` for newer ones.

Run by the environment's Python; the resolver lives in a throwaway environment. Needs the network.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

# Run as a script, the first entry is this folder, whose names are not meant to be importable.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools.host import ROOT, Problem, long_step, run, say, tail

RESOLVER = "uv==0.13.9"
OLDEST = "3.11"
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")

LOCKS = {
    # Everything, for developers and CI.
    "requirements.lock": ["--group", "dev"],
    # What the worker's image installs: the same versions, without the development tools.
    "requirements-runtime.lock": ["--constraints", "requirements.lock"],
}


def main() -> int:
    """Write both locks and prove that each promised platform can install them from wheels."""
    try:
        with tempfile.TemporaryDirectory(prefix="failback-lock-") as folder:
            uv = _resolver(Path(folder))
            for name, extra in LOCKS.items():
                with long_step(f"resolving {name}", "10 s"):
                    _resolve(uv, name, extra)
            for python in PYTHONS:
                for platform in PLATFORMS:
                    _prove(uv, Path(folder) / "target", python, platform)
    except Problem as problem:
        print(f"failback: {problem}", file=sys.stderr)
        return 1
    return 0


def _resolver(folder: Path) -> str:
    _call(sys.executable, "-m", "venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    _call(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", RESOLVER)
    return str(folder / "venv" / "bin" / "uv")


def _resolve(uv: str, name: str, extra: list[str]) -> None:
    # One lock for every platform; without a header or annotations, which would carry the command
    # line and its paths.
    options = ["--universal", "--python-version", OLDEST, "--generate-hashes"]
    options += ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    if os.environ.get("UPGRADE"):
        options.append("--upgrade")
    _call(uv, "pip", "compile", "pyproject.toml", *options, *extra, "--output-file", name)
    text = (ROOT / name).read_text(encoding="utf-8")
    if found := re.search(r"\S*://\S*|^-\S*index.*$", text, re.MULTILINE):
        raise Problem(f"{name} names a place on the network, which it must not: {found[0]}")


def _prove(uv: str, target: Path, python: str, platform: str) -> None:
    options = ["--dry-run", "--target", str(target), "--require-hashes", "--only-binary", ":all:"]
    options += ["--python-version", python, "--python-platform", platform]
    _call(uv, "pip", "install", "--quiet", *options, "--requirements", "requirements.lock")
    say(f"requirements.lock installs from wheels on CPython {python}, {platform}")


def _call(*argv: str) -> None:
    done = run(argv, cwd=ROOT)
    if done.status != 0:
        raise Problem(
            f"`{Path(argv[0]).name} {' '.join(argv[1:4])} ...` failed:\n{tail(done.output)}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
