"""Builds the practice site (lab/), keyed by its sources: any edit gives another binary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools.cache import cache_dir, find, fingerprint, obtain
from tools.golang import build, require_go
from tools.host import ROOT, Host, Problem, long_step

MODULE = ROOT / "lab"
KIND = "lab"
PROGRAM = "failback-lab"


def sources(module: Path) -> Iterator[Path]:
    """What the binary is made of, in a fixed order: all but tests, prose, hidden files."""
    for path in sorted(module.rglob("*")):
        inside = path.relative_to(module)
        if any(part.startswith(".") or part == "testdata" for part in inside.parts):
            continue
        if path.suffix == ".md" or path.name.endswith("_test.go"):
            continue
        # What `go build` by hand leaves in the folder is a result, not a source.
        if path.is_file() and inside.as_posix() not in (PROGRAM, "lab"):
            yield path


def cache_key(host: Host, module: Path = MODULE) -> str:
    """Names the binary by the names and contents of its sources."""
    parts: list[bytes] = []
    for path in sources(module):
        parts += [path.relative_to(module).as_posix().encode(), path.read_bytes()]
    return f"{fingerprint(parts)}-{host.system}-{host.arch}"


def locate(host: Host, module: Path = MODULE) -> Path | None:
    """Find the binary of these very sources without building: FAILBACK_LAB, then the cache."""
    if named := host.env.get("FAILBACK_LAB"):
        program = Path(named).absolute()
        if not program.is_file():
            raise Problem(f"FAILBACK_LAB names {program}, which is not there: unset or mend it.")
        return program
    return find(cache_dir(host.env), KIND, cache_key(host, module), PROGRAM)


def main_package(host: Host, go: Path, module: Path) -> str:
    """The module's one program, wherever it keeps it."""
    template = '{{if eq .Name "main"}}{{.ImportPath}}{{end}}'
    listed = host.run([str(go), "list", "-f", template, "./..."], cwd=module)
    if listed.status != 0:
        raise Problem(f"The practice site's sources cannot be listed; Go says: {listed.output}")
    packages = [line for line in listed.output.split() if not line.startswith("go:")]
    if len(packages) != 1:
        raise Problem(f"The practice site should hold one program and holds {len(packages)}.")
    return packages[0]


def ensure(host: Host, module: Path = MODULE) -> Path:
    """Return the binary of these very sources, built where that has not been done."""
    if ready := locate(host, module):
        return ready
    if not (module / "go.mod").is_file():
        raise Problem(f"The practice site's sources are not at {module}: restore them from git.")

    key = cache_key(host, module)

    def produce(target: Path) -> None:
        go = require_go(host, module / "go.mod", "the practice site")
        with long_step("building the practice site", "20 s; 2 minutes the first time"):
            package = main_package(host, go, module)
            build(host, go, module, package, target, purpose="the practice site")
        if cache_key(host, module) != key:
            # Kept under this key, it would pass for sources that it was not made from.
            raise Problem("The practice site's sources changed while it was built: run this again.")

    return obtain(cache_dir(host.env), KIND, key, PROGRAM, produce)
