"""What is checked of the settings beyond types, and the words in which it is said."""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from failback.errors import SettingsInvalid
from failback.settings_file import Keys, Problem, Source, dotted, match, overrides

DOCUMENTED = "docs/settings.md describes every key."


def problems(error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    """Pydantic's findings in our words, without the values."""
    for found in error.errors(include_input=False, include_url=False, include_context=False):
        keys = _keys(found["loc"], model)
        table = _tables(model, keys[:-1])
        message = found["msg"].removeprefix("Value error, ").removeprefix("Input ")
        match found["type"]:
            case "extra_forbidden":
                yield Problem(keys, "is not a known key", _suggest(keys, table))
            case "missing":
                yield Problem(keys, "is missing", f"Add it. {DOCUMENTED}")
            case "too_short" if keys == ("sites",):
                yield Problem(keys, "is empty", "Add a table [sites.NAME] for each site.")
            case "string_pattern_mismatch" if keys[-1] == "inventory_root":
                yield Problem(
                    keys, "is not an inventory path", "Write it like /Datacenter/vm/folder."
                )
            case "string_pattern_mismatch":
                kind = "hook" if keys[0] == "hooks" else "site"
                yield Problem(
                    keys,
                    f"cannot be the name of a {kind}",
                    "Use letters, digits, dot, underscore and dash.",
                )
            case "model_type" | "dict_type" | "model_attributes_type":
                many = keys[0] in ("sites", "hooks")
                header = f"{keys[0]}.NAME" if many else dotted(keys)
                yield Problem(keys, "is not a table", f"Write a table [{header}].")
            case "value_error":
                yield Problem(keys, message, f"Correct it. {DOCUMENTED}")
            case _:
                yield Problem(keys, f"is wrong: it {message}", f"Correct it. {DOCUMENTED}")


def _keys(loc: tuple[int | str, ...], model: type[BaseModel]) -> Keys:
    # `[key]` is pydantic's way to say that the key of a mapping, not its value, is wrong.
    return tuple(str(part) for part in loc if part != "[key]")


def _suggest(keys: Keys, table: type[BaseModel] | None) -> str:
    if "password" in keys[-1].lower() or "secret" in keys[-1].lower():
        return "Take it out: a password stands in a file of its own, named by password_file."
    known = list(table.model_fields) if table else []
    near = difflib.get_close_matches(keys[-1].lower(), known, n=1)
    if near:
        return f"Did you mean {dotted((*keys[:-1], near[0]))}?"
    return f"Known here: {', '.join(known)}."


def _annotation(model: type[BaseModel], keys: Keys) -> Any:
    """The declared type at a key; None where there is no such key."""
    here: Any = model
    for key in keys:
        table = _table(here)
        if table is not None:
            field = table.model_fields.get(key)
            here = field.annotation if field else None
        else:
            # A mapping from names to something.
            arguments = get_args(here)
            here = arguments[1] if len(arguments) == 2 else None
        if here is None:
            return None
    return here


def _table(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            # A mapping's values are a level deeper.
            return None if getattr(annotation, "__origin__", None) is dict else kind
    return None


def _tables(model: type[BaseModel], keys: Keys) -> type[BaseModel] | None:
    return _table(_annotation(model, keys)) if keys else model


def override(source: Source, environ: Mapping[str, str], model: type[BaseModel]) -> None:
    """Put the environment's values over the file's."""
    for variable, parts, value in overrides(environ):
        here, keys = source.values, Keys()
        for position, part in enumerate(parts):
            table = _tables(model, keys)
            key = match(part, [*here, *(table.model_fields if table else ())])
            keys = (*keys, key)
            if position == len(parts) - 1:
                here[key] = _value(value, _annotation(model, keys))
                source.variables[keys] = variable
            else:
                if key not in here:
                    here[key], source.variables[keys] = {}, variable
                inner = here[key]
                if not isinstance(inner, dict):
                    raise source.refuse([Problem(keys, "is not a table", f"Take {variable} out.")])
                here = inner


def _value(text: str, annotation: Any) -> Any:
    """Text where text or a path is expected, else what TOML makes of it."""
    kinds = {annotation, *get_args(annotation)}
    kinds |= {inner for kind in list(kinds) for inner in get_args(kind)}
    if kinds & {str, Path} and getattr(annotation, "__origin__", None) is not dict:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def shared_sites(sites: Mapping[str, tuple[str, str | None]]) -> Iterator[Problem]:
    """Two sites of one vCenter must not see the same VMs. Values: URL and inventory root."""
    seen: dict[tuple[str | None, int | None], list[tuple[str, str]]] = {}
    for name, (url, root) in sites.items():
        parts = urlsplit(url)
        server = (parts.hostname, parts.port or {"https": 443, "http": 80}[parts.scheme])
        path = f"{root or ''}/"
        for other, other_path in seen.setdefault(server, []):
            if path.startswith(other_path) or other_path.startswith(path):
                yield Problem(
                    ("sites", name, "inventory_root"),
                    f"does not keep site {name} apart from site {other}, which has the same server",
                    "Give both an inventory_root, neither inside the other.",
                )
        seen[server].append((name, path))


def plain_http(sites: Mapping[str, tuple[str, bool]]) -> Iterator[Problem]:
    """The password does not travel in clear text. Values: URL, and whether that is accepted."""
    for name, (url, insecure) in sites.items():
        if urlsplit(url).scheme == "http" and not insecure:
            yield Problem(
                ("sites", name, "url"),
                "is not encrypted",
                "Use https, or tls = { insecure = true } for a practice site.",
            )


def state_dir(path: Path) -> list[Problem]:
    """Make the state directory (0700), or say why it cannot be used; never changes an old one."""
    keys = ("worker", "state_dir")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        return [
            Problem(
                keys,
                f"names {path}, which cannot be created ({type(error).__name__})",
                "Create it for the worker's account with mode 0700, or name another folder.",
            )
        ]
    if found.st_uid != os.geteuid():
        return [
            Problem(keys, f"names {path}, which belongs to another account", "Change its owner.")
        ]
    if stat.S_IMODE(found.st_mode) & 0o077:
        return [Problem(keys, f"names {path}, which others may enter", f"Run `chmod 700 {path}`.")]
    return []


def password_file(site: str, path: Path) -> None:
    """SettingsInvalid when the file is not there or others may read it."""
    private_file(f"password file of site {site}", "password_file", path)


def private_file(what: str, key: str, path: Path) -> None:
    """SettingsInvalid when a file with a secret is not there or others may read it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SettingsInvalid(
            f"The {what} cannot be read: {path} ({type(error).__name__}).",
            f"Correct {key} or its permissions.",
        ) from error
    if not stat.S_ISREG(mode):
        raise SettingsInvalid(f"The {what} is not a file: {path}.", f"Correct {key}.")
    if mode & 0o077:
        raise SettingsInvalid(
            f"The {what} is open to others: {path} has mode {stat.S_IMODE(mode):04o}.",
            f"Run `chmod 600 {path}`.",
        )
