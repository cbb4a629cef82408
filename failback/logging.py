"""Logging to stderr: one line an event, times in UTC, fields of `extra` beside the message.

    log.info("disk copied", extra={"replica": key, "written_bytes": count})

Whatever is named like a secret is replaced, and so is what stands before the @ of a URL. That is a
net under the rule that nothing secret is logged, not a licence.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any

HIDDEN = "[hidden]"

STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""Attributes that every record has; the others came with `extra`."""

SECRET_NAME = re.compile(
    r"(?i)passw(or)?d|passphrase|secret|token|credential|authorization|cookie|api_?key"
)
SECRET_FILE = re.compile(r"(?i)_(file|path|dir)$")
"""Where a secret stands is not a secret."""

USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#'\"]*@")
ASSIGNED = re.compile(
    r"""(?ix)
    (?P<name>\b[\w-]*(?:passw(?:or)?d|passphrase|secret|token|api_?key)(?<!_file)\b)
    (?P<between>['"]?\s*[=:]\s*)
    (?P<value>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s,;&)}\]]+)
    """
)
BEARER = re.compile(
    r"(?i)\b(authorization['\"]?\s*[=:]\s*['\"]?(?:bearer|basic)|bearer)\s+[\w.~+/=-]+"
)


def redact(text: str) -> str:
    """The text without userinfo in URLs and without what is assigned to a secret's name."""
    text = USERINFO.sub(rf"\1{HIDDEN}@", text)
    text = BEARER.sub(rf"\1 {HIDDEN}", text)
    return ASSIGNED.sub(rf"\g<name>\g<between>{HIDDEN}", text)


def redact_value(name: str, value: Any) -> Any:
    """A field's value, hidden by its name or cleaned, down through mappings and sequences."""
    if SECRET_NAME.search(name) and not SECRET_FILE.search(name):
        return HIDDEN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): redact_value(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value("", inner) for inner in value]
    return redact(str(value))


def message_of(record: logging.LogRecord) -> str:
    """The message with its arguments; a wrong format string must not cost the line."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args}"


class LineFormatter(logging.Formatter):
    """One redacted line: JSON, or `time LEVEL logger message key=value`.

    Redaction is done here and not in a filter: a filter would have to change the record, which
    other handlers get too.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(self._fields(record))
        if self._as_json:
            return json.dumps(fields, default=str, ensure_ascii=False)
        head = [str(fields.pop(name)) for name in ("time", "level", "logger")]
        message = _one_line(str(fields.pop("message")))
        return " ".join(
            [*head, message, *(f"{name}={_quoted(value)}" for name, value in fields.items())]
        )

    def _fields(self, record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
        at = datetime.fromtimestamp(record.created, UTC)
        yield "time", at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield "level", record.levelname
        yield "logger", record.name
        yield "message", redact(message_of(record))
        for name in sorted(record.__dict__.keys() - STANDARD):
            # A field must not stand in for one of ours.
            own = name in ("time", "level", "logger", "message", "exception")
            yield (f"{name}_" if own else name), redact_value(name, record.__dict__[name])
        if record.exc_info and record.exc_info[0] is not None:
            yield "exception", redact(self.formatException(record.exc_info))
        elif record.exc_text:
            yield "exception", redact(record.exc_text)


def _one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if text and not re.search(r"[\s\"=\\]", text):
        return text
    return text if not isinstance(value, str) else json.dumps(text, ensure_ascii=False)


def configure(level: str | int, json: bool, stream: IO[str] | None = None) -> None:
    """Log to stderr (or `stream`) from now on; replaces what an earlier call set up.

    Args:
        level: name or number, for example INFO; ValueError when there is no such level.
        json: one JSON object a line instead of key=value.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(LineFormatter(as_json=json))
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for old in root.handlers[:]:
        if isinstance(old.formatter, LineFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    # Their INFO is about themselves; ours says what was done.
    for chatty in ("alembic", "sqlalchemy", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
