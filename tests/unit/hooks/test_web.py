"""HTTP calls: what is sent, what counts as success, and that time and trust are bounded."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from failback.hooks.calls import Calls, HookUrl
from tests.helpers.tls import Authority
from tests.unit.hooks.test_command import OCCASION, quiet

SECOND = timedelta(seconds=1)
MINUTE = timedelta(seconds=60)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers by the path: a status, `slow`, `long` or `cut`."""

    got: ClassVar[list[Any]] = []
    released: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.got.append((self.path, dict(self.headers), self.rfile.read(length)))
        what = self.path.strip("/").partition("?")[0]
        if what == "slow":
            self.released.wait(60)
            return
        if what == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            return
        body = b"x" * 3_000_000 if what == "long" else b"token=abc said"
        self.send_response(int(what) if what.isdigit() else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            return

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def receiver(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A receiver on a free port of this machine."""
    Receiver.got.clear()
    Receiver.released.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        Receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def call(url: str, timeout: timedelta = MINUTE, **more: Any) -> Any:
    return Calls({"dns": HookUrl(url, **more)}).call(OCCASION, timeout, quiet)


def test_a_call_carries_the_occasion_the_key_and_the_headers_of_the_file(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("# of the gateway\nAuthorization: Bearer t0ken-t0ken\n\nX-One: 1\n")

    with receiver() as port:
        made = call(f"http://127.0.0.1:{port}/200?a=b", headers_file=headers)

    (path, sent, body) = Receiver.got[0]
    assert (made.ok, made.evidence) == (True, "HTTP status 200")
    assert made.output == "token=[hidden] said"
    assert path == "/200?a=b"
    assert sent["Idempotency-Key"] == OCCASION.key
    assert (sent["Authorization"], sent["X-One"]) == ("Bearer t0ken-t0ken", "1")
    assert json.loads(body)["run"] == "run-1"


@pytest.mark.parametrize("status", [204, 302, 404, 500])
def test_only_two_hundreds_are_success(status: int) -> None:
    with receiver() as port:
        made = call(f"http://127.0.0.1:{port}/{status}")

    assert made.ok is (status == 204)
    assert f"HTTP status {status}" in made.evidence
    # A redirect could lead a call with its token to somebody else.
    assert [path for path, _, _ in Receiver.got] == [f"/{status}"]


def test_a_receiver_that_does_not_answer_is_given_up() -> None:
    with receiver() as port:
        made = call(f"http://127.0.0.1:{port}/slow", SECOND / 5)

    assert not made.ok
    assert made.evidence.startswith("there was no answer")


def test_nobody_there_and_a_broken_answer_are_results() -> None:
    with receiver() as port:
        cut = call(f"http://127.0.0.1:{port}/cut")
    nobody = call(f"http://127.0.0.1:{port}/200")

    assert (cut.ok, nobody.ok) == (False, False)
    assert "IncompleteRead" in cut.evidence
    assert "ConnectionRefusedError" in nobody.evidence


def test_a_long_answer_is_kept_in_bounded_memory() -> None:
    with receiver() as port:
        made = call(f"http://127.0.0.1:{port}/long")

    assert made.ok
    assert len(made.output) <= 4096


def test_a_certificate_must_be_trusted_by_default(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    with receiver(context) as port:
        url = f"https://127.0.0.1:{port}/200"
        untrusted = call(url)
        trusted = call(url, ca_file=files.ca)
        anyhow = call(url, insecure=True)

    assert (untrusted.ok, trusted.ok, anyhow.ok) == (False, True, True)
    assert "CERTIFICATE_VERIFY_FAILED" in untrusted.evidence


def test_a_wrong_headers_file_is_a_result_without_its_content(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("Authorization Bearer geheim\n")

    made = call("http://127.0.0.1:1/", headers_file=headers)

    assert not made.ok
    assert "line 1 is not a header" in made.evidence
    assert "geheim" not in made.evidence
