"""Fingerprints of the commands of many lives: `python -m tests.replay.fingerprints`.

A run waits for weeks while workers are replaced, and goes on in the new code only where that gives
the same commands. So commands change only behind `workflow.patched("NAME")`, and this refuses to
take a changed life when no such name has been added since the fingerprints were taken.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.replay.lives import all_lives

FILE = Path(__file__).with_name("fingerprints.json")
WORKFLOWS = Path(__file__).parents[2] / "workflows"


@dataclass(frozen=True)
class Fingerprints:
    """The names of all patches in the code, and a digest of each life's commands."""

    patches: tuple[str, ...]
    lives: dict[str, str]

    def changed_since(self, before: Fingerprints) -> list[str]:
        """Lives that both know and that differ."""
        return [
            name for name, digest in before.lives.items() if self.lives.get(name, digest) != digest
        ]

    def unpatched_since(self, before: Fingerprints) -> list[str]:
        """The changed lives, when no patch accounts for them."""
        added = set(self.patches) - set(before.patches)
        return [] if added else self.changed_since(before)

    def dump(self) -> str:
        """The text of the file."""
        return json.dumps({"patches": self.patches, "lives": self.lives}, indent=1) + "\n"


def load(file: Path = FILE) -> Fingerprints:
    """Those that were taken."""
    read = json.loads(file.read_text())
    return Fingerprints(tuple(read["patches"]), read["lives"])


def take(lives: Mapping[str, Sequence[str]], sources: Iterable[Path] | None = None) -> Fingerprints:
    """Those of these lives and this code."""
    files = sorted(WORKFLOWS.glob("*.py")) if sources is None else sources
    names = sorted({name for file in files for name in patches_in(file.read_text())})
    digests = {
        name: hashlib.sha256("\n".join(commands).encode()).hexdigest()[:16]
        for name, commands in lives.items()
    }
    return Fingerprints(tuple(names), digests)


def patches_in(source: str) -> set[str]:
    """Names in calls of `patched`, here or at the runtime."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called == "patched" and isinstance(node.args[0], ast.Constant):
            found.add(str(node.args[0].value))
    return found


def main() -> int:
    """Take them anew."""
    now = take(asyncio.run(all_lives()))
    if FILE.exists() and (unpatched := now.unpatched_since(load())):
        print(
            f"The commands of {len(unpatched)} lives have changed and no patch was added, so runs "
            "under way would stop at their next step: " + ", ".join(unpatched[:10])
        )
        print("Guard the change with workflow.patched and record a history of it.")
        return 1
    FILE.write_text(now.dump())
    return 0


if __name__ == "__main__":
    sys.exit(main())
