"""What a hook says, as it may be kept: its end, without secrets, harmless to a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

from failback.errors import SettingsInvalid
from failback.logging import HIDDEN, redact

KEPT_BYTES = 4096
RAW_BYTES = 4 * KEPT_BYTES
SHORTEST_SECRET = 4
"""Shorter values stand in too many words by chance."""

CONTROL = re.compile(r"[^\n\t\x20-\x7e\x80-\U0010ffff]|[\x80-\x9f]")


class Tail:
    """The end of an endless stream, in bounded memory."""

    def __init__(self, limit: int = RAW_BYTES) -> None:
        self._kept, self._limit = bytearray(), limit
        self.truncated = False

    def add(self, data: bytes) -> None:
        """Append; what is too old is forgotten."""
        self._kept += data
        if len(self._kept) > self._limit:
            self.truncated = True
            del self._kept[: -self._limit]

    def text(self, secrets: Collection[str] = ()) -> str:
        """At most 4 KiB, counted as UTF-8."""
        raw = bytes(self._kept)
        if self.truncated:
            # The first piece may be the rest of a secret whose beginning is forgotten.
            known = (form for secret in secrets for form in forms(secret))
            longest = max((len(form.encode()) for form in known), default=0)
            line = raw.find(b"\n")
            raw = raw[max(longest, line + 1) :]
        text = cleaned(raw.decode("utf-8", "replace"), secrets)
        kept = text.encode()[-KEPT_BYTES:].decode("utf-8", "ignore")
        return f"[...]{kept[5:]}" if self.truncated or len(kept) < len(text) else kept


def cleaned(text: str, secrets: Iterable[str] = ()) -> str:
    """Without these values, without what is assigned to a secret's name, without control
    characters."""
    known = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in forms(secret)}
    for form in sorted(known, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return CONTROL.sub("?", redact(text).replace("\r\n", "\n")).strip()


def forms(secret: str) -> set[str]:
    """A value as it is, and as an answer in JSON or a URL would repeat it."""
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return {
        secret,
        *(json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)),
        *quoted,
        *(re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), one) for one in quoted),
    }


def secrets_in(files: Iterable[Path]) -> frozenset[str]:
    """What stands in these files, whole and line by line; one that cannot be read has none that
    a hook could have read from it."""
    found: set[str] = set()
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [line.strip() for line in text.splitlines()]
        found |= {text.strip(), *lines, *(line.partition(":")[2].strip() for line in lines)}
        found |= {word for line in lines for word in line.split()[-1:]}
    return frozenset(one for one in found if len(one) >= SHORTEST_SECRET)


def headers_in(file: Path) -> dict[str, str]:
    """HTTP headers, one `Name: value` a line; SettingsInvalid, which repeats no value."""
    found: dict[str, str] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"The headers file {file} cannot be read ({type(error).__name__}).",
            "Correct headers_file or its permissions.",
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise SettingsInvalid(
                f"The headers file {file}, line {number} is not a header.",
                "Write one `Name: value` a line.",
            )
        found[name] = value.strip()
    return found
