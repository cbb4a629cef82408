"""Programs built from Go sources in the checkout, keyed by these: any edit gives another binary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.cache import cache_dir, find, fingerprint, obtain
from tools.golang import build, require_go
from tools.host import ROOT, Host, Problem, long_step


def sources(module: Path, *results: str) -> Iterator[Path]:
    """What the binary is made of, in a fixed order: all but tests, prose, hidden files, results."""
    for path in sorted(module.rglob("*")):
        inside = path.relative_to(module)
        if any(part.startswith(".") or part == "testdata" for part in inside.parts):
            continue
        if path.suffix == ".md" or path.name.endswith("_test.go"):
            continue
        if path.is_file() and inside.as_posix() not in results:
            yield path


@dataclass(frozen=True)
class GoProgram:
    """One program of one Go module of the checkout."""

    kind: str
    """Its folder in the cache."""
    program: str
    module: Path
    called: str
    """What people call it."""
    variable: str
    """Environment variable that names a binary to use instead."""

    def cache_key(self, host: Host) -> str:
        """Names the binary by the names and contents of its sources."""
        parts: list[bytes] = []
        # What `go build` by hand leaves in the folder is a result, not a source.
        for path in sources(self.module, self.program, self.module.name):
            parts += [path.relative_to(self.module).as_posix().encode(), path.read_bytes()]
        return f"{fingerprint(parts)}-{host.system}-{host.arch}"

    def locate(self, host: Host) -> Path | None:
        """Find the binary of these very sources without building: the variable, then the cache."""
        if named := host.env.get(self.variable):
            program = Path(named).absolute()
            if not program.is_file():
                raise Problem(
                    f"{self.variable} names {program}, which is not there: unset or mend it."
                )
            return program
        return find(cache_dir(host.env), self.kind, self.cache_key(host), self.program)

    def ensure(self, host: Host) -> Path:
        """Return the binary of these very sources, built where that has not been done."""
        if ready := self.locate(host):
            return ready
        if not (self.module / "go.mod").is_file():
            raise Problem(
                f"The {self.called}'s sources are not at {self.module}: restore them from git."
            )
        key = self.cache_key(host)

        def produce(target: Path) -> None:
            go = require_go(host, self.module / "go.mod", f"the {self.called}")
            with long_step(f"building the {self.called}", "20 s; 2 minutes the first time"):
                package = self._main_package(host, go)
                build(host, go, self.module, package, target, purpose=f"the {self.called}")
            if self.cache_key(host) != key:
                # Kept under this key, it would pass for sources that it was not made from.
                raise Problem(
                    f"The {self.called}'s sources changed while it was built: run this again."
                )

        return obtain(cache_dir(host.env), self.kind, key, self.program, produce)

    def _main_package(self, host: Host, go: Path) -> str:
        """The module's one program, wherever it keeps it."""
        template = '{{if eq .Name "main"}}{{.ImportPath}}{{end}}'
        listed = host.run([str(go), "list", "-f", template, "./..."], cwd=self.module)
        if listed.status != 0:
            raise Problem(f"The {self.called}'s sources cannot be listed; Go says: {listed.output}")
        # On a machine without a module cache Go also tells, line by line, what it downloads.
        lines = listed.output.splitlines()
        packages = [line for line in lines if line and not line.startswith("go: ")]
        if len(packages) != 1:
            raise Problem(f"The {self.called} should hold one program and holds {len(packages)}.")
        return packages[0]


LAB = GoProgram("lab", "failback-lab", ROOT / "lab", "practice site", "FAILBACK_LAB")
REFEREE = GoProgram(
    "referee",
    "failback-referee",
    ROOT / "tests" / "contract" / "referee",
    "older vCenter simulator",
    "FAILBACK_REFEREE",
)
