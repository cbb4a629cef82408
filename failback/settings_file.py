"""Where settings come from: one TOML file and the environment, each value with its origin.

Knows nothing of the keys. Values never appear in an error: one of them may be a password that
somebody put in the wrong place.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from failback.errors import SettingsInvalid

Keys = tuple[str, ...]

PATH_VARIABLE = "FAILBACK_SETTINGS"
PREFIX = "FAILBACK_"
DEFAULT_PATHS = (Path("failback.toml"), Path("~/.config/failback/failback.toml"))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and what to do."""

    keys: Keys
    what: str
    remedy: str


@dataclass
class Source:
    """A parsed settings file under the environment's overrides."""

    path: Path
    values: dict[str, Any]
    lines: dict[Keys, int]
    variables: dict[Keys, str] = field(default_factory=dict)

    def _place(self, keys: Keys) -> tuple[int, Keys]:
        line = next(
            (
                self.lines[keys[:length]]
                for length in range(len(keys), 0, -1)
                if keys[:length] in self.lines
            ),
            0,
        )
        return line, keys

    def origin(self, keys: Keys) -> str:
        """Where a value, or else the table it belongs in, was written."""
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.variables:
                return f"environment variable {self.variables[keys[:length]]}"
            if keys[:length] in self.lines:
                return f"{self.path}, line {self.lines[keys[:length]]}"
        return f"{self.path}, line 1"

    def refuse(self, problems: Iterable[Problem]) -> SettingsInvalid:
        """All problems as one error: origin, key, what is wrong, remedy."""
        texts = [
            (f"{self.origin(problem.keys)}: {dotted(problem.keys)} {problem.what}.", problem.remedy)
            for problem in sorted(problems, key=lambda problem: self._place(problem.keys))
        ]
        if len(texts) == 1:
            return SettingsInvalid(*texts[0])
        rest = "\n".join(f"  {what} {remedy}" for what, remedy in texts)
        return SettingsInvalid(
            f"The settings have {len(texts)} errors.", f"Correct all of them:\n{rest}"
        )


def dotted(keys: Keys) -> str:
    """A key as TOML writes it."""
    plain = re.compile(r"[A-Za-z0-9_-]+")
    return ".".join(key if plain.fullmatch(key) else f'"{key}"' for key in keys) or "the file"


def find(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: as given, as FAILBACK_SETTINGS says, or the first default that exists."""
    if path is None and environ.get(PATH_VARIABLE):
        path = Path(environ[PATH_VARIABLE])
    if path is not None:
        return path.expanduser().absolute()
    for candidate in DEFAULT_PATHS:
        if candidate.expanduser().exists():
            return candidate.expanduser().absolute()
    places = " or ".join(str(candidate) for candidate in DEFAULT_PATHS)
    raise SettingsInvalid(
        "There is no settings file.",
        f"Write {places}, or name one in {PATH_VARIABLE}; docs/settings.md describes it.",
    )


def read(path: Path) -> Source:
    """Parse the file; SettingsInvalid where it cannot be read or is not TOML."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"The settings file {path} cannot be read ({type(error).__name__}).",
            "Check its path, permissions and encoding (UTF-8).",
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        line = int(found[1]) if found else max(1, len(text.splitlines()))
        # Only the parser's words before the place: the rest can quote what it read.
        said = message[: found.start()] if found else message.removesuffix(" (at end of document)")
        said = re.sub(r": .*|'.*'|\".*\"", "", said).strip()
        raise SettingsInvalid(
            f"{path}, line {line}: this is not TOML ({said}).",
            "Correct the line: text stands in quotes, tables in square brackets.",
        ) from None
    return Source(path, values, locate(text))


def locate(text: str) -> dict[Keys, int]:
    """The line of every key and table of a valid TOML text, counted from 1.

    Statements are found by parsing: lines are added until they make a valid text by themselves.
    """
    lines, found, prefix, start = text.splitlines(), dict[Keys, int](), Keys(), 0
    while start < len(lines):
        end = start + 1
        while (parsed := _try("\n".join(lines[start:end]))) is None and end < len(lines):
            end += 1
        if parsed:
            keys = list(_paths(parsed, ()))
            if lines[start].lstrip().startswith("["):
                prefix = keys[-1]
                keys = [key[:length] for key in keys for length in range(1, len(key) + 1)]
            else:
                keys = [prefix + key for key in keys]
            for key in keys:
                found.setdefault(key, start + 1)
        start = end
    return found


def _try(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _paths(value: Any, prefix: Keys) -> Iterator[Keys]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*prefix, key)
            yield from _paths(inner, (*prefix, key))


def overrides(environ: Mapping[str, str]) -> Iterator[tuple[str, list[str], str]]:
    """Variables `FAILBACK_A__B`: name, parts in lower case, value."""
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and "__" in name:
            yield name, name.removeprefix(PREFIX).lower().split("__"), value


def match(part: str, names: Iterable[str]) -> str:
    """The name a variable's part stands for: case and dashes do not survive in a variable."""
    for name in names:
        if re.sub(r"[^a-z0-9]", "_", name.lower()) == part:
            return name
    return part
