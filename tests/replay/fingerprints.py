"""Fingerprints of the commands of many lives: `python -m tests.replay.fingerprints`.

A run waits for weeks while workers are replaced, and goes on in the new code only where that gives
the same commands. So commands change only behind `workflow.patched("NAME")`, and this refuses to
take a life that, with the patches off that came since, gives other commands than before.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.replay.lives import Life, all_lives

FILE = Path(__file__).with_name("fingerprints.json")
HISTORIES = Path(__file__).with_name("histories")
WORKFLOWS = Path(__file__).parents[2] / "workflows"


@dataclass(frozen=True)
class Fingerprints:
    """The patches in the order in which they came, and a digest of each life's commands."""

    patches: tuple[str, ...]
    lives: dict[str, str]
    """As runs live that begin now, with every patch."""
    before: dict[str, dict[str, str]]
    """By patch, what lives give where it and all later ones are off, of those that ask for any of
    these: the branches that runs of earlier code are on, kept for good."""
    histories: dict[str, str] = field(default_factory=dict)
    """Digests of the recorded files: none is ever recorded over."""

    def as_before(self, patch: str, life: str) -> str | None:
        """What a life gives, or gave, under the code that was there before a patch."""
        return self.before.get(patch, {}).get(life, self.lives.get(life))

    def unaccounted_since(self, then: Fingerprints) -> list[str]:
        """What has changed and no patch accounts for, each with what is wrong with it."""
        added = [patch for patch in self.patches if patch not in then.patches]
        wrong = [f"patch {patch} is gone" for patch in then.patches if patch not in self.patches]
        for life in then.lives:
            if life not in self.lives:
                wrong.append(f"{life} is not lived any more")
                continue
            now = self.as_before(added[0], life) if added else self.lives[life]
            if now != then.lives[life]:
                off = f" also without {' and '.join(added)}" if added else ""
                wrong.append(f"{life} gives other commands{off}")
                continue
            wrong += [
                f"{life} gives other commands to a run from before {patch}"
                for patch in then.patches
                if self.as_before(patch, life) != then.as_before(patch, life)
            ]
        wrong += [
            f"history {name} was recorded over, or is gone"
            for name, digest in then.histories.items()
            if self.histories.get(name) != digest
        ]
        return wrong

    def dump(self) -> str:
        """The text of the file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def load(file: Path) -> Fingerprints:
    """Those that were taken."""
    read = json.loads(file.read_text())
    return Fingerprints(tuple(read["patches"]), read["lives"], read["before"], read["histories"])


async def take(
    lives: Mapping[str, Life],
    known: Sequence[str] = (),
    sources: Iterable[Path] | None = None,
    histories: Iterable[Path] = (),
    given: Mapping[str, Sequence[str]] | None = None,
) -> Fingerprints:
    """Those of these lives and this code.

    Args:
        known: the patches that were there already, in the order in which they came.
        given: the commands of these lives, if somebody has lived them already.
    """
    files = sorted(WORKFLOWS.glob("*.py")) if sources is None else sources
    found = {name for file in files for name in patches_in(file.read_text())}
    patches = (*(name for name in known if name in found), *sorted(found - set(known)))
    if given is None:
        given = {name: await life.commands() for name, life in lives.items()}
    before: dict[str, dict[str, str]] = {}
    for number, patch in enumerate(patches):
        off = frozenset(patches[number:])
        markers = {f"marker {name}" for name in off}
        before[patch] = {
            name: digest_of(await lives[name].commands(off))
            for name, commands in given.items()
            if markers & set(commands)
        }
    return Fingerprints(
        patches,
        {name: digest_of(commands) for name, commands in given.items()},
        before,
        {file.stem: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in histories},
    )


def digest_of(commands: Sequence[str]) -> str:
    """Short, and another one for other commands."""
    return hashlib.sha256("\n".join(commands).encode()).hexdigest()[:16]


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


async def now(
    known: Sequence[str], given: Mapping[str, Sequence[str]] | None = None
) -> Fingerprints:
    """Those of all lives and all histories."""
    histories = sorted(HISTORIES.glob("*.json"))
    return await take(await all_lives(), known, histories=histories, given=given)


def main() -> int:
    """Take them anew."""
    then = load(FILE) if FILE.exists() else Fingerprints((), {}, {})
    taken = asyncio.run(now(then.patches))
    if wrong := taken.unaccounted_since(then):
        print(
            f"{len(wrong)} changes that no patch accounts for, so runs under way would stop at "
            "their next step: " + "; ".join(wrong[:10])
        )
        print("Guard the change with workflow.patched and record a history of it.")
        print("A life that is given up, or lived otherwise, is taken out of the file by hand.")
        return 1
    FILE.write_text(taken.dump())
    return 0


if __name__ == "__main__":
    sys.exit(main())
