"""Finds, downloads or builds the `temporal` program: server and command line in one binary."""

from __future__ import annotations

import io
import json
import re
import tarfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tools.cache import cache_dir, find, fingerprint, obtain
from tools.golang import build, require_go
from tools.host import ROOT, Host, Problem, long_step, say

TESTED = {"1.8.2": "1.32.0"}
"""CLI releases that the tests pass on, and the server each carries. The first is what we build.
Time skipping needs a server of 1.32 or newer; go.mod beside this file pins the same pair."""

BUILT = next(iter(TESTED))
MODULE = ROOT / "tools" / "temporal"
KIND = "temporal"
PROGRAM = "temporal"

# Where the Temporal SDKs download their test servers; the answer names an archive.
DOWNLOADS = "https://temporal.download/cli"
PROBE_S = 3.0
DOWNLOAD_S = 180.0

Fetch = Callable[[str, float], bytes]
"""URL and seconds -> content; raises OSError (of which URLError and TimeoutError are kinds)."""


def cache_key(host: Host) -> str:
    """Names the binary: release, what it is built from, and the machine it runs on."""
    pins = fingerprint((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    return f"{BUILT}-{host.system}-{host.arch}-{pins}"


def parse_versions(text: str) -> tuple[str, str] | None:
    """`temporal version 1.8.2 (Server 1.32.0, UI 2.50.1)` -> ("1.8.2", "1.32.0")."""
    found = re.search(r"temporal version v?(\S+) \(Server v?([^,\s)]+)", text)
    return (found[1], found[2]) if found else None


def is_tested(host: Host, program: Path) -> bool:
    """Whether this program says that it is a pair we tested."""
    versions = parse_versions(host.run([str(program), "--version"], timeout_s=20).output)
    return versions is not None and TESTED.get(versions[0]) == versions[1]


def locate(host: Host) -> Path | None:
    """Find a usable binary without downloading or building: FAILBACK_TEMPORAL, the cache, PATH."""
    if named := host.env.get("FAILBACK_TEMPORAL"):
        program = Path(named).absolute()
        if not program.is_file():
            raise Problem(
                f"FAILBACK_TEMPORAL names {program}, which is not there: unset or mend it."
            )
        return program
    if cached := find(cache_dir(host.env), KIND, cache_key(host), PROGRAM):
        return cached
    on_path = host.which(PROGRAM)
    return on_path if on_path is not None and is_tested(host, on_path) else None


def ensure(host: Host, fetch: Fetch | None = None) -> Path:
    """Return a usable binary, by the cheapest way there is."""
    if ready := locate(host):
        return ready

    def produce(target: Path) -> None:
        if host.env.get("FAILBACK_NO_DOWNLOAD") or not _download(host, target, fetch or _fetch):
            _build(host, target)
        if not is_tested(host, target):
            raise Problem(f"The Temporal binary just made is not release {BUILT} or does not run.")

    return obtain(cache_dir(host.env), KIND, cache_key(host), PROGRAM, produce)


def _build(host: Host, target: Path) -> None:
    go = require_go(host, MODULE / "go.mod", f"the Temporal server {TESTED[BUILT]}")
    with long_step(f"building Temporal {BUILT} from Go modules", "4 to 8 minutes on 2 cores, once"):
        build(
            host,
            go,
            MODULE,
            "github.com/temporalio/cli/cmd/temporal",
            target,
            purpose="Temporal",
            ldflags=[f"-X github.com/temporalio/cli/internal/temporalcli.Version={BUILT}"],
        )


def _download(host: Host, target: Path, fetch: Fetch) -> bool:
    """Download the release we tested; False where that cannot be had, whatever the reason."""
    query = urllib.parse.urlencode({"arch": host.arch, "platform": host.system, "format": "tar.gz"})
    try:
        info = json.loads(_within(PROBE_S, fetch, f"{DOWNLOADS}/v{BUILT}?{query}"))
        archive_url, member = str(info["archiveUrl"]), str(info["fileToExtract"])
        if not archive_url.startswith("https://"):
            return False
        say(f"downloading Temporal {BUILT} ...")
        archive = _within(DOWNLOAD_S, fetch, archive_url)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            # Only this member's content is taken: names inside an archive are never followed.
            content = files.extractfile(member)
            if content is None:
                return False
            target.write_bytes(content.read())
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError):
        return False
    target.chmod(0o755)
    return is_tested(host, target)


def _within(seconds: float, fetch: Fetch, url: str) -> bytes:
    """Call fetch, giving up after this long even inside name resolution, which has no timeout."""
    answers: list[bytes | OSError] = []

    def call() -> None:
        try:
            answers.append(fetch(url, seconds))
        except OSError as error:
            answers.append(error)

    # A daemon: a stuck look-up must not keep the process from ending.
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]


def _fetch(url: str, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    pieces = []
    with urllib.request.urlopen(url, timeout=min(seconds, 10)) as response:
        while piece := response.read(1 << 20):
            pieces.append(piece)
            if time.monotonic() > deadline:
                raise TimeoutError("the download is too slow")
    return b"".join(pieces)
