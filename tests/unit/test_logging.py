"""Log lines: one line an event, UTC, nothing secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from failback.logging import HIDDEN, LineFormatter, configure, redact

SECRET = "gE-heim!"

Lines = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(as_json: bool, level: str = "INFO") -> Lines:
    stream = io.StringIO()
    configure(level, as_json, stream)
    return lambda: stream.getvalue().splitlines()


log = logging.getLogger("failback.test")


def test_a_plain_line_carries_its_fields() -> None:
    lines = lines_of(as_json=False)

    log.info(
        "disk %s copied", "scsi0:0", extra={"replica": "web", "count": 3, "why": "a b", "e": ""}
    )

    time, rest = lines()[0].split(" ", 1)
    assert rest == ('INFO failback.test disk scsi0:0 copied count=3 e="" replica=web why="a b"')
    at = datetime.fromisoformat(time)
    assert time.endswith("Z")
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


def test_a_json_line_carries_its_fields() -> None:
    lines = lines_of(as_json=True)

    log.warning("copied", extra={"replica": "web", "queues": ["a", "b"], "level": "x", "n": None})

    found = json.loads(lines()[0])
    assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
    assert found == {
        "level": "WARNING",
        "logger": "failback.test",
        "message": "copied",
        "replica": "web",
        "queues": ["a", "b"],
        "level_": "x",
        "n": None,
    }


@pytest.mark.parametrize("as_json", [True, False])
def test_every_event_is_one_line(as_json: bool) -> None:
    lines = lines_of(as_json)

    log.info("two\nlines", extra={"field": "two\r\nlines"})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")

    assert len(lines()) == 2
    assert "ValueError: two" in lines()[1]


def test_a_wrong_format_string_costs_no_line() -> None:
    record = logging.makeLogRecord({"msg": "%d pieces", "args": ("many",)})

    assert "%d pieces ('many',)" in LineFormatter(as_json=False).format(record)


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{SECRET}@host/sdk",
        f"postgresql://me:{SECRET}@host/db failed",
        f"https://{SECRET}@host",
        f"password={SECRET}",
        f"password: {SECRET}",
        f"db_password='{SECRET} x'",
        f'{{"token": "{SECRET}"}}',
        f"SECRET = {SECRET}, next",
        f"Authorization: Bearer {SECRET.strip('!')}",
        f"?api_key={SECRET}&x=1",
        f'{{"password": "a\\"b {SECRET}"}}',
    ],
)
def test_secrets_in_text_are_hidden(text: str) -> None:
    assert SECRET.strip("!") not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://host/sdk",
        "https://host/path@2",
        "password_file=/etc/failback/password",
        "the token was taken over by attempt 2",
        "mail ann@example.org",
        "scsi0:0 of web (production:vm-1)",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_in_fields_and_exceptions_are_hidden(as_json: bool) -> None:
    lines = lines_of(as_json)
    fields: dict[str, Any] = {
        "password": SECRET,
        "sessionToken": SECRET,
        "client_secret": [SECRET],
        "site": {
            "url": f"https://me:{SECRET}@host/",
            "Passwd": SECRET,
            "names": [{"token": SECRET}],
        },
        "error": ValueError(f"password={SECRET}"),
        "password_file": "/etc/failback/password",
    }

    log.info("login at %s", f"https://me:{SECRET}@host/", extra=fields)
    try:
        raise ValueError(f"cannot reach https://me:{SECRET}@host/")
    except ValueError:
        log.exception("failed")

    assert SECRET not in "".join(lines())
    assert "/etc/failback/password" in lines()[0]


def test_other_handlers_get_the_record_unchanged() -> None:
    lines = lines_of(as_json=False)
    seen: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logging.getLogger().addHandler(Keep())
    log.info("at %s", "https://me:x@host/", extra={"token": "x"})

    assert seen[0].args == ("https://me:x@host/",)
    assert vars(seen[0])["token"] == "x"
    assert len(lines()) == 1


def test_the_last_configuration_counts() -> None:
    first = lines_of(as_json=False)
    second = lines_of(as_json=True, level="warning")

    log.info("not seen")
    log.warning("seen")

    assert first() == []
    assert len(second()) == 1


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure("loud", json=False)
