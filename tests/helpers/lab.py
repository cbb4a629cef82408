"""The practice site as a child process: started, asked through its control door, ended.

with start_lab("tiny", tmp_path) as lab:
    lab.control.fault("drop-after", method="PowerOffVM_Task")
    sites = VsphereSites(lab.connection(name) for name in lab.sites)
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from failback.hypervisor.connection import SiteConnection
from tools import paths

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15


class ControlRefused(Exception):
    """The lab's control door said no."""


@dataclass(frozen=True)
class Control:
    """Client of the lab's control door: what a test sees and does beside vSphere."""

    url: str

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, **body: Any) -> Any:
        return self._ask("POST", path, body)

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path, None)

    def fault(self, kind: str, **rule: Any) -> int:
        """Add a fault rule, for instance `fault("drop-after", method="CreateSnapshot_Task")`."""
        return int(self.post("/faults", kind=kind, **rule)["id"])

    def hits(self, fault: int) -> int:
        """How many calls a rule has hit."""
        return int(self.get(f"/faults/{fault}")["hits"])

    def calls(self, site: str) -> dict[str, int]:
        """SOAP calls of the site's clients so far, by method."""
        return dict(self.get("/calls")["sites"][site]["methods"])

    def vm(self, site: str, name: str) -> dict[str, Any]:
        """The VM as the lab itself sees it."""
        return dict(self.get("/state")["sites"][site]["vms"][name])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise ControlRefused(f"{method} {path}: {error.code} {said}") from None


@dataclass
class LabHandle:
    """A running lab. Ends with `stop`, with the context, or with this process."""

    process: subprocess.Popen[str]
    manifest: dict[str, Any]
    control: Control
    output: list[str] = field(default_factory=list)

    @property
    def sites(self) -> list[str]:
        """Names of its sites."""
        return sorted(self.manifest["sites"])

    def connection(self, site: str, **changes: Any) -> SiteConnection:
        """How to reach one of its sites; `changes` replace single settings."""
        settings: dict[str, Any] = {
            "name": site,
            "url": self.manifest["sites"][site]["url"],
            "username": self.manifest["username"],
            "password_file": Path(self.manifest["password_file"]),
            "ca_file": Path(self.manifest["ca_file"]),
            "connect_timeout_s": 10.0,
            "request_timeout_s": 30.0,
        }
        return SiteConnection(**(settings | changes))

    def stop(self) -> None:
        """End the lab and wait for it."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


@cache
def lab_binary() -> Path:
    """The lab's program: FAILBACK_LAB, else what the project's own builder made."""
    return paths.lab()


def start_referee(world: dict[str, Any], root: Path) -> LabHandle:
    """Start the stock simulator of an older release; its control door knows only lost calls."""
    return start_lab(world, root, binary=paths.referee())


def start_lab(
    world: str | dict[str, Any], root: Path, *flags: str, binary: Path | None = None
) -> LabHandle:
    """Start a lab and wait until it is ready.

    `world`: a built-in name (`tiny`, `demo`), a JSON file, or the description itself.
    """
    root.mkdir(parents=True, exist_ok=True)
    if isinstance(world, dict):
        described = root / "world.json"
        described.write_text(json.dumps(world), encoding="utf-8")
        world = str(described)
    # Its stdin is a pipe we hold: when this process dies by any cause, the lab ends too.
    process = subprocess.Popen(
        [
            *(str(binary or lab_binary()), "--root", str(root / "lab")),
            *("--world", world, "--exit-on-stdin-eof", *flags),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output: list[str] = []
    ready: queue.Queue[bool] = queue.Queue()
    threading.Thread(target=_follow, args=(process, output, ready), daemon=True).start()
    try:
        started = ready.get(timeout=START_TIMEOUT_S)
    except queue.Empty:
        started = False
    if not started:
        process.kill()
        process.wait()
        raise RuntimeError(f"the lab did not start: {' '.join(output) or 'it said nothing'}")
    path = root / "lab" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return LabHandle(process, manifest, Control(manifest["control_url"]), output)


def _follow(process: subprocess.Popen[str], output: list[str], ready: queue.Queue[bool]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            output.append(line.rstrip())
            if line.startswith("failback-lab ready"):
                ready.put(True)
    ready.put(False)
