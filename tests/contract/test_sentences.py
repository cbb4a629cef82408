"""What a person reads when a site cannot be used: docs/vsphere-errors.md says the same.

Every case is a real server on this machine: the lab, or one of a few lines with a certificate
of its own.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from failback.contracts.placement import NetworkMap, Placement
from failback.contracts.shell import VmShell
from failback.errors import FailbackError
from failback.hypervisor.connection import SiteConnection
from failback.hypervisor.vsphere.sites import VsphereSite, VsphereSites
from tests.contract.backends import Beats
from tests.contract.conftest import QUICK, WORLD
from tests.helpers.lab import LabHandle, start_lab

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "vsphere-errors.md"
SITE = "one"


class Page(BaseHTTPRequestHandler):
    """A web server that is no vCenter."""

    def do_GET(self) -> None:
        status, headers, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class Quiet(ThreadingHTTPServer):
    """Failed handshakes are what the tests are about."""

    daemon_threads = True
    answer: tuple[int, dict[str, str], bytes] = (404, {}, b"no such page")

    def handle_error(self, request: object, client_address: object) -> None:
        """Nobody reads it."""


@contextmanager
def web_server(
    certificate: trustme.LeafCert | trustme.CA | None, answer: Any = None
) -> Iterator[int]:
    """A web server on a free port, with TLS where it has a certificate."""
    server = Quiet(("127.0.0.1", 0), Page)
    if answer is not None:
        server.answer = answer
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if isinstance(certificate, trustme.LeafCert):
            certificate.configure_cert(context)
        else:
            private, shown = certificate.private_key_pem, certificate.cert_pem
            with private.tempfile() as key, shown.tempfile() as pem:
                context.load_cert_chain(pem, key)
        # Later, in the connection's own thread: a handshake must not stop the server.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Desk:
    """What a case may use: a lab, an authority that is trusted, and a place for its servers."""

    lab: LabHandle
    folder: Path
    stack: ExitStack
    authority: trustme.CA = field(default_factory=trustme.CA)

    def connection(self, **changes: Any) -> SiteConnection:
        return self.lab.connection(SITE, **{"connect_timeout_s": 5.0, **changes})

    def served(self, certificate: Any, host: str = "127.0.0.1", **changes: Any) -> SiteConnection:
        """A connection to a web server with this certificate, trusting our authority."""
        answer = changes.pop("answer", None)
        port = self.stack.enter_context(web_server(certificate, answer))
        ca_file = self.folder / "trusted.pem"
        self.authority.cert_pem.write_to_path(str(ca_file))
        url = f"{changes.pop('scheme', 'https')}://{host}:{port}/sdk"
        return self.connection(**{"url": url, "ca_file": ca_file, **changes})

    def good(self) -> trustme.LeafCert:
        return self.authority.issue_cert("127.0.0.1", "localhost")


Case = Callable[[Desk], SiteConnection]
HTML = (200, {"Content-Type": "text/html"}, b"<html><title>Welcome</title></html>")
PAST = datetime.now(UTC) - timedelta(days=2)


def _old(desk: Desk) -> SiteConnection:
    about = f"/sites/{SITE}/about"
    desk.lab.control.post(about, api_version="6.5")
    desk.stack.callback(lambda: desk.lab.control.post(about, api_version="8.0.3.0"))
    return desk.connection()


def _wrong_password(desk: Desk) -> SiteConnection:
    wrong = desk.folder / "wrong"
    wrong.write_text("guessed", encoding="utf-8")
    return desk.connection(password_file=wrong)


def _nobody_listens(desk: Desk) -> SiteConnection:
    reserved = desk.stack.enter_context(socket.socket())
    reserved.bind(("127.0.0.1", 0))
    return desk.connection(url=f"https://127.0.0.1:{reserved.getsockname()[1]}/sdk")


def _silent(desk: Desk) -> SiteConnection:
    listening = desk.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    url = f"https://127.0.0.1:{listening.getsockname()[1]}/sdk"
    return desk.connection(url=url, connect_timeout_s=0.3)


def _path(desk: Desk) -> SiteConnection:
    url: str = desk.lab.manifest["sites"][SITE]["url"]
    return desk.connection(url=url.removesuffix("/sdk") + "/vcenter")


PLACES = {
    "wrong cluster": Placement(cluster="Cluster 7"),
    "wrong host": Placement(host="esx9.example"),
    "wrong folder": Placement(folder="/DC0/vm/prodution"),
    "wrong datastore": Placement(datastore="ds-dr"),
    "wrong network": Placement(networks=(NetworkMap(replica="VM Network", target="VLAN 7"),)),
    "name that is taken": Placement(),
}

CASES: dict[str, Case] = {
    "self-signed certificate": lambda d: d.served(trustme.CA()),
    "certificate of an unknown authority": lambda d: d.served(trustme.CA().issue_cert("127.0.0.1")),
    "certificate that has expired": lambda d: d.served(
        d.authority.issue_cert("127.0.0.1", not_after=PAST)
    ),
    "certificate for another name": lambda d: d.served(
        d.authority.issue_cert("vcenter.example"), "localhost"
    ),
    "certificate without this address": lambda d: d.served(
        d.authority.issue_cert("vcenter.example")
    ),
    "another certificate than the pinned one": lambda d: d.served(
        d.good(), thumbprint_sha256="00" * 32
    ),
    "wrong ca_file": lambda d: d.connection(ca_file=d.folder / "none.pem"),
    "wrong host name": lambda d: d.connection(url="https://vcenter.invalid/sdk"),
    "wrong port": _nobody_listens,
    "nothing is said": _silent,
    "https at a port that speaks plain http": lambda d: d.served(None),
    "http instead of https": lambda d: d.connection(url="http://vcenter.example/sdk"),
    "http to a site that wants https": lambda d: d.served(
        None,
        answer=(301, {"Location": "https://vcenter.example/sdk"}, b""),
        scheme="http",
        insecure=True,
    ),
    "some web server": lambda d: d.served(d.good()),
    "a web server that answers everything": lambda d: d.served(d.good(), answer=HTML),
    "wrong path": _path,
    "wrong user name or password": _wrong_password,
    "wrong inventory_root": lambda d: d.connection(inventory_root="/DC0/vm/prodution"),
    "a privilege is missing": lambda d: d.connection(),
    "release too old": _old,
    **{case: lambda d: d.connection() for case in PLACES},
}


def use(site: VsphereSite, desk: Desk, case: str) -> None:
    """Ask the site who it is, then have it do something that the account may not do, or make a VM
    where that cannot be."""
    site.ping()
    if case in PLACES:
        shell = VmShell(
            name="off" if case == "name that is taken" else "web01",
            configuration=site.configuration(site.find("off")),
            placement=PLACES[case],
        )
        site.create_vm(shell, "run", Beats())
    deny = f"/sites/{SITE}/deny"
    desk.lab.control.post(deny, privileges=["VirtualMachine.State.CreateSnapshot"])
    desk.stack.callback(lambda: desk.lab.control.post(deny, privileges=[]))
    site.create_snapshot(site.find("off"), "failback/run/x", "run", Beats())


def sentence(case: str, desk: Desk) -> str:
    """The document's row for a case, without what differs from run to run."""
    try:
        connection = CASES[case](desk)
    except FailbackError as early:
        error = early
    else:
        with VsphereSites([connection], QUICK) as sites:
            with pytest.raises(FailbackError) as caught:
                use(sites.site(SITE), desk, case)
            error = caught.value
    text = str(error)
    for pattern, instead in (
        (re.escape(str(desk.folder)), "FOLDER"),
        (r"\b[0-9a-f]{64}\b", "THUMBPRINT"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"localhost:\d+", "localhost:PORT"),
        (r"\bvm-\d+", "vm-NUMBER"),
        # What OpenSSL says differs from release to release.
        (r" \((self[- ]signed|unable|certificate|Hostname|IP address)[^)]*\)", ""),
    ):
        text = re.sub(pattern, instead, text)
    return f"| {case} | {error.type} | {text} |"


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHandle]:
    with start_lab(WORLD, tmp_path_factory.mktemp("sentences")) as lab:
        yield lab


@pytest.mark.parametrize("case", CASES)
def test_each_wrong_setting_gives_the_sentence_of_the_document(
    shared_lab: LabHandle, tmp_path: Path, case: str
) -> None:
    with ExitStack() as stack:
        row = sentence(case, Desk(shared_lab, tmp_path, stack))
    print(row)
    assert row in DOCUMENT.read_text(encoding="utf-8").splitlines()


def test_the_document_has_no_other_rows() -> None:
    rows = [
        line.split("|")[1].strip()
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| what is wrong", "|-"))
    ]
    assert rows == list(CASES)
